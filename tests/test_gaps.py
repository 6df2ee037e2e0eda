"""Targets with gaps, and weights of single targets: beside PyTorch, scikit-learn, finite differences and NumPy."""

import pickle
import re

import numpy as np
import pytest
import sklearn.metrics
from sklearn.utils.class_weight import compute_class_weight

import dlx
import oracles
from dlx import losses, network, scoring
from dlx.data import gaps, parameters, targets
from dlx.plot import figures
from dlx.report import evidence
from dlx.training import arguments, divergence, loop, steps

N, K = 40, 3
RNG = np.random.default_rng(5)
X = RNG.standard_normal((N, 4))
REAL = np.stack([X[:, 0] * X[:, 1], X[:, 2] - 1.0, np.abs(X[:, 3])], axis=1)
PRESENT = RNG.random((N, K)) < 0.7
PRESENT[3] = False  # a row without any target
HOLEY = np.where(PRESENT, REAL, np.nan)
YES = (REAL > 0.2).astype(float)
HOLEY_YES = np.where(PRESENT, YES, np.nan)
W = RNG.uniform(0.2, 3.0, (N, K))

SUMS = {
    "squared_error": losses.squared_error(),
    "half": losses.squared_error(half=True),
    "absolute_error": losses.absolute_error(),
    "huber": losses.huber(0.5),
    "quantile": losses.quantile(0.3),
    "one q each": losses.quantile([0.2, 0.5, 0.9]),
    "poisson": losses.poisson(),
    "binary_cross_entropy": losses.binary_cross_entropy(),
}
every_sum = pytest.mark.parametrize("loss", SUMS.values(), ids=SUMS)


def truth_for(loss):
    """Targets without gaps that the loss takes."""
    return {"real": REAL, "counts": np.abs(REAL), "binary": YES}[loss.targets]


def with_gaps(y):
    return np.where(PRESENT, y, np.nan)


def fit(y=HOLEY, dims=(4, 6, K), x=X, **settings):
    how = {"loss": "squared_error", "epochs": 3, "batch_size": 8, "missing": "mask", "rng": 0}
    return dlx.fit(x, y, dims, **{**how, **settings})


def same_bits(one, other):
    pairs = zip(one.params, other.params, strict=True)
    return all(
        np.array_equal(one.backend.to_host(a), other.backend.to_host(b))
        for layers in pairs
        for a, b in zip(*layers, strict=True)
    ) and [one.history[name] == other.history[name] for name in ("loss", "learning_rate")] == [True, True]


def terms_of(loss, Z, Y):
    """The terms, (n, K), as SciPy and scikit-learn write them."""
    found = oracles.HOST_LOSSES[loss.name](Z, Y, **{k: v for k, v in loss.settings.items() if k != "half"})
    return found / 2 if loss.settings.get("half") else found


# -- the loss and its gradient --


@every_sum
def test_terms_sum_to_the_value_and_are_those_of_outsiders(loss, be):
    Z, Y = RNG.standard_normal((N, K)), truth_for(loss)
    bound = loss.bind(be.xp, lambda x: be.asarray(x, "float64"))
    terms, value = (be.to_host(f(be.asarray(Z), be.asarray(Y))) for f in (bound.terms, bound.value))
    oracles.assert_close(terms, terms_of(loss, Z, Y), 1e-12)
    np.testing.assert_allclose(value, terms.sum(axis=1, keepdims=True), rtol=1e-14)
    assert len(bound) == 3  # value, delta, predict: what a user unpacks


def test_cross_entropy_and_a_user_s_own_loss_have_no_terms():
    own = losses.get((lambda Z, Y: Z, lambda Z, Y: Z))
    assert [each.bind(np, np.asarray).terms for each in (losses.cross_entropy(), own)] == [None, None]


