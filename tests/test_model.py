"""`Network`: predictions, probabilities and scores beside formulas written here; where the results lie."""

import cProfile
import importlib.util

import numpy as np
import pytest
import scipy.special

import dlx
import oracles
from conftest import SELECTORS
from dlx import activations, losses, model, scoring

RNG = np.random.default_rng(4)
X = RNG.standard_normal((11, 4))
W1, B1, W2, B2 = (RNG.standard_normal(shape) for shape in ((4, 6), (1, 6), (6, 3), (1, 3)))
B2 -= (np.tanh(X @ W1 + B1) @ W2 + B2).mean(axis=0)  # so that every class is predicted
NAMES = ["ann", "bob", "cid"]


def network(loss="cross_entropy", outputs=3, **settings):
    pairs = [(W1, B1), (W2[:, :outputs], B2[:, :outputs])]
    return dlx.Network(pairs, activation="tanh", loss=loss, **settings)


def scores(outputs=3, X=X):
    return np.tanh(X @ W1 + B1) @ W2[:, :outputs] + B2[:, :outputs]


# loss, outputs, classes; what predict, predict_proba give for scores Z
LINKS = {
    "labels": ("cross_entropy", 3, None, lambda Z: Z.argmax(1), lambda Z: scipy.special.softmax(Z, axis=1)),
    "strings": (
        "cross_entropy",
        3,
        NAMES,
        lambda Z: np.array(NAMES)[Z.argmax(1)],
        lambda Z: scipy.special.softmax(Z, axis=1),
    ),
    "integers": (
        "cross_entropy",
        3,
        [7, 9, 8],
        lambda Z: np.array([7, 9, 8])[Z.argmax(1)],
        lambda Z: scipy.special.softmax(Z, axis=1),
    ),
    "yes or no": (
        "binary_cross_entropy",
        1,
        None,
        lambda Z: (Z[:, 0] >= 0) * 1,
        lambda Z: scipy.special.expit(Z * [-1, 1]),
    ),
    "bool": (
        "binary_cross_entropy",
        1,
        [False, True],
        lambda Z: Z[:, 0] >= 0,
        lambda Z: scipy.special.expit(Z * [-1, 1]),
    ),
    "two strings": (
        "binary_cross_entropy",
        1,
        ["n", "y"],
        lambda Z: np.where(Z[:, 0] >= 0, "y", "n"),
        lambda Z: scipy.special.expit(Z * [-1, 1]),
    ),
    "several labels": ("binary_cross_entropy", 3, None, lambda Z: (Z >= 0) * 1, scipy.special.expit),
    "real": ("squared_error", 1, None, lambda Z: Z[:, 0], None),
    "several reals": ("huber", 3, None, lambda Z: Z, None),
    "a band": (losses.quantile([0.1, 0.5, 0.9]), 3, None, lambda Z: Z, None),
    "counts": ("poisson", 1, None, lambda Z: np.exp(Z[:, 0]), None),
}
every_link = pytest.mark.parametrize("link", LINKS)


@every_link
def test_predictions_are_the_formulas_and_lie_where_X_does(link, be):
    """Host arrays, lists and data frames give host arrays; the library's own stay there, but for strings."""
    loss, outputs, classes, predicted, probabilities = LINKS[link]
    net, Z = network(loss, outputs, classes=classes, backend=be), scores(outputs)
    asked = [(net.predict, predicted(Z))] + ([(net.predict_proba, probabilities(Z))] if probabilities else [])
    for ask, expected in asked:
        for given in (X, X.tolist()):
            found = ask(given)
            assert type(found) is np.ndarray
            assert found.dtype.kind == expected.dtype.kind
            np.testing.assert_allclose(found, expected, rtol=1e-12) if expected.dtype.kind == "f" else (
                np.testing.assert_array_equal(found, expected)
            )
        own = ask(be.asarray(X))
        stays = expected.dtype.kind != "U"
        assert type(own) is (type(be.asarray(X)) if stays else np.ndarray)
        np.testing.assert_array_equal(be.to_host(own) if stays else own, found)


