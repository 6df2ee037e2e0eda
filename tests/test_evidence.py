"""What a report rests on, beside outsiders, and how it reads: dead units, derivatives, losses, on every library."""

import copy
import functools
import itertools
import math
import pickle
import re

import numpy as np
import pytest
import sklearn.metrics

import dlx
import oracles
from dlx.report import evidence, rules
from dlx.report.rules import Finding, Report

RNG = np.random.default_rng(6)
X = RNG.standard_normal((90, 4))
Y = RNG.integers(0, 3, 90)
DIMS = (4, 6, 5, 3)
PAIRS = [(RNG.standard_normal((a, b)), RNG.standard_normal(b)) for a, b in itertools.pairwise(DIMS)]
ACTIVATIONS = ["relu", "tanh"]


def network(be="numpy", **settings):
    settings = {"activation": ACTIVATIONS, "loss": "cross_entropy", "classes": np.arange(3), **settings}
    return dlx.Network(PAIRS, backend=be, **settings)


def by_hand(X=X):
    """Z and A of the hidden layers, and the scores, as NumPy expressions."""
    (W1, b1), (W2, b2), (W3, b3) = PAIRS
    Z1 = X @ W1 + b1
    Z2 = np.maximum(Z1, 0) @ W2 + b2
    return [Z1, Z2, np.tanh(Z2) @ W3 + b3], [np.maximum(Z1, 0), np.tanh(Z2)]


# -- activations --


def test_activations_are_what_each_layer_gives(be):
    (_, _, Z3), (A1, A2) = by_hand()
    found = network(be).activations(be.asarray(X))
    assert isinstance(found, tuple)
    for each, expected in zip(found, (A1, A2, Z3), strict=True):
        assert type(each) is type(be.asarray(X))
        np.testing.assert_allclose(be.to_host(each), expected, rtol=1e-12, atol=1e-12)


def test_activations_of_host_rows_are_numpy_arrays(be):
    found = network(be).activations(X[:2].tolist())
    assert [(type(each), each.shape) for each in found] == [(np.ndarray, (2, d)) for d in DIMS[1:]]


def test_activations_end_in_the_scores_and_without_dropout():
    net = dlx.fit(X, Y, (4, 8, 3), dropout=0.5, epochs=2, rng=0)
    scores = net.activations(X)[-1]
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    np.testing.assert_allclose(e / e.sum(axis=1, keepdims=True), net.predict_proba(X), rtol=1e-12)
    (only,) = dlx.fit(X, Y, (4, 3), epochs=1, rng=0).activations(X.astype(np.float32))
    assert (only.shape, only.dtype) == ((90, 3), np.float64)


def test_activations_reject_what_predict_rejects():
    with pytest.raises(ValueError, match=r"`X` must have shape \(n, 4\) to match the first layer"):
        network().activations(X[:, :3])


# -- evidence, beside outsiders --


def test_slopes_are_the_steepest_over_all_rows(be):
    (Z1, Z2, _), _ = by_hand()
    seen = evidence.collect(network(be), be.asarray(X), Y, None)
    np.testing.assert_array_equal(seen.slopes[0], (Z1 > 0).any(axis=0) * 1.0)
    np.testing.assert_allclose(seen.slopes[1], np.max(1 / np.cosh(Z2) ** 2, axis=0), rtol=1e-12)


@functools.cache  # no library plays a part in it, and it takes seconds
def signals_by_central_differences():
    """Of scikit-learn's log loss as a function of each layer's Z."""
    Zs, _ = by_hand()
    (_, _), (W2, b2), (W3, b3) = PAIRS
    rest = [
        lambda Z: np.tanh(np.maximum(Z, 0) @ W2 + b2) @ W3 + b3,
        lambda Z: np.tanh(Z) @ W3 + b3,
        lambda Z: Z,
    ]

    def loss(scores):
        e = np.exp(scores)
        return sklearn.metrics.log_loss(Y, e / e.sum(axis=1, keepdims=True))

    expected, h = [], 1e-5
    for Z, after in zip(Zs, rest, strict=True):
        moves = h * np.eye(Z.size).reshape(-1, *Z.shape)
        slopes = [(loss(after(Z + move)) - loss(after(Z - move))) / (2 * h) for move in moves]
        expected.append(np.linalg.norm(slopes))
    return expected


def test_signals_are_the_derivatives_of_the_loss(be):
    found = evidence.collect(network(be), be.asarray(X), Y, None).signals
    np.testing.assert_allclose(found, signals_by_central_differences(), rtol=1e-6)