@every_sum
def test_the_gradient_is_the_derivative_of_the_loss(loss, be):
    """J = 1/n Σ_i Σ_k w_ik term_ik, by central differences in weights and biases of both layers."""
    weights = W * PRESENT
    net = network.bind(be, "float64", parameters.hidden_activations("tanh", 1), loss)
    shapes = [(4, 5), (1, 5), (5, K), (1, K)]
    theta = np.random.default_rng(1).standard_normal(sum(a * b for a, b in shapes))
    x, y, w = (be.asarray(each, "float64") for each in (X, truth_for(loss), weights))

    def params(vector):
        parts = np.split(vector, np.cumsum([a * b for a, b in shapes])[:-1])
        W1, b1, W2, b2 = (be.asarray(part.reshape(shape), "float64") for part, shape in zip(parts, shapes, strict=True))
        return (network.Layer(W1, b1), network.Layer(W2, b2))

    def J(vector):
        return float(network.loss_and_gradients(net, params(vector), x, y, w, None)[0])

    Z = be.to_host(network.scores(net, params(theta), x))
    assert J(theta) == pytest.approx((weights * terms_of(loss, Z, truth_for(loss))).sum() / N, rel=1e-12)
    gradients = network.loss_and_gradients(net, params(theta), x, y, w, None)[1]
    found = np.concatenate([be.to_host(each).ravel() for layer in gradients for each in layer])
    h = 1e-6
    places = range(0, len(theta), 6)
    expected = [(J(theta + h * e) - J(theta - h * e)) / (2 * h) for e in np.eye(len(theta))[places]]
    np.testing.assert_allclose(found[places], expected, rtol=1e-5, atol=1e-7)


@oracles.by_library(oracles.TORCH_LOSSES)
@pytest.mark.parametrize("name", ["squared_error", "absolute_error", "huber", "poisson", "binary_cross_entropy"])
def test_a_masked_training_is_that_of_torch(name, library):
    """Its own autograd and SGD, on the masked loss written out; two epochs of ragged batches."""
    import torch

    loss, y = SUMS[name], with_gaps(truth_for(SUMS[name]))
    start = [(RNG.standard_normal((4, 5)), np.zeros(5)), (RNG.standard_normal((5, K)), np.zeros(K))]
    how = {"init": start, "activation": "tanh", "optimizer": "sgd", "learning_rate": 0.1, "shuffle": False}
    net = fit(y, (4, 5, K), loss=loss, epochs=2, batch_size=16, **how)
    variables = [torch.tensor(each, requires_grad=True) for pair in start for each in pair]
    optimizer, x = torch.optim.SGD(variables, lr=0.1), torch.tensor(X)
    mask, filled = torch.tensor(PRESENT), torch.tensor(np.nan_to_num(y))
    W1, b1, W2, b2 = variables
    for _ in range(2):
        for first in range(0, N, 16):
            part = slice(first, first + 16)
            Z = torch.tanh(x[part] @ W1 + b1) @ W2 + b2
            terms = oracles.TORCH_LOSSES[library][name](torch.nn.functional, Z, filled[part], **loss.settings)
            optimizer.zero_grad()
            (terms[mask[part]].sum() / len(Z)).backward()
            optimizer.step()
    found = [each for layer in net.params for each in (layer.W, layer.b[0])]
    for ours, theirs in zip(found, variables, strict=True):
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["half", "one q each", "poisson", "binary_cross_entropy"])
def test_every_library_masks_alike(name, be):
    loss = SUMS[name]
    y = with_gaps(truth_for(loss))
    net, host = (fit(y, loss=loss, backend=each, validation=0.25) for each in (be, "numpy"))
    for ours, theirs in zip(net.params, host.params, strict=True):
        np.testing.assert_allclose(be.to_host(ours.W), theirs.W, rtol=1e-9, atol=1e-11)
    for name in ("loss", "validation_loss", "validation_score"):
        assert net.history[name] == pytest.approx(host.history[name], rel=1e-9)
    assert net.score(X, y) == pytest.approx(host.score(X, y), rel=1e-9)


@pytest.mark.parametrize("settings", [{}, {"optimizer": "lbfgs"}, {"validation": 0.3}, {"stream": True}], ids=str)
@pytest.mark.parametrize("value", [-3.0, 1e6])
def test_what_stands_at_a_gap_does_not_matter(value, settings, monkeypatch):
    plain = fit(**settings)
    with monkeypatch.context() as patch:
        patch.setattr(gaps, "masked", lambda Y, name: (np.where(PRESENT, Y, value), PRESENT))
        assert same_bits(fit(**settings), plain)
    a, b = (fit(np.where(PRESENT, REAL, each), sample_weight=W * PRESENT, **settings) for each in (value, 0.0))
    assert same_bits(a, b)