@every_link
@pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
def test_scores_are_the_formulas(link, weighted, be):
    loss, outputs, classes, predicted, _ = LINKS[link]
    net, expected = network(loss, outputs, classes=classes, backend=be), predicted(scores(outputs))
    w = RNG.uniform(0, 3, 11) if weighted else None
    if expected.dtype.kind == "f":
        y = expected + RNG.standard_normal(expected.shape) ** 2
        if link == "a band":
            assert net.score(X, y[:, :1], w) == pytest.approx(oracles.d2(y[:, :1], expected, loss, w), rel=1e-12)
            return
        error, spread = (y - expected) ** 2, (y - np.average(y, axis=0, weights=w)) ** 2
        r2 = 1 - np.average(error, axis=0, weights=w) / np.average(spread, axis=0, weights=w)
        assert net.score(X, y, w) == pytest.approx(r2.mean(), rel=1e-12)
        return
    y = np.concatenate([expected[:4], np.roll(expected[4:], 1, axis=0)])
    right = (y == expected).reshape(11, -1).all(axis=1)
    assert 0 < right.sum() < 11
    expected_score = np.average(right, weights=w)
    assert net.score(X, y, w) == pytest.approx(expected_score, rel=1e-6)
    assert net.score(X.tolist(), y.tolist(), None if w is None else w.tolist()) == net.score(X, y, w)
    if y.dtype.kind != "U":
        assert net.score(be.asarray(X), be.asarray(y), None if w is None else be.asarray(w)) == net.score(X, y, w)


def test_a_score_of_probabilities_and_of_a_constant():
    net = network()
    P = np.eye(3)[RNG.integers(0, 3, 11)]
    assert net.score(X, P) == pytest.approx(np.mean(scores().argmax(1) == P.argmax(1)), rel=1e-6)
    flat = dlx.Network([(np.zeros((4, 2)), [1.0, 2.0])])
    assert flat.score(X, np.tile([1.0, 2.0], (11, 1))) == 1.0
    assert flat.score(X, np.tile([1.0, 3.0], (11, 1))) == 0.5


