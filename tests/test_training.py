"""Divergence is an error that names its place; parameters as one vector."""

import re
import warnings

import numpy as np
import pytest
import sklearn.datasets

import dlx
from dlx.training import divergence, loop

N = 40
X = 100.0 * np.random.default_rng(1).standard_normal((N, 3))
Y = 1000.0 * X[:, 0]
PLACE = r"`loss` must stay finite and bounded; got (\S+) in epoch (\d+), batch (\d+)\. Lower learning_rate, scale the "


def diverge(X=X, y=Y, dims=(3, 4, 1), **settings):
    """The exception's text, epoch and batch, with no warning and no model."""
    seen = []
    settings = {"optimizer": "sgd", "epochs": 50, "batch_size": 8, "rng": 0, **settings}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(dlx.DivergenceError) as caught:
            dlx.fit(X, y, dims, loss="squared_error", callbacks=lambda net: seen.append(net), **settings)
    assert isinstance(caught.value, ArithmeticError)
    place = re.match(PLACE, str(caught.value))
    return str(caught.value), *map(int, place.groups()[1:] if place else (0, 0)), seen


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_rate_too_high_names_epoch_and_batch(be, dtype):
    text, epoch, batch, seen = diverge(backend=be, dtype=dtype, learning_rate=1.0)
    assert re.match(PLACE, text)
    assert (epoch, batch) == (1, 2)
    assert seen == []


@pytest.mark.parametrize("validation", [0.25, (X, Y)], ids=["share", "rows"])
def test_validation_does_not_see_nan_first(validation):
    """scikit-learn 29504: early stopping and overflow gave "Input contains NaN"."""
    text, epoch, batch, seen = diverge(learning_rate=1.0, validation=validation, patience=3)
    assert re.match(PLACE, text)
    assert (epoch, batch) == (1, 2)
    assert seen == []


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_place_is_the_first_bad_batch(dtype):
    """A later epoch: the rate grows with the steps."""
    _, epoch, batch, seen = diverge(dtype=dtype, learning_rate=lambda step, *_: 1e-9 if step < 12 else 1e3)
    assert (epoch, batch) == (3, 4)  # updates 0 to 12 are five an epoch; the loss of the 14th is the first bad one
    assert len(seen) == 2


def test_an_update_that_overflows_in_the_very_last_batch(be):
    """Its loss was fine, and no other is computed."""
    last = {"epochs": 2, "learning_rate": lambda step, *_: 1e-9 if step < 9 else rate}
    rate = 1e308
    text = diverge(backend=be, dtype="float64", **last)[0]
    assert text.startswith(
        "`params` must stay finite; got a weight that is not finite after the last batch of epoch 2."
    )
    rate = 3e38
    assert diverge(backend=be, dtype="float32", **last)[0] == text


@pytest.mark.parametrize("rate", [10.0, 1e-1])
def test_an_exploding_but_finite_loss(rate):
    """scikit-learn's MLPRegressor returns here with a loss of 2e272, no warning."""
    X, y = sklearn.datasets.load_digits(return_X_y=True)
    plain = {"batch_size": 200, "optimizer": "nesterov", "learning_rate": rate, "epochs": 200}
    text, epoch, batch, _ = diverge(X, y.astype(float), (64, 100, 1), **plain)
    assert (epoch, batch) == (1, 2)
    assert np.isfinite(float(re.match(PLACE, text)[1]))


@pytest.mark.parametrize("optimizer", ["lbfgs", "sgd"])
@pytest.mark.parametrize(("dtype", "scale"), [("float64", 1e200), ("float32", 1e30)])
def test_a_loss_that_is_not_finite_at_the_start(be, optimizer, dtype, scale):
    text, epoch, batch, seen = diverge(
        X, scale * Y / 1e3, optimizer=optimizer, dtype=dtype, backend=be, learning_rate=1e-9
    )
    assert (epoch, batch) == (1, 1)
    assert "got inf" in text
    assert seen == []


