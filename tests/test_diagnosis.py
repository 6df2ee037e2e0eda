"""`Network.report`: it is silent on healthy trainings, and finds each fault that is planted, and only that."""

import functools
import importlib.util
import itertools
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn import datasets

import dlx
from dlx.initializers import normal
from dlx.schedules import cosine, one_cycle

RATE_HIGH, RATE_LOW, MISSING = "learning rate too high", "learning rate too low", "classes missing from validation"
VANISHING, EXPLODING, SATURATED = "vanishing gradients", "exploding gradients", "saturated units"
UNSCALED, DEAD, OVERFITTING, FEW = "unscaled inputs", "dead ReLUs", "overfitting", "too few epochs"
SEEDS = [0, 1, 2]
EXAMPLE = Path(__file__).parents[1] / "examples" / "digits.py"
HAS_MATPLOTLIB = importlib.util.find_spec("matplotlib") is not None


def standardised(x):
    return (x - x.mean(axis=0)) / x.std(axis=0)


@functools.cache
def data(name):
    rng = np.random.default_rng(0)
    x = np.linspace(-3, 3, 400)[:, None]
    match name:
        case "digits":
            X, y = datasets.load_digits(return_X_y=True)
            return (X / 16).astype(np.float32), y
        case "uint8 digits":
            X, y = datasets.load_digits(return_X_y=True)
            return (X * (255 / 16)).astype(np.uint8), y
        case "cancer, raw":
            return datasets.load_breast_cancer(return_X_y=True)
        case "sine":
            return x, np.sin(2 * x[:, 0]) + rng.normal(0, 0.1, 400)
        case "moons":
            return datasets.make_moons(600, noise=0.15, random_state=0)
        case "overlapping moons":
            return datasets.make_moons(150, noise=0.5, random_state=0)
        case "circles":
            return datasets.make_circles(600, noise=0.08, factor=0.5, random_state=0)
        case "friedman":
            X, y = datasets.make_friedman1(2000, noise=1.0, random_state=0)
            return standardised(X), standardised(y)
        case "far from 0":
            X, y = data("friedman")
            return X + 2000, y
        case "many rows":
            X, y = datasets.make_classification(20_000, 20, n_informative=12, n_classes=4, random_state=0)
            return standardised(X), y
        case "rare":
            X, y = data("many rows")
            return X, ((y == 3) & (rng.random(len(y)) < 0.1)).astype(int)
        case "counts":
            X = rng.normal(size=(1500, 5))
            return X, rng.poisson(np.exp(0.5 * X[:, 0] - 0.3 * X[:, 1] + 0.5)).astype(float)
        case "labels at random":
            return rng.normal(size=(300, 20)), rng.integers(0, 2, 300)
        case "long tails":
            return standardised(rng.lognormal(0, 1.5, (2000, 6))), rng.normal(size=2000)
    X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    return standardised(X), standardised(y) if name == "diabetes" else y


def held_out(name, every=4):
    """(X, y, (X_val, y_val)): every fourth row is held out, in random order."""
    X, y = data(name)
    order = np.random.default_rng(5).permutation(len(y))
    held, rest = order[::every], np.delete(order, np.s_[::every])
    return X[rest], y[rest], (X[held], y[held])


def names(net, X, y, validation=None):
    return [finding.name for finding in net.report(X, y, validation)]


# -- healthy trainings --