def test_what_stands_at_a_gap_does_not_matter_on_any_library(be):
    a, b = (
        fit(np.where(PRESENT, REAL, each), sample_weight=W * PRESENT, validation=0.3, backend=be) for each in (1e6, 0.0)
    )
    assert same_bits(a, b)
    assert a.history["validation_loss"] == b.history["validation_loss"]


@pytest.mark.parametrize("settings", [{}, {"stream": True}, {"dropout": 0.2}, {"validation": 0.2}], ids=str)
def test_without_a_gap_the_bits_are_those_of_no_mask(settings):
    y, dims = (REAL, (4, 6, K)) if settings else (REAL[:, 0], (4, 1))
    assert same_bits(fit(y, dims, **settings), fit(y, dims, missing="raise", **settings))


def test_a_row_without_targets_teaches_nothing():
    other = X.copy()
    other[3] = 9.0
    assert same_bits(fit(x=other), fit())
    one = np.where(np.arange(N) == 3, np.nan, REAL[:, 0])
    assert same_bits(fit(one, (4, 1), x=other), fit(one, (4, 1)))


@pytest.mark.parametrize("how", [{"stream": True}, {"optimizer": "lbfgs"}, {"dropout": 0.3}, {"batch_size": None}])
def test_every_way_of_training_masks(how, be):
    """And all three at once: a gap is what a weight of 0 is, scaled to mean 1 over the others."""
    filled = np.where(PRESENT, REAL, 7.0)
    scaled = {"l2": 0.0, "optimizer": "sgd", "learning_rate": 0.1, **how}
    by_weight = {**scaled, "learning_rate": 0.1 * PRESENT.mean()} if "optimizer" not in how else scaled
    masked = fit(backend=be, **scaled)
    weighted = fit(filled, backend=be, missing="raise", sample_weight=PRESENT.astype(float), **by_weight)
    for ours, theirs in zip(masked.params, weighted.params, strict=True):
        np.testing.assert_allclose(be.to_host(ours.W), be.to_host(theirs.W), rtol=1e-6, atol=1e-8)


def test_weights_average_one_over_the_targets_that_are_there():
    """Equal weights are none, and weights of rows are those of their targets."""
    assert same_bits(fit(sample_weight=np.full((N, K), 1e300)), fit())
    rows = W[:, 0]
    for y in (HOLEY, REAL):
        one, other = (fit(y, sample_weight=w) for w in (rows, np.stack([rows] * K, axis=1)))
        np.testing.assert_allclose(one.history["loss"], other.history["loss"], rtol=1e-12)
    net = fit(sample_weight=W, batch_size=None, epochs=1)
    w = W * PRESENT * PRESENT.sum() / (W * PRESENT).sum()
    begun = fit(sample_weight=W, batch_size=None, epochs=1, optimizer="sgd", learning_rate=1e-300).predict(X)
    assert net.history["loss"][0] == pytest.approx((w * (begun - np.where(PRESENT, REAL, 0)) ** 2).sum() / N, rel=1e-12)


def test_one_target_of_several_quantiles_is_missing_for_all_or_weighs_for_each(be):
    y, band = np.where(PRESENT[:, 0], REAL[:, 0], np.nan), losses.quantile([0.1, 0.5, 0.9])
    masked = fit(y, loss=band, backend=be, batch_size=None)
    kept = PRESENT[:, 0]
    each = fit(np.nan_to_num(y), loss=band, sample_weight=np.stack([kept] * K, axis=1), backend=be)
    whole = fit(np.nan_to_num(y), loss=band, sample_weight=kept, backend=be)
    assert each.history["loss"] == pytest.approx(whole.history["loss"], rel=1e-9)
    assert masked.score(X, y) == pytest.approx(masked.score(X[kept], y[kept]), rel=1e-9)


# -- validation, score, zero loss, evidence --


