"""Accuracy and R² beside scikit-learn's."""

import math

import numpy as np
import pytest
import sklearn.metrics

from dlx import metrics

WEIGHTS = {"unweighted": None, "weighted": np.array([0.5, 2.0, 0.0, 1.0, 3.5, 1.0, 0.25, 0.0])}
either_weighting = pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)


def on(be, x, dtype="float64"):
    return None if x is None else be.asarray(np.asarray(x), dtype)


@either_weighting
@pytest.mark.parametrize("right", [[1, 0, 1, 1, 0, 0, 1, 1], [0] * 8, [1] * 8])
def test_accuracy_is_that_of_scikit_learn(right, weights, be):
    found = metrics.accuracy(be.xp, be.asarray(np.array(right, dtype=bool)), on(be, weights))
    expected = sklearn.metrics.accuracy_score(np.ones(8), right, sample_weight=weights)
    assert type(found) is float
    assert found == pytest.approx(expected, rel=1e-14, abs=1e-15)


def test_accuracy_of_many_rows_keeps_its_digits(be):
    right = np.arange(300_000) % 3 > 0
    assert metrics.accuracy(be.xp, be.asarray(right)) == pytest.approx(2.0 / 3.0, rel=1e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-13)])
@pytest.mark.parametrize("outputs", [1, 3])
@either_weighting
def test_r2_is_that_of_scikit_learn(weights, outputs, dtype, tolerance, be, rng):
    Y = 10.0 + rng.standard_normal((8, outputs)) * np.arange(1, outputs + 1)
    P = Y + 0.3 * rng.standard_normal((8, outputs))
    found = metrics.r2(be.xp, on(be, Y, dtype), on(be, P, dtype), on(be, weights, dtype))
    assert type(found) is float
    assert found == pytest.approx(sklearn.metrics.r2_score(Y, P, sample_weight=weights), rel=tolerance)


CONSTANT = {  # the one value of an output's targets, what is predicted, R²
    "predicted": (2.0, [2.0, 2.0, 2.0], 1.0),
    "missed": (2.0, [2.0, 2.0, 2.5], 0.0),
    "not predicted at all": (2.0, [math.nan] * 3, 0.0),
    "predicted, though their mean rounds": (0.1, [0.1, 0.1, 0.1], 1.0),
    "missed, though their mean rounds": (0.1, [0.1, 0.1, 0.2], 0.0),
}


@pytest.mark.parametrize(("target", "predicted", "expected"), CONSTANT.values(), ids=CONSTANT)
def test_r2_of_constant_targets(target, predicted, expected, be):
    Y, P = np.full((3, 1), target), np.array([predicted]).T
    with np.errstate(all="raise"):
        assert metrics.r2(be.xp, on(be, Y), on(be, P)) == expected
    if target == np.mean(Y) and np.all(np.isfinite(P)):  # scikit-learn takes the rounded mean for a variance
        assert sklearn.metrics.r2_score(Y, P, force_finite=True) == expected


def test_r2_of_targets_that_are_constant_where_they_weigh(be):
    Y, w = np.array([[7.0], [0.1], [0.1], [0.1]]), np.array([0.0, 1.0, 1.0, 1.0])
    assert metrics.r2(be.xp, on(be, Y), on(be, Y + np.array([[5.0], [0.0], [0.0], [0.0]])), on(be, w)) == 1.0
    assert metrics.r2(be.xp, on(be, Y), on(be, Y + 0.5), on(be, w)) == 0.0


def test_r2_averages_constant_and_other_outputs(be):
    Y = np.array([[1.0, 5.0], [2.0, 5.0], [4.0, 5.0]])
    P = Y + np.array([[0.5, 0.0], [0.0, 0.0], [0.0, 0.0]])
    expected = sklearn.metrics.r2_score(Y, P, multioutput="uniform_average", force_finite=True)
    assert metrics.r2(be.xp, on(be, Y), on(be, P)) == pytest.approx(expected, rel=1e-14)


def test_r2_of_one_row(be):
    Y = on(be, [[3.0]])
    assert metrics.r2(be.xp, Y, Y) == 1.0
    assert metrics.r2(be.xp, Y, Y + 1.0) == 0.0
