"""What `fit` learns from every kind of target, the loss that goes with it, and the dtype it computes in."""

import numpy as np
import pytest
import sklearn.datasets
import sklearn.linear_model

import dlx
from allocation import peak
from dlx import losses
from dlx.training import loop

XOR = np.tile([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], (8, 1))
EITHER = np.tile([0, 1, 1, 0], 8)
LINE = np.linspace(-1.0, 1.0, 400)[:, None]
NAMES = np.array([f"digit {k}" for k in range(10)])


def halves(X, y, n, seed=0):
    """Shuffled: n rows for training, and the others."""
    order = np.random.default_rng(seed).permutation(len(X))
    X, y = X[order], y[order]
    return X[:n], y[:n], X[n:], y[n:]


@pytest.fixture(scope="module")
def digits():
    X, y = sklearn.datasets.load_digits(return_X_y=True)
    return halves((X / 16.0).astype("f4"), y, 1400)


def parameters(net):
    return [net.backend.to_host(each) for layer in net.params for each in layer]


def assert_same(one, other):
    """Two networks of the same numbers, bit by bit."""
    assert one.history["loss"] == other.history["loss"]
    for a, b in zip(parameters(one), parameters(other), strict=True):
        np.testing.assert_array_equal(a, b, strict=True)


# -- what is learnt --


@pytest.mark.parametrize(
    ("labelled", "settings"),
    [
        (np.asarray, {}),
        (np.asarray, {"dropout": 0.2}),
        (
            np.asarray,
            {"loss": losses.cross_entropy(label_smoothing=0.1), "optimizer": "momentum", "learning_rate": 0.1},
        ),
        (lambda y: NAMES[y], {"activation": "gelu"}),
        (lambda y: np.eye(10)[y], {"loss": "cross_entropy"}),
    ],
    ids=["labels", "dropout", "smoothed", "strings", "probabilities"],
)
def test_digits(digits, labelled, settings):
    X, y, X_test, y_test = digits
    recipe = {"learning_rate": 3e-3, "batch_size": 64, "epochs": 30, "rng": 0}
    net = dlx.fit(X, labelled(y), (64, 128, 10), **recipe | settings)
    right = net.predict(X_test) == (NAMES[y_test] if net.classes.dtype.kind == "U" else y_test)
    assert np.mean(right) >= 0.97
    assert net.score(X_test, labelled(y_test)) == pytest.approx(np.mean(right), abs=1e-6)


def test_diabetes_as_well_as_a_linear_model():
    X, y, X_test, y_test = halves(*sklearn.datasets.load_diabetes(return_X_y=True, scaled=True), 300)
    X, X_test, middle, spread = X * 20, X_test * 20, y.mean(), y.std()
    net = dlx.fit(X, (y - middle) / spread, (10, 32, 1), batch_size=32, l2=0.1, learning_rate=3e-3, rng=0)
    linear = sklearn.linear_model.LinearRegression().fit(X, y).score(X_test, y_test)
    predicted = middle + spread * net.predict(X_test)
    r2 = 1 - np.sum((y_test - predicted) ** 2) / np.sum((y_test - y_test.mean()) ** 2)
    assert r2 > linear > 0.35
    assert net.score(X_test, (y_test - middle) / spread) == pytest.approx(r2, abs=1e-12)


@pytest.mark.parametrize("optimizer", ["adam", "momentum", "lbfgs"])
def test_xor(optimizer):
    rate = {"learning_rate": 0.05, "optimizer": optimizer}
    net = dlx.fit(XOR, EITHER, (2, 8, 1), activation="tanh", epochs=200, rng=0, **rate)
    np.testing.assert_array_equal(net.predict(XOR[:4]), [0, 1, 1, 0])
    assert net.history["loss"][-1] < 0.1


def test_rates_of_counts(rng):
    rates = np.exp(1.0 + np.sin(2.0 * LINE[:, 0]))
    y = rng.poisson(rates, (50, 400)).ravel()
    how = {"loss": "poisson", "activation": "tanh", "optimizer": dlx.adam(dlx.schedules.cosine(0.02))}
    net = dlx.fit(np.tile(LINE, (50, 1)), y, (1, 16, 1), **how, batch_size=500, epochs=40, rng=0)
    np.testing.assert_allclose(net.predict(LINE), rates, rtol=0.15)


def test_large_counts(rng):
    """Poisson's loss is far below 0 there, which is not an explosion."""
    y = rng.poisson(20_000, 200)
    net = dlx.fit(rng.random((200, 2)), y, (2, 1), loss="poisson", optimizer=dlx.adam(0.05), epochs=1000, rng=0)
    assert net.history["loss"][-1] < -170_000.0
    np.testing.assert_allclose(net.predict(np.full((1, 2), 0.5)), y.mean(), rtol=0.01)