def test_the_validation_loss_is_the_loss_of_those_rows(be):
    net = fit(validation=(X, HOLEY), backend=be)
    P = net.predict(X)
    J = (((P - REAL) ** 2)[PRESENT]).sum() / N
    assert net.history["validation_loss"][-1] == pytest.approx(J, rel=1e-9)
    assert net.history["validation_score"][-1] == net.score(X, HOLEY)
    held = fit(validation=0.5, backend=be, optimizer="sgd", learning_rate=1e-300, batch_size=None)
    rows, out = targets.split(targets.Targets(REAL), 0.5, np.random.default_rng(0))
    P = held.predict(X)
    for name, part in (("loss", rows), ("validation_loss", out)):
        assert held.history[name][-1] == pytest.approx(((P - REAL) ** 2 * PRESENT)[part].sum() / len(part), rel=1e-9), (
            name
        )


@pytest.mark.parametrize("weights", [None, W[:, 0], W], ids=["unweighted", "rows", "targets"])
def test_r2_is_that_of_the_targets_that_are_there(weights, be):
    net = fit(backend=be)
    P, w = net.predict(X), np.ones((N, K)) * (1.0 if weights is None else weights.reshape(N, -1))
    expected = [
        sklearn.metrics.r2_score(REAL[there, k], P[there, k], sample_weight=w[there, k])
        for k, there in enumerate(PRESENT.T)
    ]
    assert net.score(X, HOLEY, weights) == pytest.approx(np.mean(expected), rel=1e-9)
    lacking = HOLEY.copy()
    lacking[:, 1] = np.nan
    some = net.score(X, lacking, weights)
    assert some == pytest.approx(np.mean([expected[0], expected[2]]), rel=1e-9)


@pytest.mark.parametrize("weights", [None, W[:, 0], W], ids=["unweighted", "rows", "targets"])
def test_accuracy_asks_for_the_labels_that_are_there(weights, be):
    net = fit(HOLEY_YES, loss="binary_cross_entropy", backend=be)
    wrong = (net.predict(X) != YES) & PRESENT
    rows = PRESENT.any(axis=1)
    w = PRESENT * (1.0 if weights is None else weights.reshape(N, -1))
    w = w.sum(axis=1)[rows] / PRESENT.sum(axis=1)[rows]
    expected = np.average(~wrong.any(axis=1)[rows], weights=w)
    assert 0 < expected < 1
    assert net.score(X, HOLEY_YES, weights) == pytest.approx(expected, rel=1e-12)


def test_one_yes_or_no_of_floats_may_be_missing():
    y = HOLEY_YES[:, 0]
    net, there = fit(y, (4, 1), loss="binary_cross_entropy", epochs=30), PRESENT[:, 0]
    assert net.score(X, y) == np.mean(net.predict(X[there]) == YES[there, 0])


def test_the_loss_of_zero_scores_leaves_gaps_out(be):
    target = targets.check(HOLEY, losses.squared_error(), K, N, missing="mask")
    rows = targets.place(target, targets.weights(None, None, target, be), be.asarray(X), be, "float64")
    net = network.bind(be, "float64", (), losses.squared_error())
    task = steps.Task(be, net, "float64", rows, None)
    assert divergence.zero_loss(task) == pytest.approx((REAL[PRESENT] ** 2).sum() / N, rel=1e-12)
    zeros = (network.Layer(be.asarray(np.zeros((4, K))), be.asarray(np.zeros((1, K)))),)
    J = scoring.loss_of(be, net, zeros, rows, np.arange(N))
    assert divergence.zero_loss(task) == pytest.approx(J, rel=1e-12)