def torch_signals():
    import torch

    A, Zs = torch.asarray(X), []
    for (W, b), f in zip(PAIRS, [torch.relu, torch.tanh, None], strict=True):
        Z = A @ torch.asarray(W) + torch.asarray(b)
        Z.requires_grad_()
        Z.retain_grad()
        Zs.append(Z)
        A = Z if f is None else f(Z)
    torch.nn.functional.cross_entropy(A, torch.asarray(Y)).backward()
    return [float(Z.grad.norm()) for Z in Zs]


@oracles.by_library(oracles.installed({"torch": torch_signals}))
def test_signals_are_those_of_autograd(library):
    found = evidence.collect(network(), X, Y, None).signals
    np.testing.assert_allclose(found, torch_signals(), rtol=1e-12)


def test_signals_too_small_to_be_squared_are_seen(be):
    pairs = [(np.zeros((1, 1)), [0.0]), ([[0.5]], [0.0])]
    net = dlx.Network(pairs, activation="identity", dtype="float32", backend=be)
    found = evidence.collect(net, np.ones((60, 1)), np.full(60, 1e-25), None).signals
    np.testing.assert_allclose(found, np.array([0.5, 1.0]) * 2e-25 / math.sqrt(60), rtol=1e-5)


@pytest.mark.parametrize("loss", ["squared_error", "poisson", "binary_cross_entropy", "cross_entropy"])
def test_guesses_are_scikit_learns_losses_of_constants(loss, be):
    real, two = RNG.gamma(2.0, size=90), Y > 0
    y, K, guesses = {
        "squared_error": (real, 1, [np.mean(real**2), np.var(real)]),
        "poisson": (real, 1, [1.0, np.mean(real) * (1 - np.log(np.mean(real)))]),
        "binary_cross_entropy": (two, 1, [np.log(2), sklearn.metrics.log_loss(two, np.full(90, np.mean(two)))]),
        "cross_entropy": (Y, 3, [np.log(3), sklearn.metrics.log_loss(Y, np.tile(np.bincount(Y) / 90, (90, 1)))]),
    }[loss]
    net = dlx.Network([(np.ones((4, K)), np.zeros(K))], loss=loss, backend=be)
    np.testing.assert_allclose(evidence.collect(net, X, y, None).guesses, guesses, rtol=1e-12)


def test_columns_are_numpys(be):
    seen = evidence.collect(network(be), be.asarray(X), Y, None)
    np.testing.assert_allclose(seen.columns, [X.min(0), X.max(0), np.sqrt(np.mean(X**2, axis=0))], rtol=1e-12)


def test_of_many_rows_some_are_drawn(be):
    many, y = np.tile(X, (100, 1)), np.tile(Y, 100)
    seen = evidence.collect(network(be), many, y, None)
    assert (seen.rows, seen.sampled) == ("4,096 of the 9,000 rows", 4096)
    np.testing.assert_allclose(seen.guesses[0], np.log(3), rtol=1e-12)


def test_losses_now_are_those_of_all_rows(be):
    many, y = np.tile(X, (100, 1)), np.tile(Y, 100)
    seen = evidence.collect(network(be), many[:50], y[:50], (many, y))
    expected = [
        sklearn.metrics.log_loss(y[:n], network().predict_proba(many[:n]), labels=[0, 1, 2]) for n in (50, 9000)
    ]
    np.testing.assert_allclose(seen.now, expected, rtol=1e-12)


# -- facts of the fit --


@pytest.mark.parametrize(
    ("y", "dims", "settings"),
    [
        (Y, (4, 5, 3), {}),
        (Y > 0, (4, 5, 1), {"l2": 0.1, "l1": 0.01}),
        (X @ [[1.0, 0.5], [0, 1], [0, 0], [2, 1]], (4, 5, 2), {"sample_weight": np.arange(90.0)}),
        (np.eye(3)[Y], (4, 5, 3), {"loss": "cross_entropy", "activation": "tanh"}),
        (Y, (4, 3), {"class_weight": "balanced", "dtype": "float32"}),
    ],
)
def test_the_loss_at_the_start_is_that_of_a_first_epoch_in_one_batch(y, dims, settings, be):
    net = dlx.fit(X, y, dims, epochs=1, batch_size=None, backend=be, rng=0, **settings)
    assert net.facts.start == pytest.approx(net.history["loss"][0], rel=1e-12 if net.dtype == "float64" else 1e-5)
    assert net.facts.weighted == any("weight" in name for name in settings)