def test_a_band_of_quantiles_from_one_target(rng):
    X = rng.uniform(-1.0, 1.0, (4000, 1))
    y = 2.0 * X[:, 0] + (1.0 + 0.5 * X[:, 0]) * rng.standard_normal(4000)
    band = losses.quantile([0.1, 0.5, 0.9])
    net = dlx.fit(X, y, (1, 16, 3), loss=band, epochs=40, learning_rate=5e-3, rng=0)
    low, middle, high = net.predict(X).T
    assert np.all((low < middle) & (middle < high))
    np.testing.assert_allclose([np.mean(y < each) for each in (low, middle, high)], [0.1, 0.5, 0.9], atol=0.02)
    assert np.isfinite(net.score(X, y))


def test_several_labels_a_row(rng):
    X = rng.standard_normal((600, 3))
    Y = np.stack([X[:, 0] > 0, X[:, 1] + X[:, 2] > 0], axis=1)
    net = dlx.fit(X, Y, (3, 2), loss="binary_cross_entropy", optimizer="lbfgs", epochs=100, rng=0)
    np.testing.assert_array_equal(net.predict(X), Y.astype(int))
    assert net.classes is None
    assert net.score(X, Y) == 1.0


def test_soft_probabilities_are_learnt_as_they_are(rng):
    X = rng.standard_normal((50, 2))
    Z = X @ [[1.0, -1.0, 0.5], [0.0, 2.0, -1.0]]
    P = np.exp(Z) / np.exp(Z).sum(axis=1, keepdims=True)
    net = dlx.fit(X, P, (2, 3), optimizer="lbfgs", loss="cross_entropy", rng=0)
    np.testing.assert_allclose(net.predict_proba(X), P, atol=1e-5)


def test_label_smoothing_is_what_a_perfect_fit_predicts():
    X, y = np.repeat(np.eye(3), 5, axis=0), np.repeat([0, 1, 2], 5)
    net = dlx.fit(X, y, (3, 3), loss=losses.cross_entropy(label_smoothing=0.3), optimizer="lbfgs", rng=0)
    np.testing.assert_allclose(net.predict_proba(np.eye(3)), np.full((3, 3), 0.1) + 0.7 * np.eye(3), atol=1e-5)


# -- kinds of targets --

TWICE = {  # the same targets, written in two ways: loss, outputs, one, the other
    "bool for int": ("auto", 1, EITHER > 0, EITHER),
    "str for int": ("auto", 1, np.array(["no", "yes"])[EITHER], EITHER),
    "object str for str": ("auto", 1, np.array(["no", "yes"], dtype=object)[EITHER], np.array(["no", "yes"])[EITHER]),
    "StringDType for str": (
        "auto",
        1,
        np.array(["a", "b"], np.dtypes.StringDType())[EITHER],
        np.array(["a", "b"])[EITHER],
    ),
    "a column for int": ("binary_cross_entropy", 1, EITHER[:, None], EITHER),
    "float for int": ("binary_cross_entropy", 1, EITHER.astype(float), EITHER),
    "a list for int": ("auto", 2, EITHER.tolist(), EITHER),
    "uint8 for int": ("auto", 2, EITHER.astype(np.uint8), EITHER),
    "bool for int, two outputs": ("auto", 2, EITHER > 0, EITHER),
    "str for int, two outputs": ("auto", 2, np.array(["no", "yes"])[EITHER], EITHER),
    "one-hot for int": ("cross_entropy", 2, np.eye(2)[EITHER], EITHER),
    "one-hot int for int": ("cross_entropy", 2, np.eye(2, dtype=int)[EITHER], EITHER),
    "a column for real": ("auto", 1, XOR[:, :1] * 0.5, XOR[:, 0] * 0.5),
    "int for real": ("squared_error", 1, EITHER, EITHER.astype(float)),
    "bool for real": ("absolute_error", 1, EITHER > 0, EITHER.astype(float)),
    "float32 for real": ("auto", 2, XOR.astype("f4"), XOR),
    "Fortran for C": ("auto", 2, np.asfortranarray(XOR), XOR),
    "big-endian for native": ("auto", 2, XOR.astype(">f8"), XOR),
}


@pytest.mark.parametrize(("loss", "outputs", "one", "other"), TWICE.values(), ids=TWICE)
def test_the_same_targets_written_otherwise_give_the_same_network(loss, outputs, one, other):
    nets = [dlx.fit(XOR, y, (2, 3, outputs), loss=loss, epochs=3, batch_size=8, rng=0) for y in (one, other)]
    assert_same(*nets)