def test_a_diagnosis_leaves_gaps_out(be):
    net = fit(backend=be, validation=0.2)
    seen = evidence.collect(net, X, HOLEY, (X, HOLEY))
    mean = np.nanmean(HOLEY, axis=0)
    expected = [(((Z - REAL) ** 2)[PRESENT]).sum() / N for Z in (np.zeros(K), mean)]
    assert seen.guesses == pytest.approx(expected, rel=1e-9)
    J = ((net.predict(X) - REAL)[PRESENT] ** 2).sum() / N
    assert seen.now == pytest.approx([J, J], rel=1e-9)
    assert not seen.facts.weighted  # a mask is known from y
    assert fit(sample_weight=W).facts.weighted
    begun = fit(backend=be, optimizer="sgd", learning_rate=1e-300, batch_size=None)
    assert begun.facts.start == pytest.approx(begun.history["loss"][0], rel=1e-6)
    assert isinstance(net.report(X, HOLEY, validation=(X, HOLEY)), tuple)


def test_a_picture_of_gradients_leaves_gaps_out():
    net = fit()
    bound = network.bind(net.backend, "float64", net.activation, net.loss)
    _, expected = network.loss_and_gradients(bound, net.params, X, np.where(PRESENT, REAL, 7.0), PRESENT * 1.0, None)
    drawn = figures.layer_figures(net, X, HOLEY, N)
    size = np.abs(expected[0].W)
    assert drawn[0].gradients == pytest.approx(np.quantile(size[size > 0], figures.QUANTILES), rel=1e-9)


def test_the_search_for_a_learning_rate_takes_gaps():
    how = {"loss": "squared_error", "rng": 0, "updates": 30}
    found = dlx.find_learning_rate(X, HOLEY, (4, 6, K), missing="mask", **how)
    J = found.losses
    assert np.isfinite(J).all()
    weighted = dlx.find_learning_rate(X, np.nan_to_num(HOLEY), (4, 6, K), sample_weight=PRESENT * 1.0, **how)
    assert J[0] == pytest.approx(weighted.losses[0] * PRESENT.mean(), rel=1e-6)


# -- what knows of it --


def test_a_network_remembers_what_nan_is(tmp_path, be):
    net = fit(backend=be)
    path = tmp_path / "net.safetensors"
    net.save(path)
    for other in (dlx.load(path), net.to("numpy"), pickle.loads(pickle.dumps(net))):
        assert other.missing == "mask"
        assert other.score(X, HOLEY) == pytest.approx(net.score(X, HOLEY), rel=1e-9)
    plain = fit(REAL, missing="raise")
    with pytest.raises(ValueError, match=r"`y` must be finite; got nan at row .*, or pass missing='mask' to fit"):
        plain.score(X, HOLEY)
    plain.missing = "mask"
    assert np.isfinite(plain.score(X, HOLEY))
    plain.missing = "raise"
    plain.save(path)
    assert b'"missing"' not in path.read_bytes()  # nothing that an older dlx does not know
    assert dlx.load(path).missing == "raise"


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_a_checkpoint_knows_the_gaps(optimizer, tmp_path):
    how = {"optimizer": optimizer, "checkpoint": tmp_path, "validation": 0.25}
    fit(epochs=2, **how)
    assert same_bits(fit(epochs=4, **how), fit(epochs=4, optimizer=optimizer, validation=0.25))
    other = HOLEY.copy()
    other[0] = np.where(PRESENT[0], np.nan, 0.0)
    with pytest.raises(ValueError, match=r"`checkpoint` must be of the same training; got .* with a y that was"):
        fit(other, epochs=4, **how)
    with pytest.raises(ValueError, match=r"`checkpoint` must be of the same training; got .* with a y that was"):
        fit(np.nan_to_num(HOLEY), epochs=4, **how)


def test_a_checkpoint_of_another_missing_is_refused(tmp_path):
    fit(REAL, checkpoint=tmp_path)
    with pytest.raises(ValueError, match='with a missing that was "mask" and is null now'):
        fit(REAL, missing="raise", checkpoint=tmp_path)


