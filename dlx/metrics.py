"""What `score` reports. Sums are taken over blocks of rows, and added; `accuracy`, `r2` and `d2` are of one block."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dlx.backend import Array, Namespace


class Spread(NamedTuple):
    """Of targets (n, K): the mean of each output, (1, K), the sum of its weights, and whether its targets differ."""

    mean: Array
    mass: Array
    varies: Array


def accuracy(xp: Namespace, correct: Array, weights: Array | None = None) -> float:
    """The (weighted) share of rows that are right in all their labels.

    Parameters
    ----------
    correct : boolean array (n,) or (n, K)
    weights : float array (n,), (n, 1) or (n, K), optional
        Of K labels those of weight 0 do not count, and a row weighs the mean of the others, or nothing without any.
    """
    right, total = right_of(xp, correct, weights)
    return right / total


def right_of(xp: Namespace, correct: Array, weights: Array | None = None) -> tuple[float, float]:
    """The weight of the rows that are right, and of all of them; those of two blocks of rows are added."""
    correct = xp.expand_dims(correct, axis=1) if len(correct.shape) == 1 else correct
    if weights is None:  # exact, whatever the working dtype
        return int(xp.sum(xp.astype(xp.all(correct, axis=1), xp.int32))), int(correct.shape[0])
    w = _columns(xp, weights)
    there = w > 0
    right = xp.astype(xp.all(correct | ~there, axis=1), w.dtype)
    count = xp.sum(xp.astype(there, w.dtype), axis=1)
    rows = xp.sum(w, axis=1) / xp.where(count > 0, count, xp.ones_like(count))
    return float(xp.sum(rows * right)), float(xp.sum(rows))


def r2(xp: Namespace, Y: Array, predicted: Array, weights: Array | None = None) -> float:
    """Coefficient of determination, averaged over outputs: 1 - Σ w (Y - P)² / Σ w (Y - mean Y)².

    Parameters
    ----------
    Y, predicted : float arrays (n, K)
    weights : float array (n,), (n, 1) or (n, K), optional

    Returns
    -------
    float
        An output whose targets are all equal counts as 1 if it is predicted exactly and as 0 otherwise; one whose
        targets all weigh 0 does not count.
    """
    spread = spread_of(xp, [(Y, weights)])
    return r2_of(xp, *squares(xp, Y, predicted, weights, spread), spread)


def spread_of(xp: Namespace, blocks: Iterable[tuple[Array, Array | None]]) -> Spread:
    """The spread of all targets, from blocks of them with their weights."""
    total: Array = 0.0
    mass: Array = 0.0
    highest: Array = None
    lowest: Array = None
    for Y, weights in blocks:
        w = _weights(xp, Y, weights)
        total, mass = total + xp.sum(w * Y, axis=0, keepdims=True), mass + xp.sum(w, axis=0, keepdims=True)
        high, low = xp.max(xp.where(w > 0, Y, -xp.inf), axis=0), xp.min(xp.where(w > 0, Y, xp.inf), axis=0)
        highest = high if highest is None else xp.maximum(highest, high)
        lowest = low if lowest is None else xp.minimum(lowest, low)
    mean = total / xp.where(mass > 0, mass, xp.ones_like(mass))
    return Spread(mean, mass, highest > lowest)  # not total > 0: the mean of three 0.1 is not 0.1


def squares(xp: Namespace, Y: Array, predicted: Array, weights: Array | None, spread: Spread) -> tuple[Array, Array]:
    """Σ w (Y - P)² and Σ w (Y - mean Y)², (K,) each; those of two blocks of rows are added."""
    w = _weights(xp, Y, weights)
    residual = xp.sum(w * (Y - predicted) * (Y - predicted), axis=0)
    return residual, xp.sum(w * (Y - spread.mean) * (Y - spread.mean), axis=0)


def r2_of(xp: Namespace, residual: Array, total: Array, spread: Spread) -> float:
    """R² from its sums."""
    return _explained(xp, residual, xp.where(spread.varies, total, xp.zeros_like(total)), spread.mass)


def quantiles(xp: Namespace, Y: Array, levels: Sequence[float], weights: Array | None = None) -> Array:
    """For each level q the lowest y with Σ_{y_i <= y} w_i >= q Σ_i w_i, (1, K): it minimises the pinball loss.

    `Y` (n, K), or (n, 1) for all levels; weights as in `r2`. It sorts, and waits: it is meant for arrays of the host.
    """
    w = _weights(xp, Y, weights)
    found = []
    for k, q in enumerate(levels):
        y, v = (each[:, min(k, each.shape[1] - 1)] for each in (Y, w))
        order = xp.argsort(y)
        y, reached = xp.take(y, order), xp.cumulative_sum(xp.take(v, order))
        found.append(y[int(xp.sum(xp.astype(reached[:-1] < q * reached[-1], xp.int64)))])
    return xp.expand_dims(xp.stack(found), axis=0)


def d2(xp: Namespace, loss: Array, constant: Array, weights: Array | None = None, pooled: bool = False) -> float:
    """Share of the loss of a constant that is explained: 1 - Σ w loss / Σ w constant, averaged over outputs.

    Parameters
    ----------
    loss, constant : float arrays (n, K)
        The loss of each prediction, and that of the best constant for its output.
    weights : as in `r2`
    pooled : bool
        Whether the sums are taken over all outputs, and not averaged.

    Source: Koenker and Machado 1999, Journal of the American Statistical Association 94, for the pinball loss.
    """
    return d2_of(xp, *losses_of(xp, loss, constant, weights), pooled)


def losses_of(xp: Namespace, loss: Array, constant: Array, weights: Array | None) -> tuple[Array, Array, Array]:
    """Σ w loss, Σ w constant and Σ w, (K,) each; those of two blocks of rows are added."""
    w = _weights(xp, loss, weights) + xp.zeros_like(loss)
    return xp.sum(w * loss, axis=0), xp.sum(w * constant, axis=0), xp.sum(w, axis=0)


def d2_of(xp: Namespace, loss: Array, constant: Array, mass: Array, pooled: bool) -> float:
    """D² from its sums."""
    return _explained(xp, *(xp.sum(each, keepdims=True) if pooled else each for each in (loss, constant, mass)))


def _weights(xp: Namespace, Y: Array, weights: Array | None) -> Array:
    return xp.ones_like(Y[:, :1]) if weights is None else _columns(xp, weights)


def _columns(xp: Namespace, weights: Array) -> Array:
    return xp.expand_dims(weights, axis=1) if len(weights.shape) == 1 else weights


def _explained(xp: Namespace, residual: Array, total: Array, mass: Array) -> float:
    """1 - residual / total, averaged over the outputs whose targets weigh something: the sum of weights is their mass.

    Where there is nothing to explain, it is 1 without a residual and 0 with one.
    """
    ratio = residual / xp.where(total > 0, total, xp.ones_like(total))
    missed = xp.astype(residual != 0, residual.dtype)
    shares = 1.0 - xp.where(total > 0, ratio, missed)
    there = xp.astype(xp.reshape(mass, (-1,)) > 0, shares.dtype) * xp.ones_like(shares)
    shares = xp.where(there > 0, shares, xp.zeros_like(shares))
    return float(xp.sum(shares) / xp.sum(there))
