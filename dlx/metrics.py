"""What `score` reports."""

from __future__ import annotations

from collections.abc import Sequence

from dlx.backend import Array, Namespace


def accuracy(xp: Namespace, correct: Array, weights: Array | None = None) -> float:
    """The (weighted) share of rows that are right in all their labels.

    Parameters
    ----------
    correct : boolean array (n,) or (n, K)
    weights : float array (n,), (n, 1) or (n, K), optional
        Of K labels those of weight 0 do not count, and a row weighs the mean of the others, or nothing without any.
    """
    if len(correct.shape) == 1:
        correct = xp.expand_dims(correct, axis=1)
    if weights is None:
        right = int(xp.sum(xp.astype(xp.all(correct, axis=1), xp.int32)))
        return right / int(correct.shape[0])  # exact, whatever the working dtype
    w = _columns(xp, weights)
    there = w > 0
    right = xp.astype(xp.all(correct | ~there, axis=1), w.dtype)
    count = xp.sum(xp.astype(there, w.dtype), axis=1)
    rows = xp.sum(w, axis=1) / xp.where(count > 0, count, xp.ones_like(count))
    return float(xp.sum(rows * right) / xp.sum(rows))


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
    w = xp.ones_like(Y[:, :1]) if weights is None else _columns(xp, weights)
    mass = xp.sum(w, axis=0, keepdims=True)
    mean = xp.sum(w * Y, axis=0, keepdims=True) / xp.where(mass > 0, mass, xp.ones_like(mass))
    residual = xp.sum(w * (Y - predicted) * (Y - predicted), axis=0)
    total = xp.sum(w * (Y - mean) * (Y - mean), axis=0)
    highest, lowest = xp.where(w > 0, Y, -xp.inf), xp.where(w > 0, Y, xp.inf)
    # total > 0 does not tell: the mean of three 0.1 is not 0.1
    varies = xp.max(highest, axis=0) > xp.min(lowest, axis=0)
    return _explained(xp, residual, xp.where(varies, total, xp.zeros_like(total)), mass)


def quantiles(xp: Namespace, Y: Array, levels: Sequence[float], weights: Array | None = None) -> Array:
    """For each level q the lowest y with Σ_{y_i <= y} w_i >= q Σ_i w_i, (1, K): it minimises the pinball loss.

    `Y` (n, K), or (n, 1) for all levels; weights as in `r2`. It sorts, and waits: it is meant for arrays of the host.
    """
    w = xp.ones_like(Y[:, :1]) if weights is None else _columns(xp, weights)
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
    w = xp.ones_like(loss[:, :1]) if weights is None else _columns(xp, weights)
    w = w + xp.zeros_like(loss)
    sums = [xp.sum(each, axis=0) for each in (w * loss, w * constant, w)]
    return _explained(xp, *(xp.sum(each, keepdims=True) if pooled else each for each in sums))


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