def test_a_loss_of_one_s_own_sees_nan():
    seen = []

    def value(Z, Y):
        seen.append(bool(np.isnan(Y).any()))
        return np.where(np.isnan(Y), 0.0, (Z - Y) ** 2).sum(axis=1, keepdims=True)

    def delta(Z, Y):
        return np.where(np.isnan(Y), 0.0, 2 * (Z - Y))

    own = fit(loss=(value, delta), missing="keep", validation=(X, HOLEY))
    masked = fit(validation=(X, HOLEY))
    assert any(seen)
    for ours, theirs in zip(own.params, masked.params, strict=True):
        np.testing.assert_allclose(ours.W, theirs.W, rtol=1e-12)
    assert own.history["validation_loss"] == pytest.approx(masked.history["validation_loss"], rel=1e-12)
    assert own.score(X, HOLEY) == own.history["validation_score"][-1] == pytest.approx(masked.score(X, HOLEY), 1e-9)
    assert isinstance(own.report(X, HOLEY), tuple)
    one = np.where(PRESENT[:, 0], REAL[:, 0], np.nan)
    mine = (lambda Z, Y: (Z - Y) ** 2, lambda Z, Y: 2 * (Z - Y))
    single = [fit(one, (4, 1), loss=loss).params[0].W for loss in (mine, "squared_error")]
    np.testing.assert_allclose(*single, rtol=1e-12)  # a mask of rows needs no terms


def test_frames_and_lists_have_gaps_of_their_own_kind():
    import pandas as pd
    import polars as pl

    plain = fit()
    nullable = pd.DataFrame({k: pd.array(HOLEY[:, k]) for k in range(K)})
    assert nullable.isna().any(axis=None)
    listed = [[None if np.isnan(each) else float(each) for each in row] for row in HOLEY]
    objects = pd.DataFrame(HOLEY).astype(object).where(PRESENT, pd.NA)
    polars = pl.DataFrame(listed, schema=["a", "b", "c"], orient="row")
    for y in (pd.DataFrame(HOLEY), nullable, listed, np.array(listed, object), objects, polars):
        assert same_bits(fit(y), plain), type(y)
        assert plain.score(X, y) == plain.score(X, HOLEY)
    flags = pd.DataFrame(HOLEY_YES).astype("boolean")
    assert same_bits(*(fit(y, loss="binary_cross_entropy") for y in (flags, HOLEY_YES)))


# -- weights of labels --


def table(k, there=None):
    y = YES[:, k] if there is None else YES[there[:, k], k]
    return dict(zip((0, 1), compute_class_weight("balanced", classes=np.array([0.0, 1.0]), y=y), strict=True))


@pytest.mark.parametrize("present", [None, PRESENT], ids=["whole", "gaps"])
def test_balanced_labels_are_those_of_scikit_learn(present, be):
    """One compute_class_weight for each label, over the rows that have it."""
    y = YES if present is None else HOLEY_YES
    how = {"loss": "binary_cross_entropy", "backend": be}
    tables = [table(k, present) for k in range(K)]
    weights = np.array([[tables[k][each] for k, each in enumerate(row)] for row in YES])
    expected = fit(y, sample_weight=weights, **how)
    by_label = [tables, tuple(tables), dict(enumerate(tables)), "balanced"]
    for class_weight in by_label:
        found = fit(y, class_weight=class_weight, **how)
        for ours, theirs in zip(found.params, expected.params, strict=True):
            np.testing.assert_allclose(be.to_host(ours.W), be.to_host(theirs.W), rtol=1e-9, atol=1e-12)


def test_a_label_without_a_dict_or_an_answer_weighs_one():
    target = targets.check(YES, losses.binary_cross_entropy(), K, N)
    be = dlx.get_backend("numpy")
    w = targets.weights(None, {1: {1: 5.0}}, target, be)
    np.testing.assert_array_equal(w, np.stack([np.ones(N), 1 + 4 * YES[:, 1], np.ones(N)], axis=1))
    never = targets.check(YES * [1, 0, 1], losses.binary_cross_entropy(), K, N)
    np.testing.assert_array_equal(targets.weights(None, "balanced", never, be)[:, 1], 1.0)
    both = targets.weights(W[:, 0], [{}, {0: 2.0}, {}], target, be)
    expected = W[:, :1] * np.stack([np.ones(N), 2 - YES[:, 1], np.ones(N)], axis=1)
    np.testing.assert_allclose(both / both[0, 0], expected / expected[0, 0], rtol=1e-12)