SMOOTHED = dlx.losses.cross_entropy(label_smoothing=0.1)
DIGITS_PY = {"loss": SMOOTHED, "dropout": 0.3, "learning_rate": cosine(3e-3), "batch_size": 64, "epochs": 60}
HEALTHY = {
    "digits.py": ("digits", (64, 256, 10), DIGITS_PY),
    "defaults": ("digits", (64, 128, 10), {}),
    "ten epochs": ("digits", (64, 256, 10), {"epochs": 10, "batch_size": 32}),
    "gradient descent": (
        "digits",
        (64, 64, 10),
        {"optimizer": "gradient_descent", "learning_rate": 0.1, "batch_size": 32, "epochs": 60},
    ),
    "deep relu": ("digits", (64, 64, 64, 64, 64, 64, 10), {"epochs": 60}),
    "deep tanh": ("digits", (64, 48, 48, 48, 48, 10), {"activation": "tanh", "epochs": 40}),
    "sigmoid": ("digits", (64, 64, 64, 10), {"activation": "sigmoid", "learning_rate": 5e-3, "epochs": 60}),
    "one cycle": (
        "digits",
        (64, 128, 64, 10),
        {"activation": "gelu", "learning_rate": one_cycle(3e-3), "epochs": 40, "validation": 0.2},
    ),
    "half dropped": ("digits", (64, 256, 256, 256, 10), {"dropout": 0.5, "epochs": 40}),
    "penalties": ("digits", (64, 128, 10), {"l2": 1e-2, "epochs": 60}),
    "L-BFGS": ("digits", (64, 64, 10), {"optimizer": "lbfgs", "l2": 1e-4, "epochs": 60}),
    "linear": ("digits", (64, 10), {"learning_rate": 1e-2, "epochs": 60}),
    "many rows, five epochs": ("many rows", (20, 64, 4), {"epochs": 5}),
    "rare class, weighted": ("rare", (20, 32, 1), {"epochs": 20, "class_weight": "balanced", "validation": 0.2}),
    "rare class": ("rare", (20, 32, 1), {"epochs": 20, "validation": 0.2}),
    "cancer, early stopping": (
        "breast_cancer",
        (30, 32, 1),
        {"validation": 0.2, "patience": 10, "batch_size": 32},
    ),
    "wine": ("wine", (13, 32, 3), {"epochs": 60, "batch_size": 16}),
    "iris": ("iris", (4, 16, 3), {"epochs": 100, "learning_rate": 5e-3, "batch_size": 16}),
    "diabetes": ("diabetes", (10, 100, 1), {"dropout": 0.5}),
    "sine": ("sine", (1, 64, 64, 1), {"learning_rate": 3e-3, "batch_size": 32, "epochs": 200}),
    "sine, README": (
        "sine",
        (1, 64, 64, 1),
        {
            "activation": "silu",
            "optimizer": dlx.adam(b2=0.99),
            "learning_rate": cosine(1e-2),
            "validation": 0.2,
            "patience": 50,
            "batch_size": 32,
            "epochs": 200,
        },
    ),
    "moons": ("moons", (2, 32, 32, 1), {"learning_rate": 5e-3, "batch_size": 32, "validation": 0.25}),
    "circles": ("circles", (2, 16, 2), {"activation": "tanh", "learning_rate": 1e-2, "batch_size": 32}),
    "friedman": ("friedman", (10, 64, 64, 1), {"l2": 1e-3, "epochs": 60, "validation": 0.2}),
    "quantile": ("friedman", (10, 64, 1), {"loss": dlx.losses.quantile(0.9)}),
    "poisson": ("counts", (5, 32, 1), {"loss": "poisson", "learning_rate": 3e-3, "epochs": 60}),
    "nothing to learn": ("long tails", (6, 16, 1), {"epochs": 30}),
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", HEALTHY)
def test_nothing_is_found_in_a_healthy_training(kind, seed):
    name, dims, settings = HEALTHY[kind]
    X, y = data(name)
    report = dlx.fit(X, y, dims, backend="numpy", rng=seed, **settings).report(X, y)
    assert not report, report


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", ["digits.py", "many rows, five epochs", "friedman", "wine"])
def test_nothing_is_found_in_a_healthy_training_with_rows_held_out(kind, seed):
    name, dims, settings = HEALTHY[kind]
    X, y, validation = held_out(name)
    net = dlx.fit(X, y, dims, backend="numpy", rng=seed, **{**settings, "validation": validation})
    assert not net.report(X, y, validation), net.report(X, y, validation)


@pytest.mark.parametrize("rate", [1e-5, 1e-4, 1e-3])
@pytest.mark.parametrize(("epochs", "dropout"), [(5, 0.2), (5, 0.5), (15, 0.5)])
def test_a_slow_or_short_training_with_dropout_is_not_called_too_fast(dropout, epochs, rate):
    for name, dims in (("digits", (64, 64, 64, 10)), ("wine", (13, 64, 3)), ("diabetes", (10, 64, 64, 1))):
        X, y = data(name)
        net = dlx.fit(X, y, dims, dropout=dropout, epochs=epochs, learning_rate=rate, backend="numpy", rng=0)
        assert RATE_HIGH not in names(net, X, y), (name, net.report(X, y))


def test_dropout_is_known_beside_an_activation_of_ones_own():
    X, y = data("wine")
    own = (lambda z: z * (z > 0), lambda z, a: (z > 0) * 1.0)
    net = dlx.fit(X, y, (13, 64, 3), activation=own, dropout=0.5, epochs=15, learning_rate=1e-5, rng=0)
    assert net.facts.dropout
    assert RATE_HIGH not in names(net, X, y)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("dropout", [0.2, 0.5])
def test_too_fast_a_training_with_dropout_is_found(dropout, seed):
    for name, dims in (("digits", (64, 64, 64, 10)), ("diabetes", (10, 64, 64, 1))):
        X, y = data(name)
        net = dlx.fit(X, y, dims, dropout=dropout, epochs=15, learning_rate=0.3, backend="numpy", rng=seed)
        assert RATE_HIGH in names(net, X, y), name


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_found_in_a_training_that_goes_on(seed):
    X, y = data("digits")
    first = dlx.fit(X, y, (64, 64, 10), epochs=60, backend="numpy", rng=seed)
    assert names(dlx.fit(X, y, (64, 64, 10), init=first.params, epochs=20, backend="numpy", rng=seed), X, y) == []


def in_the_example(monkeypatch, tmp_path):
    """For each seed, examples/digits.py run as it stands, but for its seed: what it found in what it trained."""
    monkeypatch.setenv("MPLBACKEND", "Agg")
    fit, reports = dlx.fit, []

    def watched(X, y, **settings):
        reports.extend(fit(X, y, **{**settings, "rng": seed}).report(X, y) for seed in SEEDS)
        return fit(X, y, **settings)

    monkeypatch.setattr(dlx, "fit", watched)
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), "--picture", str(tmp_path / "digits.png")])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert len(reports) == len(SEEDS)
    assert not any(reports), reports