@pytest.mark.parametrize("elements", [1, 13, 30, 1 << 20])
def test_blocks_of_rows_give_what_one_gives(elements, be, monkeypatch):
    monkeypatch.setattr(type(be), "elements_at_once", elements)
    monkeypatch.setattr(type(be), "fewest_rows", 1)
    seen, inner = [], scoring.network.scores
    monkeypatch.setattr(
        scoring.network, "scores", lambda net, params, X: (seen.append(X.shape[0]), inner(net, params, X))[1]
    )
    net = network(backend=be)
    monkeypatch.setattr(dlx.model, "AT_A_STROKE", 0)
    np.testing.assert_allclose(net.predict_proba(X), scipy.special.softmax(scores(), axis=1), rtol=1e-12)
    rows = max(1, elements // 6)
    if be.padded(11) is None:  # otherwise blocks are extended, and seen when they are compiled
        assert seen == [min(rows, 11 - first) for first in range(0, 11, rows)]


@pytest.mark.parametrize("kind", ["uint8", "int64", "bool", "float32", ">f8"])
def test_features_of_other_dtypes(kind, be):
    whole = (np.abs(X) * 3).astype(kind)
    net = network(backend=be)
    expected = scipy.special.softmax(scores(X=whole.astype(float)), axis=1)
    np.testing.assert_allclose(net.predict_proba(whole), expected, rtol=1e-12)
    if kind != ">f8":
        np.testing.assert_allclose(be.to_host(net.predict_proba(be.asarray(whole))), expected, rtol=1e-12)


def test_one_row_and_views():
    net = network()
    np.testing.assert_allclose(net.predict_proba(X[:1]), net.predict_proba(X)[:1], rtol=1e-14)
    for view in (np.asfortranarray(X), np.repeat(X, 2, axis=1)[:, ::2], X[::-1][::-1]):
        np.testing.assert_allclose(net.predict_proba(view), net.predict_proba(X), rtol=1e-14)
    assert network("squared_error", 1).predict(X[0][None]).shape == (1,)


FRAMES = [name for name in ("pandas",) if importlib.util.find_spec(name)]


@pytest.mark.parametrize("library", FRAMES)
def test_data_frames(library):
    frames = importlib.import_module(library)
    frame = frames.DataFrame(X, columns=list("abcd"))
    label = frames.Series(np.array(NAMES)[scores().argmax(1)], dtype="category")
    net = dlx.fit(frame, label, (4, 3), epochs=2, rng=0)
    np.testing.assert_array_equal(net.params[0].W, dlx.fit(X, np.asarray(label), (4, 3), epochs=2, rng=0).params[0].W)
    assert type(net.predict(frame)) is np.ndarray
    assert net.score(frame, label) == net.score(X, np.asarray(label))


# -- errors --

OTHERS = [selector for selector in SELECTORS if selector != "numpy"]


@pytest.mark.parametrize("selector", OTHERS)
def test_an_array_of_another_library_is_a_TypeError(selector):
    be = dlx.get_backend(selector)
    with pytest.raises(TypeError, match=r"`X` must be of the same library as `backend`, numpy; got an array of"):
        network().predict(be.asarray(X))
    with pytest.raises(TypeError, match=rf"Pass NumPy arrays, or move the network: net\.to\('{selector}"):
        network().report(be.asarray(X), NAMES)
    with pytest.raises(TypeError, match=r"`y` must lie on the host; got an array of"):
        network("squared_error", 1).score(X, be.asarray(X[:, 0]))


CALLS = [
    (lambda net: net.predict(X[0]), ValueError, r"`X` must have shape \(n, 4\): rows are samples; got \(4,\)\. One"),
    (lambda net: net.predict(X[:, :3]), ValueError, r"`X` must have shape \(n, 4\) to match the first layer; got"),
    (lambda net: net.predict(X[:0]), ValueError, r"`X` must have at least one row"),
    (lambda net: net.predict(X * np.nan), ValueError, r"`X` must be finite in float64; got nan at row 0, column 0"),
    (lambda net: net.predict(X.astype(str)), TypeError, r"`X` must hold real numbers"),
    (lambda net: net.score(X, NAMES), ValueError, r"`y` must have 11 rows"),
    (lambda net: net.score(X, np.full(11, 3)), ValueError, r"`y` must hold labels of the training data; got 3"),
    (lambda net: net.score(X, scores() * 9), ValueError, r"`y` must hold rows of probabilities"),
    (lambda net: net.score(X, np.full(11, 0.5)), ValueError, r"`y` must hold integer or string labels"),
    (lambda net: net.score(X, [1] * 11, np.ones(4)), ValueError, r"`sample_weight` must be 11 numbers"),
    (lambda net: network("huber").predict_proba(X), TypeError, r"`predict_proba` must be asked of a classifier; got"),
    (
        lambda net: network(classes=NAMES).score(X, ["eve"] * 11),
        ValueError,
        r"`y` must hold labels of the training data; got 'eve'",
    ),
    (
        lambda net: network(classes=NAMES).score(X, [0] * 11),
        TypeError,
        r"`y` must hold strings, as the training data do",
    ),
    (
        lambda net: network(classes=NAMES[:2]),
        ValueError,
        r"`classes` must be 3 distinct labels: integers, booleans or st",
    ),
    (lambda net: network(classes=["a", "b", "a"]), ValueError, r"`classes` must be 3 distinct labels"),
    (lambda net: network(classes=[0.0, 1.0, 2.0]), ValueError, r"`classes` must be 3 distinct labels"),
    (lambda net: network("binary_cross_entropy", 1, classes=[1]), ValueError, r"`classes` must be 2 distinct labels"),
    (
        lambda net: network("squared_error", classes=[1, 2, 3]),
        ValueError,
        r"`classes` must be None for loss squared_error; got \[1, 2, 3\]\. It has no labels\.",
    ),
    (lambda net: dlx.Network([]), TypeError, r"`params` must be a sequence of pairs"),
    (lambda net: dlx.Network([(W1, B1), (W1, B1)]), ValueError, r"`params\[1\]` must have W of shape \(6, d_out\)"),
    (
        lambda net: dlx.Network([(W1 * np.inf, B1)]),
        ValueError,
        r"`params\[0\]\.W` must be finite in float64; got -?inf",
    ),
    (lambda net: dlx.Network([(W1, B1)], dtype="float16"), ValueError, r"`dtype` must be one of"),
    (lambda net: network().to("nump"), ValueError, r"`backend` must be"),
    (lambda net: model.load("/nowhere", backend="nump"), ValueError, r"`backend` must be"),
]


@pytest.mark.parametrize(("call", "kind", "text"), CALLS)
def test_errors(call, kind, text):
    with pytest.raises((TypeError, ValueError), match=text) as caught:
        call(network())
    assert type(caught.value) is kind


def test_every_activation_in_every_layer(be):
    """The whole chain beside the formulas themselves."""
    for name, make in activations.ACTIVATIONS.items():
        net = dlx.Network([(W1, B1), (W2, B2)], activation=name, backend=be)
        expected = make().bind(np).f(X @ W1 + B1) @ W2 + B2
        np.testing.assert_allclose(net.predict(X), expected, rtol=1e-9, atol=1e-12)


def test_the_smallest_probability_of_no_is_not_rounded_to_0():
    net = dlx.Network([(np.eye(1), np.zeros(1))], loss="binary_cross_entropy")
    z = np.array([[-700.0], [-40.0], [0.0], [40.0], [700.0]])
    expected = np.hstack([scipy.special.expit(-z), scipy.special.expit(z)])
    np.testing.assert_allclose(net.predict_proba(z), expected, rtol=1e-15)


@pytest.mark.parametrize("labels", [[1, -5, 2**40], np.array([1, 5, 2**63 + 3], np.uint64), np.array([9, 8, 7], "u2")])
def test_labels_are_the_same_on_every_library(labels, be):
    net = dlx.Network([(np.eye(3), np.zeros(3))], loss="cross_entropy", classes=labels, dtype="float32").to(be)
    found = net.predict(be.asarray(np.eye(3), "float32"))
    found = found if isinstance(found, np.ndarray) else be.to_host(found)
    assert found.tolist() == np.asarray(labels).tolist()


def test_a_copy_has_names_of_its_own():
    net = dlx.Network([(np.eye(2), np.zeros(2))], feature_names=["a", "b"])
    other = net.to("numpy")
    other.feature_names[0] = "c"
    assert net.feature_names == ["a", "b"]


def test_plain_pairs_and_a_list_of_labels_may_be_set():
    """`save` took them, and `predict` said that a tuple has no attribute W."""
    net = dlx.Network([(np.eye(3), np.zeros(3))], loss="cross_entropy", classes=["a", "b", "c"])
    net.params = [(2 * W, b) for W, b in net.params]
    net.classes = ["x", "y", "z"]
    assert net.predict(np.eye(3)).tolist() == ["x", "y", "z"]


def test_names_that_are_set_later_are_what_they_name():
    """As if the network had been made with them: `net.activation = "tanh"` was no activation, and predict failed."""
    pairs = [(np.eye(2), np.zeros(2)), (np.eye(2), np.ones(2)), (np.ones((2, 1)), [0.5])]
    net = dlx.Network(pairs, activation="relu", loss="squared_error")
    X = np.array([[0.5, -1.0], [2.0, 0.1]])
    net.predict(X)
    net.activation, net.loss = "tanh", "poisson"
    made = dlx.Network(pairs, activation="tanh", loss="poisson")
    np.testing.assert_array_equal(net.predict(X), made.predict(X))


def test_one_row_takes_few_calls():
    """The prediction of a row on NumPy is arithmetic: 39 calls for three layers, where it took 64."""
    pairs = [(RNG.standard_normal((a, b)), RNG.standard_normal((1, b))) for a, b in ((4, 6), (6, 6), (6, 3))]
    net = dlx.Network(pairs, loss="cross_entropy", classes=[0, 1, 2])
    net.predict(X[:1])
    counter = cProfile.Profile()
    counter.runcall(net.predict, X[:1])
    assert sum(entry.callcount for entry in counter.getstats()) <= 45
