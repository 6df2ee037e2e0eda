"""What each option of `fit` does to the numbers, beside an independent computation or a case that must equal it."""

import numpy as np
import pytest
import sklearn.linear_model
import sklearn.neural_network
import sklearn.utils.class_weight

import dlx
from dlx import dropout, schedules

N, DIMS = 24, (3, 5, 2)
X = np.random.default_rng(1).standard_normal((N, 3))
Y = (X[:, 0] + X[:, 1] ** 2 > 0.6).astype(int)
REAL = np.stack([X[:, 0] * X[:, 1], X[:, 2]], axis=1)


def fit(y=Y, X=X, dims=DIMS, **settings):
    return dlx.fit(X, y, dims, **{"epochs": 4, "learning_rate": 0.02, "rng": 3, **settings})


def vector(net):
    return np.concatenate([net.backend.to_host(each).ravel() for layer in net.params for each in layer])


def assert_close(one, other, tolerance=0.0):
    """The same weights and losses, by default bit by bit."""
    np.testing.assert_allclose(vector(one), vector(other), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(one.history["loss"], other.history["loss"], rtol=tolerance, atol=tolerance)


def assert_apart(one, other):
    assert np.abs(vector(one) - vector(other)).max() > 1e-3


def cross_entropy(net, X, y):
    """Of each row, from the weights, with ReLU."""
    A = X
    for W, b in net.params[:-1]:
        A = np.maximum(A @ W + b, 0)
    Z = A @ net.params[-1].W + net.params[-1].b
    return np.log(np.exp(Z).sum(axis=1)) - Z[np.arange(len(X)), y]


# -- batches --


def test_the_epochs_loss_is_the_mean_over_rows_with_a_ragged_last_batch():
    plain = {"optimizer": "sgd", "learning_rate": 1e-12}  # so small that the weights stay
    net = fit(batch_size=7, epochs=1, **plain)
    assert N % 7
    assert net.history["loss"] == pytest.approx([cross_entropy(net, X, Y).mean()], abs=1e-10)


def test_the_loss_is_that_before_each_update():
    net = fit(batch_size=None, epochs=3)
    before = [cross_entropy(fit(batch_size=None, epochs=t), X, Y).mean() for t in (1, 2)]
    assert net.history["loss"][1:] == pytest.approx(before, abs=1e-12)


def test_a_batch_larger_than_the_data_is_all_of_it():
    assert_close(fit(batch_size=None), fit(batch_size=N))
    assert_close(fit(batch_size=None), fit(batch_size=10 * N))
    assert_apart(fit(batch_size=None), fit(batch_size=N - 1))


def start(**settings):
    """The weights that `fit` starts from."""
    kept = []

    class Look:
        def on_start(self, net):
            kept.extend((np.array(W), np.array(b)) for W, b in net.params)

    fit(epochs=1, callbacks=Look(), **settings)
    return kept


def test_unshuffled_batches_are_successive_rows():
    """Three batches of 8 equal three fits of one full batch each, one starting where the other ended."""
    together = fit(batch_size=8, shuffle=False, epochs=1, optimizer="sgd")
    params = start()
    for first in (0, 8, 16):
        rows = slice(first, first + 8)
        params = fit(X=X[rows], y=Y[rows], init=params, epochs=1, optimizer="sgd", batch_size=None).params
    np.testing.assert_array_equal(vector(together), vector(dlx.Network(params)))
    assert_apart(fit(batch_size=8, shuffle=False), fit(batch_size=8))


def test_init_continues():
    """With plain descent, which remembers nothing, two fits are one; a list of pairs does as well as net.params."""
    plain = {"optimizer": "sgd", "batch_size": None}
    half = fit(epochs=2, **plain)
    for init in (half.params, [(W.tolist(), b[0].tolist()) for W, b in half.params]):
        again = fit(epochs=2, init=init, rng=99, **plain)
        np.testing.assert_array_equal(vector(again), vector(fit(epochs=4, **plain)))
    assert again.history["loss"][0] < half.history["loss"][-1]


@pytest.mark.parametrize(
    "init", ["zeros", "normal", dlx.initializers.constant(0.25), lambda rng, m, n: np.full((m, n), 0.25)]
)
def test_init_by_name_or_function(init):
    W = start(init=init)[0][0]
    expected = {"zeros": 0.0, "normal": 0.01 * np.random.default_rng(3).standard_normal((3, 5))}
    np.testing.assert_allclose(W, expected.get(init, 0.25) if isinstance(init, str) else 0.25, rtol=1e-15)


# -- weights --


def test_weights_of_one_change_no_bit():
    for ones in (np.ones(N), [1] * N, np.full(N, 7.5), np.ones(N, np.float32)):
        assert_close(fit(sample_weight=ones, batch_size=7), fit(batch_size=7))
        assert_close(fit(REAL, sample_weight=ones, batch_size=7), fit(REAL, batch_size=7))


@pytest.mark.parametrize("scale", [3.0, 1e-300, 8e307])
def test_only_proportions_of_weights_matter(scale, rng):
    w = rng.uniform(0.1, 2.0, N)
    assert_close(fit(sample_weight=w, batch_size=7), fit(sample_weight=scale * w, batch_size=7), 1e-12)
    assert_apart(fit(sample_weight=w), fit())


@pytest.mark.parametrize("y", [Y, REAL], ids=["labels", "real"])
@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_integer_weights_are_repeated_rows_and_zero_is_no_row(y, optimizer, rng):
    how = {"batch_size": None, "optimizer": optimizer, "l2": 0.1}
    counts = rng.integers(0, 4, N)
    assert {0, 1, 2} <= set(counts)
    rows = np.repeat(np.arange(N), counts)
    assert_close(fit(y, sample_weight=counts, **how), fit(y[rows], X[rows], **how), 1e-10)


def test_balanced_classes_are_as_in_scikit_learn():
    labels = np.array(["a", "b", "c"])[np.random.default_rng(0).choice(3, N, p=[0.6, 0.3, 0.1])]
    weights = sklearn.utils.class_weight.compute_class_weight("balanced", classes=np.unique(labels), y=labels)
    table = dict(zip(np.unique(labels).tolist(), weights, strict=True))
    how = {"y": labels, "dims": (3, 5, 3), "batch_size": 7}
    balanced = fit(class_weight="balanced", **how)
    assert_close(balanced, fit(sample_weight=[table[each] for each in labels], **how), 1e-12)
    assert_close(balanced, fit(class_weight=table, **how), 1e-12)
    assert_apart(balanced, fit(**how))


@pytest.mark.parametrize("labels", [Y, Y > 0, np.array(["no", "yes"])[Y]], ids=["int", "bool", "str"])
@pytest.mark.parametrize("outputs", [1, 2])
def test_a_class_weight_is_a_sample_weight(labels, outputs):
    how = {"y": labels, "dims": (3, 5, outputs)}
    by_class = fit(class_weight={np.unique(labels)[1]: 5.0}, **how)
    assert_close(by_class, fit(sample_weight=np.where(Y, 5.0, 1.0), **how), 1e-12)
    both = fit(class_weight={np.unique(labels)[1]: 5.0}, sample_weight=np.arange(N), **how)
    assert_close(both, fit(sample_weight=np.where(Y, 5.0, 1.0) * np.arange(N), **how), 1e-12)


# -- penalties, dropout, clipping --


@pytest.mark.parametrize("penalty", [{"l2": 0.5}, {"l1": 0.05}, {"l2": 0.5, "l1": 0.05}])
def test_a_penalty_does_not_depend_on_the_batch_size(penalty):
    """scikit-learn 6780 and 10477. All rows are alike, so that batches differ in nothing but their size."""
    alike, y = np.tile(X[:1], (32, 1)), np.tile(REAL[:1], (32, 1))
    how = {"X": alike, "y": y, "optimizer": "sgd", **penalty}
    steps = [fit(batch_size=32 // k, epochs=32 // k, **how) for k in (1, 2, 8)]
    for net in steps[1:]:
        np.testing.assert_allclose(vector(net), vector(steps[0]), atol=1e-12)
    free = fit(batch_size=32, epochs=32, **{**how, "l2": 0.0, "l1": 0.0})
    assert np.abs(free.params[0].W).sum() > np.abs(steps[0].params[0].W).sum() + 0.1


def test_the_penalty_is_part_of_the_loss_and_spares_biases():
    net = fit(optimizer="sgd", learning_rate=1e-12, epochs=1, l2=0.3, l1=0.2)
    W = np.concatenate([W.ravel() for W, _ in net.params])
    expected = cross_entropy(net, X, Y).mean() + 0.15 * np.sum(W**2) + 0.2 * np.sum(np.abs(W))
    assert net.history["loss"] == pytest.approx([expected], abs=1e-10)
    shrunk = fit(REAL + 5.0, dims=(3, 2), l2=1e6, optimizer="lbfgs", epochs=50)
    np.testing.assert_allclose(shrunk.params[0].W, 0, atol=1e-5)
    np.testing.assert_allclose(shrunk.params[0].b[0], (REAL + 5.0).mean(axis=0), rtol=1e-4)


def test_dropout_is_for_training_alone():
    net = fit(dropout=0.5, epochs=20)
    assert_apart(net, fit(epochs=20))
    A = np.maximum(X @ net.params[0].W + net.params[0].b, 0)
    np.testing.assert_allclose(
        net.predict_proba(X)[:, 1], 1 / (1 + np.exp(A @ net.params[1].W @ [1, -1] + net.params[1].b @ [1, -1]))
    )
    np.testing.assert_array_equal(net.predict_proba(X), net.predict_proba(X))


def test_dropout_rates_by_layer(monkeypatch):
    seen, mask = set(), dropout.mask
    monkeypatch.setattr(dropout, "mask", lambda *rest: (seen.add((rest[2].shape, rest[3])), mask(*rest))[1])
    deep = (3, 5, 4, 2)
    assert_close(fit(dims=deep, dropout=[0.0, 0.0]), fit(dims=deep))
    assert_close(fit(dims=deep, dropout=(0.3, 0.3)), fit(dims=deep, dropout=0.3))
    assert_apart(fit(dims=deep, dropout=[0.3, 0.0]), fit(dims=deep, dropout=[0.0, 0.3]))
    assert_close(fit(dims=(3, 2), dropout=[]), fit(dims=(3, 2)))
    assert seen == {((N, 5), 0.3), ((N, 4), 0.3)}
    seen.clear()
    fit(dims=deep, dropout=[0.3, 0.1])
    assert seen == {((N, 5), 0.3), ((N, 4), 0.1)}


@pytest.mark.parametrize(("how", "norm"), [({"clip_norm": 0.01}, 2), ({"clip_value": 0.001}, np.inf)])
def test_clipping_limits_the_step_of_plain_descent(how, norm):
    before = np.concatenate([each.ravel() for pair in start() for each in pair])
    moved = vector(fit(100.0 * REAL, optimizer="sgd", learning_rate=1.0, epochs=1, **how)) - before
    limit = next(iter(how.values()))
    assert np.linalg.norm(moved, norm) == pytest.approx(limit, rel=1e-9)
    wide = {name: 1e6 for name in how}
    assert_close(fit(**wide), fit())


# -- activations and losses of one's own --


def test_activations_by_layer():
    deep = (3, 5, 4, 2)
    assert_close(fit(dims=deep, activation=["tanh", "tanh"]), fit(dims=deep, activation="tanh"))
    mixed = fit(dims=deep, activation=("tanh", dlx.activations.leaky_relu(0.2)))
    assert [each.name for each in mixed.activation] == ["tanh", "leaky_relu"]
    (W1, b1), (W2, b2), (W3, b3) = mixed.params
    A2 = np.tanh(X @ W1 + b1) @ W2 + b2
    Z = np.where(A2 > 0, A2, 0.2 * A2) @ W3 + b3
    np.testing.assert_array_equal(mixed.predict(X), Z.argmax(axis=1))


def test_an_own_pair_and_an_own_triple_equal_the_built_in_ones():
    pair = (lambda z: np.maximum(z, 0.0), lambda z, a: (z > 0).astype(z.dtype))
    triple = (
        lambda Z, Y: np.sum((Z - Y) * (Z - Y), axis=-1, keepdims=True),
        lambda Z, Y: 2.0 * (Z - Y),
        lambda Z: Z,
    )
    for own in ({"activation": pair}, {"loss": triple}, {"activation": [pair], "loss": triple[:2]}):
        net = fit(REAL, batch_size=7, validation=0.25, patience=2, **own)
        built_in = fit(REAL, batch_size=7, validation=0.25, patience=2)
        assert_close(net, built_in)
        np.testing.assert_array_equal(net.predict(X), built_in.predict(X))
        assert net.history["validation_score"] == built_in.history["validation_score"]


# -- learning rates --


def test_schedules_act():
    rates = fit(batch_size=8, learning_rate=schedules.step_decay(0.1, factor=0.5, every=3)).history["learning_rate"]
    np.testing.assert_allclose(rates, [0.1, 0.05, 0.025, 0.0125])
    own = fit(batch_size=8, learning_rate=lambda step, steps, losses: np.float64(1e-3) * (step + len(losses)) / steps)
    np.testing.assert_allclose(own.history["learning_rate"], [1e-3 * (3 * e + 2 + e) / 12 for e in range(4)])
    assert all(type(rate) is float for rate in own.history["learning_rate"])
    assert_close(dlx.fit(X, Y, DIMS, epochs=4, optimizer=dlx.adam(0.1), rng=3), fit(learning_rate=0.1))


def test_reduce_on_plateau_watches_the_loss():
    schedule = schedules.reduce_on_plateau(5.0, factor=0.1, patience=1)
    net = fit(REAL, optimizer="gradient_descent", learning_rate=schedule, clip_norm=0.5, epochs=12)
    rates, losses = net.history["learning_rate"], net.history["loss"]
    assert rates[0] == 5.0
    assert rates[-1] < 1.0
    for epoch, rate in enumerate(rates):
        assert rate == schedule(0, 1, losses[:epoch])


# -- L-BFGS --


def test_lbfgs_finds_the_optimum_of_logistic_regression():
    net = fit(dims=(3, 2), optimizer="lbfgs", l2=1.0 / N, epochs=200)
    theirs = sklearn.linear_model.LogisticRegression(C=2.0, tol=1e-10, max_iter=1000).fit(X, Y)
    W, b = net.params[0]
    np.testing.assert_allclose(W[:, 1] - W[:, 0], theirs.coef_[0], rtol=1e-4)
    np.testing.assert_allclose(b[0, 1] - b[0, 0], theirs.intercept_[0], rtol=1e-4)


def test_lbfgs_finds_the_optimum_of_scikit_learns_mlp():
    alpha = 0.7
    theirs = sklearn.neural_network.MLPRegressor(
        hidden_layer_sizes=(), solver="lbfgs", alpha=alpha, tol=1e-12, max_iter=1000
    )
    theirs.fit(X, REAL[:, 0])
    ours = fit(REAL[:, 0], dims=(3, 1), optimizer=dlx.lbfgs(tolerance=1e-10), l2=2 * alpha / N, epochs=200)
    np.testing.assert_allclose(ours.params[0].W, theirs.coefs_[0], atol=1e-5)
    np.testing.assert_allclose(ours.params[0].b[0], theirs.intercepts_[0], atol=1e-5)
    assert len(ours.history["loss"]) < 50
    assert ours.history["loss"][-1] == pytest.approx(2 * theirs.loss_, rel=1e-6)


def test_the_history_is_lists_of_floats():
    net = fit(validation=0.25)
    assert sorted(net.history) == ["learning_rate", "loss", "seconds", "validation_loss", "validation_score"]
    assert {type(each) for figures in net.history.values() for each in figures} == {float}
    assert {len(figures) for figures in net.history.values()} == {4}
    assert sorted(fit().history) == ["learning_rate", "loss", "seconds"]