def test_a_large_loss_that_does_not_grow_is_no_divergence(rng):
    """Heavy tails, targets that are mostly 0, a start far off: the first batch says little of the others."""
    X = rng.standard_normal((500, 2))
    sparse = np.zeros(500)
    sparse[-1] = 1e4
    far = [(np.full((2, 1), 1e6), np.zeros(1))]
    for y, init in ((sparse, "zeros"), (rng.standard_cauchy(500) ** 3, "auto"), (X[:, 0], far)):
        how = {"init": init, "batch_size": 5, "shuffle": False, "epochs": 2, "learning_rate": 1e-6, "optimizer": "sgd"}
        losses = dlx.fit(X, y, (2, 1), clip_norm=1.0, **how).history["loss"]
        assert len(losses) == 2
        assert losses[1] <= 1.001 * losses[0]


def own_loss(factor):
    """Squared error as a user's own, whose value at scores of zero is not finite."""
    return (
        lambda Z, Y: np.sum((Z - Y) ** 2 + factor * np.where(Z == 0, np.nan, 0), axis=-1, keepdims=True),
        lambda Z, Y: 2 * (Z - Y),
    )


def test_a_loss_that_is_nan_at_zero_scores_is_judged_by_its_start(rng):
    X = rng.standard_normal((20, 2))
    net = dlx.fit(X, X[:, 0] + 3.0, (2, 1), loss=own_loss(1.0), init="normal", epochs=3, rng=0)
    assert np.all(np.diff(net.history["loss"]) < 0)


@pytest.mark.parametrize(
    ("at_start", "limit"),
    [((2.0, -3.0), 3e4), ((np.nan, 5.0), 5e4), ((5.0, np.inf), 5e4), ((np.nan, np.inf), np.inf), ((0.0, 0.0), 1e4)],
)
def test_highest_loss(at_start, limit):
    assert divergence.highest_loss(*at_start) == limit


@pytest.mark.parametrize(
    ("losses", "limit", "place"),
    [
        ([1.0, np.nan, np.inf], 10.0, "nan in epoch 3, batch 2"),
        ([1.0, 2.0, -np.inf], 10.0, "-inf in epoch 3, batch 3"),
        ([1.0, 50.0, 1.0], 10.0, "50 in epoch 3, batch 2"),
        ([np.inf, -np.inf, 1.0], np.inf, "inf in epoch 3, batch 1"),
        ([1e308, 1e308, 1e308], np.inf, "1e+308 in epoch 3, batch 3"),
    ],
)
def test_mean_loss_names_the_first_bad_batch(losses, limit, place):
    with pytest.raises(dlx.DivergenceError, match=re.escape(f"got {place}. Lower")):
        divergence.epoch_loss(np.array(losses), [2, 2, 1], 2, limit)


def test_mean_loss_weighs_by_size():
    assert divergence.epoch_loss(np.float32([1.0, 2.0, -9.0]), [2, 2, 1, 7], 0, 10.0) == pytest.approx(-0.6)


@pytest.mark.parametrize("block", [1, 7, 1 << 20])
@pytest.mark.parametrize("y", [np.arange(45) % 3, np.random.default_rng(0).dirichlet(np.ones(3), 45)])
def test_the_loss_of_zero_scores_is_over_all_rows_trained_on(y, block, be, monkeypatch):
    monkeypatch.setattr(divergence, "ELEMENTS_AT_ONCE", block)
    seen = []
    monkeypatch.setattr(loop, "train", lambda task, _, params, *rest, **named: (seen.append(task), (params, {}))[1])
    w = np.random.default_rng(1).uniform(0, 2, 45)
    dlx.fit(np.ones((45, 2)), y, (2, 3), loss="cross_entropy", sample_weight=w, validation=0.2, backend=be, rng=0)
    with be.scope():
        assert divergence.zero_loss(seen[0]) == pytest.approx(np.log(3), rel=1e-6)  # of whatever label and weight