test_nothing_is_found_in_the_example = in_the_example if HAS_MATPLOTLIB else None


# -- planted faults --


def some_off(seed, dims, layer, share):
    """He's start, but a share of a layer's units begin far on relu's flat side."""
    rng, pairs = np.random.default_rng(seed), []
    for l, (a, b) in enumerate(itertools.pairwise(dims), start=1):
        bias = np.where(np.arange(b) < share * b, -50.0, 0.0) if l == layer else np.zeros(b)
        pairs.append((rng.normal(0, np.sqrt(2 / a), (a, b)), bias))
    return pairs


DEEP, NARROW = (64, 64, 64, 10), (64, *[32] * 8, 10)
DESCENT = {"optimizer": "gradient_descent"}
PLANTED = {  # the fault, its direct consequences, and how it is planted
    "pixels to 255": (UNSCALED, [], "uint8 digits", (64, 64, 10), {"epochs": 30}),
    "raw columns": (UNSCALED, [RATE_HIGH, DEAD], "cancer, raw", (30, 32, 2), {"epochs": 40}),
    "years": (UNSCALED, [RATE_HIGH, DEAD], "far from 0", (10, 64, 1), {"epochs": 40}),
    "most of layer 1 off": (
        DEAD,
        [],
        "digits",
        DEEP,
        lambda seed: {"init": some_off(seed, DEEP, 1, 0.7), "epochs": 20},
    ),
    "layer 2 off": (DEAD, [], "digits", DEEP, lambda seed: {"init": some_off(seed, DEEP, 2, 1.0), "epochs": 20}),
    "eight sigmoids": (VANISHING, [], "digits", NARROW, {"activation": "sigmoid", "epochs": 20}),
    "tiny weights": (VANISHING, [], "digits", NARROW, {"activation": "tanh", "init": normal(0.01), "epochs": 20}),
    "large weights, tanh": (
        EXPLODING,
        [],
        "digits",
        (64, *[64] * 12, 10),
        {"activation": "tanh", "init": normal(1.0), "epochs": 10},
    ),
    "large weights, relu": (
        EXPLODING,
        [],
        "friedman",
        (10, *[64] * 6, 1),
        {"init": normal(1.0), "learning_rate": 1e-4, "epochs": 10},
    ),
    "noise learnt": (OVERFITTING, [], "labels at random", (20, 128, 1), {"validation": 0.3, "epochs": 200}),
    "wide and long": (OVERFITTING, [], "diabetes", (10, 256, 256, 1), {"validation": 0.3, "epochs": 200}),
    "few moons": (OVERFITTING, [], "overlapping moons", (2, 256, 256, 1), {"validation": 0.4, "epochs": 500}),
    "Adam at 0.3": (RATE_HIGH, [], "sine", (1, 64, 1), {"learning_rate": 0.3, "activation": "tanh", "epochs": 60}),
    "descent at the edge": (
        RATE_HIGH,
        [],
        "diabetes",
        (10, 1),
        {**DESCENT, "learning_rate": 0.24, "batch_size": 16, "epochs": 60},
    ),
    "descent at 3": (RATE_HIGH, [DEAD], "digits", (64, 64, 10), {**DESCENT, "learning_rate": 3.0, "epochs": 30}),
    "descent at 30": (
        RATE_HIGH,
        [SATURATED],
        "digits",
        (64, 64, 10),
        {**DESCENT, "learning_rate": 30.0, "activation": "sigmoid", "epochs": 30},
    ),
    "Adam at 1e-5": (RATE_LOW, [], "digits", (64, 64, 10), {"learning_rate": 1e-5, "epochs": 40}),
    "descent at 1e-4": (RATE_LOW, [], "digits", (64, 64, 10), {**DESCENT, "learning_rate": 1e-4, "epochs": 20}),
    "regression at 1e-5": (RATE_LOW, [], "friedman", (10, 64, 1), {"learning_rate": 1e-5, "epochs": 60}),
    "stopped early": (FEW, [], "digits", (64, 64, 10), {"learning_rate": 3e-4, "epochs": 5}),
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", PLANTED)
def test_a_planted_fault_is_found_and_no_other(kind, seed):
    fault, consequences, name, dims, settings = PLANTED[kind]
    settings = settings(seed) if callable(settings) else settings
    X, y = data(name)
    first, *others = names(dlx.fit(X, y, dims, backend="numpy", rng=seed, **settings), X, y)
    assert first == fault
    assert set(others) <= set(consequences)


@pytest.mark.parametrize("seed", SEEDS)
def test_classes_missing_from_validation_data(seed):
    X, y, (X_val, y_val) = held_out("digits")
    kept = (y_val != 3) & (y_val != 7)
    validation = X_val[kept], y_val[kept]
    net = dlx.fit(X, y, (64, 64, 10), epochs=40, validation=validation, backend="numpy", rng=seed)
    (finding,) = net.report(X, y, validation)
    assert finding.name == MISSING
    assert finding.evidence == "no validation row has the label 3 or 7."


@pytest.mark.parametrize("seed", SEEDS)
def test_classes_missing_from_a_drawn_split(seed):
    X, y = data("wine")
    labels = np.array(["red", "white", "rose"])[y]
    labels[5] = "port"  # the only one, which training keeps
    net = dlx.fit(X, labels, (13, 32, 4), epochs=60, batch_size=16, validation=0.2, backend="numpy", rng=seed)
    (finding,) = net.report(X, labels)
    assert (finding.name, finding.evidence) == (MISSING, "no validation row has the label 'port'.")


@pytest.mark.parametrize("seed", SEEDS)
def test_overfitting_is_found_by_data_that_the_fit_did_not_see(seed):
    X, y, validation = held_out("labels at random")
    net = dlx.fit(X, y, (20, 128, 1), epochs=200, backend="numpy", rng=seed)
    assert names(net, X, y) == []  # who has no validation data is not told
    assert names(net, X, y, validation) == [OVERFITTING]


@pytest.mark.parametrize("seed", SEEDS)
def test_early_stopping_leaves_no_overfitting(seed):
    X, y = data("overlapping moons")
    net = dlx.fit(X, y, (2, 256, 256, 1), epochs=500, validation=0.4, patience=40, backend="numpy", rng=seed)
    assert net.history["validation_loss"][-1] > 1.1 * min(net.history["validation_loss"])  # there was some
    assert names(net, X, y) == []


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("heavy", [False, True], ids=["light tails", "heavy tails"])
@pytest.mark.parametrize("rate", [1e-9, 1e-6])
def test_a_training_that_hardly_moves_is_never_too_fast_nor_overfitted(seed, heavy, rate):
    """A random start is often worse than a constant prediction, and the few rows held out differ by chance."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((300, 4))
    y = X[:, 0] ** 3 * np.exp(rng.standard_normal(300)) if heavy else X[:, 0]
    how = {"layer_dims": (4, 32, 1), "epochs": 20, "learning_rate": rate, "rng": seed}
    for validation in (None, 0.2):
        net = dlx.fit(X, y, **how, validation=validation)
        assert {finding.name for finding in net.report(X, y)} <= {"learning rate too low", "unscaled inputs"}


@pytest.mark.parametrize("seed", range(3))
def test_a_training_that_never_moves_is_too_slow(seed):
    X = np.random.default_rng(seed).standard_normal((300, 4))
    weights = [(np.ones((4, 8)), np.zeros(8)), (np.ones((8, 1)), [0.0])]
    net = dlx.fit(X, X[:, 0], (4, 8, 1), epochs=20, learning_rate=1e-9, init=weights, activation="tanh", rng=seed)
    (finding,) = net.report(X, X[:, 0])
    assert finding.name == "learning rate too low"
    assert "the training loss does not move" in finding.evidence


@pytest.mark.parametrize("seed", range(8))
def test_a_start_of_long_tails_that_falls_is_not_too_fast(seed):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((300, 4)).astype("f4")
    y = rng.poisson(np.exp(X[:, 0])).astype(float)
    net = dlx.fit(X, y, (4, 8, 1), epochs=5, validation=0.2, rng=seed, loss="poisson")
    assert "learning rate too high" not in {finding.name for finding in net.report(X, y)}