@pytest.mark.parametrize(
    ("y", "outputs", "loss", "classes"),
    [
        (EITHER, 2, "cross_entropy", [0, 1]),
        (EITHER, 3, "cross_entropy", [0, 1, 2]),
        (EITHER, 1, "binary_cross_entropy", [0, 1]),
        (EITHER > 0, 1, "binary_cross_entropy", [False, True]),
        (EITHER > 0, 2, "cross_entropy", [False, True]),
        (np.array(["b", "a"])[EITHER], 2, "cross_entropy", ["a", "b"]),
        (np.array(["b", "a"])[EITHER], 1, "binary_cross_entropy", ["a", "b"]),
        (EITHER - 0.5, 1, "squared_error", None),
        ((EITHER - 0.5).astype("f4"), 1, "squared_error", None),
        (XOR, 2, "squared_error", None),
    ],
)
def test_auto_is_a_loss_for_the_targets(y, outputs, loss, classes):
    net = dlx.fit(XOR, y, (2, outputs), epochs=1, rng=0)
    assert net.loss.name == loss
    assert (None if net.classes is None else net.classes.tolist()) == classes
    predicted = net.predict(XOR)
    assert predicted.shape == y.shape
    assert predicted.dtype.kind == (y.dtype.kind if classes is None else np.asarray(classes).dtype.kind)


# -- dtype --


@pytest.mark.parametrize(
    ("given", "asked", "computes", "kept"),
    [
        ("float64", None, "float64", "float64"),
        ("float32", None, "float32", "float32"),
        ("float16", None, "float32", "float32"),
        (">f8", None, "float64", "float64"),
        ("float64", "float32", "float32", "float32"),
        ("float32", "float64", "float64", "float64"),
        ("float64", np.float32, "float32", "float32"),
        ("float32", np.dtype("float64"), "float64", "float64"),
        ("uint8", None, "float32", "uint8"),
        ("int64", None, "float32", "int64"),
        ("bool", None, "float32", "bool"),
        ("uint16", None, "float32", "float32"),
        ("uint8", "float64", "float64", "uint8"),
    ],
)
def test_dtype_follows_floating_X_and_integers_stay(given, asked, computes, kept, monkeypatch):
    seen, train = [], loop.train
    monkeypatch.setattr(
        loop, "train", lambda task, *rest, **more: (seen.append(task.rows.X), train(task, *rest, **more))[1]
    )
    net = dlx.fit(XOR.astype(given), EITHER, (2, 3, 2), epochs=1, dtype=asked, rng=0)
    assert net.dtype == computes
    assert [each.dtype for each in seen] == [kept]
    assert {each.dtype.name for each in parameters(net)} == {computes}
    assert net.predict_proba(XOR).dtype == computes


def test_own_dtypes_and_lists_on_every_library(be):
    X = be.asarray(XOR, "float64")
    own = dlx.fit(X, EITHER.tolist(), (2, 2), epochs=1, dtype=be.dtype("float32"), rng=0)
    assert own.dtype == "float32"
    assert own.params[0].W.dtype == be.dtype("float32")
    assert own.backend == be
    listed = dlx.fit(XOR.tolist(), EITHER.tolist(), (2, 2), epochs=1, backend=be, rng=0)
    assert listed.dtype == "float64"
    assert listed.backend == be


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_no_full_copy_of_the_features(dtype):
    """Nor of float32 ones, nor while it validates and predicts; a float copy of all rows would be 52 MB."""
    X = np.ones((200_000, 64), dtype)
    y = np.arange(200_000) % 2
    dlx.fit(X[:100], y[:100], (64, 2), epochs=1, rng=0)  # what is loaded once
    how = {"batch_size": 1000, "epochs": 1, "validation": (X, y), "rng": 0}
    assert peak(lambda: dlx.fit(X, y, (64, 2), **how).predict(X)) < 25e6


def test_the_same_seed_gives_the_same_numbers_and_another_others():
    def fitted(rng):
        return dlx.fit(XOR, EITHER, (2, 8, 2), dropout=0.3, validation=0.25, epochs=3, batch_size=5, rng=rng)

    first = fitted(7)
    for rng in (7, np.int64(7), np.random.default_rng(7), np.random.SeedSequence(7), np.random.PCG64(7)):
        again = fitted(rng)
        assert_same(again, first)
        assert again.history["validation_loss"] == first.history["validation_loss"]
    for other in (8, None, [7, 1]):
        assert not np.array_equal(fitted(other).params[0].W, first.params[0].W)


def test_a_generator_is_advanced():
    rng = np.random.default_rng(7)
    one, two = (dlx.fit(XOR, EITHER, (2, 8, 2), epochs=1, rng=rng) for _ in range(2))
    assert not np.array_equal(one.params[0].W, two.params[0].W)
    assert rng.bit_generator.state != np.random.default_rng(7).bit_generator.state