def test_facts_of_a_fit(be):
    net = dlx.fit(be.asarray(X), Y, (4, 5, 3), epochs=1, dropout=0.3, validation=0.3, patience=3, backend=be, rng=0)
    assert 0.5 < net.facts.start < 5
    assert 0 < net.facts.error < 0.5
    assert net.facts.restored
    assert net.facts.unseen == ()
    assert not dlx.fit(X, Y, (4, 3), epochs=1, backend=be, rng=0).facts.restored


def test_the_loss_at_the_start_of_a_users_own_functions_is_not_known():
    square = (lambda z: z * z, lambda z, a: 2 * z)
    net = dlx.fit(X, Y, (4, 5, 3), activation=square, epochs=6, rng=0, learning_rate=1e-4)
    assert math.isnan(net.facts.start)
    assert isinstance(net.report(X, Y), Report)


def test_facts_of_weights_that_the_user_gave(be):
    pairs = [(be.asarray(W), be.asarray(b)) for W, b in PAIRS]
    how = {"activation": ACTIVATIONS, "init": pairs, "batch_size": None, "epochs": 1, "backend": be}
    net = dlx.fit(be.asarray(X), Y, DIMS, **how)
    assert net.facts.start == pytest.approx(net.history["loss"][0], rel=1e-12)


# -- the report --


def spoilt(be):
    """Inputs of 255, a layer whose units are off, and a loss that rose."""
    history = {"loss": [1.0, 0.5, 0.9, 1.1, 1.2, 1.2], "seconds": [0.0] * 6}
    (W1, b1), *rest = PAIRS
    pairs = [(W1 / 1e3, np.where(np.arange(6) < 4, -9.0, b1)), *rest]
    settings = {"activation": "relu", "loss": "cross_entropy", "classes": np.arange(3), "history": history}
    return dlx.Network(pairs, backend=be, **settings), np.arange(360.0).reshape(90, 4) / 360 * 255


def test_a_report_is_the_same_on_every_library(be):
    _, inputs = spoilt(be)
    here, there = (spoilt(each)[0].report(own(inputs), Y) for each, own in (("numpy", np.asarray), (be, be.asarray)))
    assert [finding.name for finding in there] == ["unscaled inputs", "learning rate too high", "dead ReLUs"]
    assert there == here


def test_a_report_of_integers_and_single_precision(be):
    net = network(be, dtype="float32")
    report = net.report(be.asarray(np.arange(360).reshape(90, 4) % 256, "uint8"), Y)
    assert report[0].evidence.startswith("column 3 lies in [3, 255]")


def test_a_report_reads_well():
    net, inputs = spoilt("numpy")
    report = net.report(inputs, Y)
    assert bool(report)
    assert str(report) == repr(report)
    assert str(report).splitlines() == [
        "unscaled inputs: column 3 lies in [2.125, 254.292], and its root mean square is 148, not",
        "    near 1 (all 90 rows).",
        "    -> Scale columns to mean 0 and variance 1 by the training data's figures, or divide",
        "       pixels by the largest.",
        "learning rate too high: the training loss rose from 0.5 in epoch 2 to 1.2.",
        "    -> Mend what stands above first, then see again. Lower learning_rate three- to",
        "       tenfold, or pass clip_norm=1.0 or schedules.warmup_cosine.",
        "dead ReLUs: 4 of 6 units of layer 1 are zero for all 90 rows (by layer: 4/6, 1/5).",
        "    -> Probably a consequence of what stands above: scale the inputs first.",
    ]
    assert pickle.loads(pickle.dumps(report)) == report


def test_nothing_found_is_false_and_says_so():
    report = network().report(X, Y)
    assert not report
    assert (len(report), str(report)) == (0, "nothing found")


def test_long_lists_are_cut():
    report = Report([Finding("a fault", "x " * 99, "do " * 99)])
    assert max(map(len, str(report).splitlines())) <= rules.REPORT_WIDTH
    assert rules._listed([str(k) for k in range(20)]) == "0, 1, 2, 3, 4, 5, ..., 19"
    assert rules._listed(["a"], " or ") == "a"