@pytest.mark.filterwarnings("ignore:The training has not converged")
def test_the_classifier_weighs_labels_too():
    clf, how = dlx.MLPClassifier, {"hidden_layer_sizes": (5,), "max_iter": 5, "random_state": 0, "alpha": 0.01}
    Y = YES.astype(int)
    tables = [table(k) for k in range(K)]
    balanced, named = (clf(class_weight=w, **how).fit(X, Y) for w in ("balanced", tables))
    np.testing.assert_allclose(balanced.coefs_[0], named.coefs_[0], rtol=1e-9)
    ones, plain = (clf(class_weight=w, **how).fit(X, Y) for w in ([{}] * K, None))
    np.testing.assert_allclose(ones.coefs_[0], plain.coefs_[0], rtol=1e-12)
    assert np.abs(balanced.coefs_[0] - plain.coefs_[0]).max() > 1e-6
    part = clf(class_weight=tables, **how).partial_fit(X, Y, classes=[0, 1, 2])
    assert part.n_iter_ == 1
    early = clf(class_weight="balanced", early_stopping=True, **how).fit(X, Y)
    assert len(early.validation_scores_) == early.n_iter_


def test_weights_of_labels_tell_a_rare_one():
    """One yes in a hundred: without weights none is predicted."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3000, 2))
    y = np.stack([x[:, 0] + 0.5 * rng.standard_normal(3000) > 2.6, x[:, 1] > 0], axis=1).astype(int)
    plain, weighted = (
        dlx.fit(x, y, (2, 2), loss="binary_cross_entropy", optimizer="lbfgs", class_weight=w, rng=0).predict(x)
        for w in (None, "balanced")
    )
    recall = [sklearn.metrics.recall_score(y[:, 0], each[:, 0]) for each in (plain, weighted)]
    assert recall[0] < 0.6 < 0.9 < recall[1]


# -- what is refused --

OWN = (lambda Z, Y: ((Z - Y) ** 2).sum(axis=1, keepdims=True), lambda Z, Y: 2 * (Z - Y))
EMPTY = HOLEY.copy()
EMPTY[:, 1] = np.nan
LONELY = np.where(np.arange(N)[:, None] == [[7, 7, 7]], REAL, np.nan)
LABELS = np.arange(N) % 3 * 1.0
LABELS[5] = np.nan
MULTI = {"y": YES, "loss": "binary_cross_entropy"}
REFUSED = [
    (
        {"missing": "raise"},
        ValueError,
        "`y` must be finite; got nan at row 1, column 1. Fill or drop such rows, or pass missing='mask' to",
    ),
    ({"missing": "drop"}, ValueError, "`missing` must be one of 'keep', 'mask', 'raise'; got 'drop'. 'mask' gives"),
    ({"missing": None}, TypeError, "`missing` must be one of 'keep', 'mask', 'raise'; got None."),
    ({"missing": "keep"}, ValueError, "got 'keep' with squared_error. Pass missing='mask'."),
    ({"loss": OWN}, ValueError, "`missing` must be 'raise' or 'keep' with a loss of your own for several outputs; got"),
    (
        {"loss": OWN, "y": REAL, "missing": "raise", "sample_weight": W},
        ValueError,
        "`sample_weight` must be (n,) with a loss of your own for several outputs; got 'custom'. Multiply the terms",
    ),
    ({"y": EMPTY}, ValueError, "`y` must hold a target in each column; got none in column 1. Drop it, and its output"),
    ({"y": HOLEY * np.nan}, ValueError, "`y` must hold a target that is not missing; got nan alone."),
    (
        {"y": np.where(PRESENT, REAL, np.inf)},
        ValueError,
        "`y` must be finite; got inf at row 1, column 1. Fill or drop such rows.",
    ),
    ({"validation": (X, HOLEY * np.nan)}, ValueError, "`y_val` must hold a target that is not missing; got nan alone."),
    (
        {"y": LABELS, "loss": "cross_entropy"},
        ValueError,
        "`y` must hold a label in every row for cross_entropy; got nan at row 5. Drop such rows, or give them any",
    ),
    (
        {"y": np.where(PRESENT, 1 / 3, np.nan), "loss": "cross_entropy", "missing": "raise"},
        ValueError,
        "`y` must be finite; got nan at row 1, column 1. Fill or drop such rows.",
    ),
    ({"sample_weight": W[:, :2]}, ValueError, f"one for each row of X, or one for each target, ({N}, 3); got shape"),
    ({"sample_weight": ~PRESENT * 1.0}, ValueError, "`sample_weight` must leave some target that is not missing a"),
    (
        {"y": np.arange(N) % 3, "loss": "auto", "sample_weight": W},
        ValueError,
        f"`sample_weight` must be {N} numbers, one for each row of X; got shape ({N}, 3).",
    ),
    (MULTI | {"class_weight": {0: 1, 1: 5}}, TypeError, "`class_weight` must be 'balanced' or 3 dicts for several"),
    (MULTI | {"class_weight": "even"}, ValueError, "`class_weight` must be 'balanced' or 3 dicts for several"),
    (MULTI | {"class_weight": [{}, {}]}, ValueError, "one for each; got 2 of them. For example [{0: 1, 1: 5}] * 3"),
    (MULTI | {"class_weight": {3: {}}}, ValueError, "`class_weight` must name columns 0..2 of y; got 3."),
    (MULTI | {"class_weight": [{2: 1}, {}, {}]}, ValueError, "`class_weight` must name labels of y; got 2."),
    (MULTI | {"class_weight": [{1: -1}, {}, {}]}, ValueError, "`class_weight[1]` must be a number >= 0; got -1."),
    (MULTI | {"class_weight": [{0: 0, 1: 0}] * K}, ValueError, "`class_weight` must leave some row a weight above 0"),
    (
        MULTI | {"y": YES * 0.5, "class_weight": "balanced"},
        ValueError,
        "`class_weight` must come with labels of 0 and 1; got 0.5. Use sample_weight",
    ),
    ({"class_weight": "balanced"}, ValueError, "`class_weight` must come with one label a row, or with several yes"),
]


@pytest.mark.parametrize(("settings", "kind", "text"), REFUSED, ids=[re.sub(r"\W+", "-", e[2])[:70] for e in REFUSED])
def test_what_is_refused_and_what_to_do(settings, kind, text, monkeypatch):
    def reached(*arguments, **named):
        raise AssertionError("the training began")

    monkeypatch.setattr(loop, "train", reached)
    with pytest.raises((ValueError, TypeError), match=re.escape(text)) as caught:
        fit(**settings)
    assert type(caught.value) is kind


def test_a_column_all_of_whose_targets_are_held_out_is_refused():
    y = REAL.copy()
    _, out = targets.split(targets.Targets(REAL), 0.5, np.random.default_rng(0))
    y[np.setdiff1d(np.arange(N), out), 2] = np.nan
    text = r"`y` must hold a target in each column on the rows to train on; got none in column 2\. Hold out fewer rows"
    with pytest.raises(ValueError, match=text):
        fit(y, validation=0.5)


@pytest.mark.parametrize("kind", [float, object])
def test_a_kind_of_targets_is_told_by_the_rows_without_gaps(kind, monkeypatch):
    """So that a rule for `loss="auto"` sees what it knows."""
    seen = []
    loss_for = arguments.loss_for
    monkeypatch.setattr(arguments, "loss_for", lambda loss, y, *rest: seen.append(y) or loss_for(loss, y, *rest))
    given = np.array([[None if np.isnan(each) else each for each in row] for row in HOLEY_YES], kind)
    fit(given)
    np.testing.assert_array_equal(seen[0], YES[PRESENT.all(axis=1)])
    sparse = np.where(np.eye(K)[np.arange(N) % K] == 1, REAL, np.nan)
    fit(sparse)
    np.testing.assert_array_equal(seen[1], sparse)


def test_gaps_are_told_from_other_objects():
    assert gaps.as_nan(np.array(["a", None], object)).tolist() == ["a", None]
    assert gaps.as_nan(np.array([1, 2], object)).dtype == object
    assert gaps.as_nan(np.array([1, None], object)).dtype == np.float64
    with pytest.raises(TypeError, match="`y` must hold real numbers for this loss; got dtype object"):
        fit(np.array([["a", None, 1]] * N, object))
