"""What `score` reports."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from dlx.backend import Array, Namespace


class Spread(NamedTuple):
    """Of targets (n, K): the mean of each output, (1, K), and whether its targets differ, (K,)."""

    mean: Array
    varies: Array


def accuracy(xp: Namespace, correct: Array, weights: Array | None = None) -> float:
    """The (weighted) share of correct rows; `correct` is a boolean array (n,), `weights` (n,)."""
    right, total = right_of(xp, correct, weights)
    return right / total


def right_of(xp: Namespace, correct: Array, weights: Array | None = None) -> tuple[float, float]:
    """The weight of the correct rows, and of all of them; those of two blocks of rows are added."""
    if weights is None:
        return int(xp.sum(xp.astype(correct, xp.int32))), int(correct.shape[0])  # exact, whatever the working dtype
    return float(xp.sum(weights * xp.astype(correct, weights.dtype))), float(xp.sum(weights))


def r2(xp: Namespace, Y: Array, predicted: Array, weights: Array | None = None) -> float:
    """Coefficient of determination, averaged over outputs: 1 - Σ w (Y - P)² / Σ w (Y - mean Y)².

    Parameters
    ----------
    Y, predicted : float arrays (n, K)
    weights : float array (n,), optional

    Returns
    -------
    float
        An output whose targets are all equal counts as 1 if it is predicted exactly and as 0 otherwise.
    """
    spread = spread_of(xp, [(Y, weights)])
    return r2_of(xp, *squares(xp, Y, predicted, weights, spread), spread)


def spread_of(xp: Namespace, blocks: Iterable[tuple[Array, Array | None]]) -> Spread:
    """The spread of all targets, from blocks of them with their weights."""
    total: Array = 0.0
    weight: Array = 0.0
    highest: Array = None
    lowest: Array = None
    for Y, weights in blocks:
        w = _column(xp, Y, weights)
        total, weight = total + xp.sum(w * Y, axis=0, keepdims=True), weight + xp.sum(w)
        high, low = xp.max(xp.where(w > 0, Y, -xp.inf), axis=0), xp.min(xp.where(w > 0, Y, xp.inf), axis=0)
        highest = high if highest is None else xp.maximum(highest, high)
        lowest = low if lowest is None else xp.minimum(lowest, low)
    return Spread(total / weight, highest > lowest)  # not total > 0: the mean of three 0.1 is not 0.1


def squares(xp: Namespace, Y: Array, predicted: Array, weights: Array | None, spread: Spread) -> tuple[Array, Array]:
    """Σ w (Y - P)² and Σ w (Y - mean Y)², (K,) each; those of two blocks of rows are added."""
    w = _column(xp, Y, weights)
    residual = xp.sum(w * (Y - predicted) * (Y - predicted), axis=0)
    return residual, xp.sum(w * (Y - spread.mean) * (Y - spread.mean), axis=0)


def r2_of(xp: Namespace, residual: Array, total: Array, spread: Spread) -> float:
    """R² from its sums."""
    varies = spread.varies & (total > 0)
    ratio = residual / xp.where(varies, total, xp.ones_like(total))
    missed = xp.astype(residual != 0, total.dtype)
    return float(xp.mean(1.0 - xp.where(varies, ratio, missed)))


def _column(xp: Namespace, Y: Array, weights: Array | None) -> Array:
    return xp.ones_like(Y[:, :1]) if weights is None else xp.expand_dims(weights, axis=1)