def test_facts_go_where_the_network_goes_but_into_no_file(tmp_path):
    labels = np.where(np.arange(90) == 7, 3, Y)
    net = dlx.fit(X, labels, (4, 5, 4), epochs=3, validation=0.2, rng=0)
    for other in (net.to("numpy", "float32"), copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert other.facts == net.facts
        assert [each.name for each in other.report(X, labels)] == ["classes missing from validation"]
    net.save(tmp_path / "net.safetensors")
    loaded = dlx.load(tmp_path / "net.safetensors")
    assert loaded.facts is None
    assert not loaded.report(X, labels)
    held = X[:9], Y[:9]
    assert "classes missing from validation" in [each.name for each in loaded.report(X, labels, held)]


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ([math.inf, math.inf, 1.0, 0.9, 0.8, 0.7], []),
        ([math.nan] * 6, []),
        ([-5.0, -5.1, -5.2, -5.3, -5.31, -5.31], []),
        ([], []),
        ([1.0], []),
    ],
)
def test_odd_histories_are_no_faults(curve, expected):
    net = network(history={"loss": curve, "validation_loss": curve})
    assert [each.name for each in net.report(X, Y)] == expected


@pytest.mark.parametrize(("last", "expected"), [(1.0, ["learning rate too low"]), (1.3, [])])
def test_a_slow_fall_is_no_fault_where_the_validation_loss_rises(last, expected):
    history = {"loss": np.linspace(9.0, 8.5, 12).tolist(), "validation_loss": np.linspace(1.2, last, 12).tolist()}
    assert [each.name for each in network(history=history).report(X, Y)] == expected


def test_of_weighted_rows_the_mean_is_not_known():
    rare = np.arange(90) < 5
    plain, weighted = (
        evidence.collect(dlx.fit(X, rare, (4, 1), epochs=1, rng=0, class_weight=weight), X, rare, None).guesses
        for weight in (None, "balanced")
    )
    np.testing.assert_allclose(plain, [np.log(2), sklearn.metrics.log_loss(rare, np.full(90, 5 / 90))], rtol=1e-12)
    np.testing.assert_allclose(weighted, [np.log(2), np.log(2)], rtol=1e-12)


def test_few_rows_do_not_prove_a_unit_dead():
    net, inputs = spoilt("numpy")
    assert "dead ReLUs" not in [each.name for each in net.report(inputs[:40], Y[:40])]


COLUMNS = {
    "ranges": (X * [1, 1e-3, 9, 1], "column 2 ranges over"),
    "tiny": (X * 1e-4, "and its root mean square is"),
    "far from 0": (X / 1000 + 5, "far from 0 for its range, as half of the columns do"),
    "pixels, some constant": (np.abs(X) / 4 * [0, 1, 1, 0], None),
    "a pixel that is hardly ever on": ((X > [9, 2, 0, 0]) * 1.0, None),
    "a constant beside them": (np.where(np.arange(4) == 1, 7.0, X), None),
    "nothing but zeros": (0 * X, None),
}


@pytest.mark.parametrize("case", COLUMNS)
def test_scales_of_columns(case):
    inputs, text = COLUMNS[case]
    report = dlx.Network([(np.ones((4, 3)), np.zeros(3))], loss="cross_entropy").report(inputs, Y)
    assert [each.name for each in report] == ([] if text is None else ["unscaled inputs"])
    assert text is None or text in report[0].evidence


def test_one_narrow_column_of_many_is_no_fault():
    inputs = np.hstack([X, X[::-1]]) * [1e-4, 1, 1, 1, 1, 1, 1, 1]
    assert not dlx.Network([(np.ones((8, 3)), np.zeros(3))], loss="cross_entropy").report(inputs, Y)


@pytest.mark.parametrize(
    ("validation", "kind", "text"),
    [
        (0.2, TypeError, "`validation` must be the pair (X_val, y_val); got 0.2. A share that `fit` drew is known"),
        ((X,), TypeError, "`validation` must be the pair (X_val, y_val); got tuple."),
        ((X[:, :2], Y), ValueError, "`X_val` must have shape (n, 4) to match the first layer; got (90, 2)."),
        ((X, Y[:5]), ValueError, "`y_val` must have 90 rows, one for each row of X; got shape (5,)."),
    ],
)
def test_a_report_rejects_what_it_cannot_use(validation, kind, text):
    with pytest.raises(kind, match=re.escape(text)):
        network().report(X, Y, validation)


def test_a_report_leaves_the_network_and_the_data_alone():
    net, inputs, labels = network(), X.copy(), Y.copy()
    before = [each.copy() for layer in net.params for each in layer]
    inputs.flags.writeable = labels.flags.writeable = False
    net.report(inputs, labels, (inputs, labels))
    net.activations(inputs)
    for each, was in zip((each for layer in net.params for each in layer), before, strict=True):
        np.testing.assert_array_equal(each, was)
