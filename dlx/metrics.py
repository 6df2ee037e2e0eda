"""The scores of predictions: accuracy, R² and D².

Functions that return sums take a block of rows, so that the sums of all blocks can be added. `accuracy`, `r2` and `d2`
take all rows at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dlx.backend import Array, Namespace


class Spread(NamedTuple):
    """What R² needs to know of all targets (n, K), for each output.

    `mean` (1, K) is the weighted mean, `mass` (1, K) the sum of weights, and `varies` (K,) whether the targets differ.
    """

    mean: Array
    mass: Array
    varies: Array


def accuracy(xp: Namespace, correct: Array, weights: Array | None = None) -> float:
    """The weighted share of rows whose labels are all predicted correctly.

    Parameters
    ----------
    xp : module
        The namespace of the arrays.
    correct : boolean array (n,) or (n, K)
        Whether each label is predicted correctly.
    weights : float array (n,), (n, 1) or (n, K), default None
        Labels of weight 0 do not count. A row has the mean weight of its other labels, or 0 without any.

    Returns
    -------
    float in [0, 1]

    Examples
    --------
    >>> import numpy as np
    >>> accuracy(np, np.array([True, False]), weights=np.array([3.0, 1.0]))
    0.75
    """
    right, total = right_of(xp, correct, weights)
    return right / total


def right_of(xp: Namespace, correct: Array, weights: Array | None = None) -> tuple[float, float]:
    """The weight of the correct rows and that of all rows, which can be added over blocks of rows."""
    correct = xp.expand_dims(correct, axis=1) if len(correct.shape) == 1 else correct
    if weights is None:  # counted in integers, exactly, whatever the working dtype
        return int(xp.sum(xp.astype(xp.all(correct, axis=1), xp.int32))), int(correct.shape[0])
    w = _columns(xp, weights)
    weighs = w > 0
    right = xp.astype(xp.all(correct | ~weighs, axis=1), w.dtype)
    count = xp.sum(xp.astype(weighs, w.dtype), axis=1)
    rows = xp.sum(w, axis=1) / xp.where(count > 0, count, xp.ones_like(count))
    return float(xp.sum(rows * right)), float(xp.sum(rows))


def r2(xp: Namespace, Y: Array, predicted: Array, weights: Array | None = None) -> float:
    """Coefficient of determination R², averaged over outputs.

    R² = 1 - Σ w (Y - P)² / Σ w (Y - mean Y)²

    Parameters
    ----------
    xp : module
        The namespace of the arrays.
    Y, predicted : float arrays (n, K)
        The targets and their predictions P.
    weights : float array (n,), (n, 1) or (n, K), default None

    Returns
    -------
    float <= 1

    Numerics: an output whose targets are all equal has R² = 1 if it is predicted exactly, else 0. An output whose
    targets all have weight 0 is left out of the average.

    Examples
    --------
    >>> import numpy as np
    >>> r2(np, np.array([[0.0], [2.0]]), np.array([[0.0], [1.0]]))
    0.5
    """
    spread = spread_of(xp, [(Y, weights)])
    return r2_of(xp, *squares(xp, Y, predicted, weights, spread), spread)


def spread_of(xp: Namespace, blocks: Iterable[tuple[Array, Array | None]]) -> Spread:
    """The spread of all targets, from blocks of targets and their weights."""
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
    return Spread(mean, mass, highest > lowest)  # not Σ (Y - mean)² > 0: the mean of three 0.1 is not 0.1


def squares(xp: Namespace, Y: Array, predicted: Array, weights: Array | None, spread: Spread) -> tuple[Array, Array]:
    """Σ w (Y - P)² and Σ w (Y - mean Y)², each (K,), which can be added over blocks of rows."""
    w = _weights(xp, Y, weights)
    residual = xp.sum(w * (Y - predicted) * (Y - predicted), axis=0)
    return residual, xp.sum(w * (Y - spread.mean) * (Y - spread.mean), axis=0)


def r2_of(xp: Namespace, residual: Array, total: Array, spread: Spread) -> float:
    """R² from the sums that `squares` returns."""
    return _explained(xp, residual, xp.where(spread.varies, total, xp.zeros_like(total)), spread.mass)


def quantiles(xp: Namespace, Y: Array, levels: Sequence[float], weights: Array | None = None) -> Array:
    """Weighted quantiles, which minimise the pinball loss.

    quantile_q = the lowest y with Σ_{y_i <= y} w_i >= q Σ_i w_i

    Parameters
    ----------
    xp : module
        The namespace of `Y`, which should lie on the host: the quantiles are computed one by one.
    Y : float array (n, K), or (n, 1) for all levels
    levels : sequence of K floats in (0, 1)
        The level q of each output.
    weights : float array (n,), (n, 1) or (n, K), default None

    Returns
    -------
    array (1, K)

    Examples
    --------
    >>> import numpy as np
    >>> quantiles(np, np.array([[3.0], [1.0], [2.0]]), [0.5, 0.9])
    array([[2., 3.]])
    """
    w = _weights(xp, Y, weights)
    lowest = []
    for k, q in enumerate(levels):
        y, v = (array[:, min(k, array.shape[1] - 1)] for array in (Y, w))
        order = xp.argsort(y)
        y, reached = xp.take(y, order), xp.cumulative_sum(xp.take(v, order))
        lowest.append(y[int(xp.sum(xp.astype(reached[:-1] < q * reached[-1], xp.int64)))])
    return xp.expand_dims(xp.stack(lowest), axis=0)


def d2(xp: Namespace, loss: Array, constant: Array, weights: Array | None = None, pooled: bool = False) -> float:
    """D², the share by which predictions reduce the loss of the best constant, averaged over outputs.

    D² = 1 - Σ w loss / Σ w constant

    Parameters
    ----------
    xp : module
        The namespace of the arrays.
    loss, constant : float arrays (n, K)
        The loss of each prediction, and the loss of the best constant for its output.
    weights : float array (n,), (n, 1) or (n, K), default None
    pooled : bool, default False
        Take the sums over all outputs, instead of an average over outputs.

    Returns
    -------
    float <= 1

    Numerics: as in `r2`.

    Source: Koenker and Machado 1999, Journal of the American Statistical Association 94, for the pinball loss.

    Examples
    --------
    >>> import numpy as np
    >>> d2(np, np.array([[1.0], [0.0]]), np.array([[1.0], [3.0]]))
    0.75
    """
    return d2_of(xp, *losses_of(xp, loss, constant, weights), pooled)


def losses_of(xp: Namespace, loss: Array, constant: Array, weights: Array | None) -> tuple[Array, Array, Array]:
    """Σ w loss, Σ w constant and Σ w, each (K,), which can be added over blocks of rows."""
    w = _weights(xp, loss, weights) + xp.zeros_like(loss)
    return xp.sum(w * loss, axis=0), xp.sum(w * constant, axis=0), xp.sum(w, axis=0)


def d2_of(xp: Namespace, loss: Array, constant: Array, mass: Array, pooled: bool) -> float:
    """D² from the sums that `losses_of` returns."""
    return _explained(xp, *(xp.sum(sums, keepdims=True) if pooled else sums for sums in (loss, constant, mass)))


def _weights(xp: Namespace, Y: Array, weights: Array | None) -> Array:
    """Weights as (n, 1) or (n, K); ones where there are none."""
    return xp.ones_like(Y[:, :1]) if weights is None else _columns(xp, weights)


def _columns(xp: Namespace, weights: Array) -> Array:
    """Weights (n,) as (n, 1); others as they are."""
    return xp.expand_dims(weights, axis=1) if len(weights.shape) == 1 else weights


def _explained(xp: Namespace, residual: Array, total: Array, mass: Array) -> float:
    """1 - residual / total, averaged over the outputs with a `mass` > 0, their sum of weights.

    An output with total 0 has the share 1 if its residual is 0, else 0.
    """
    ratio = residual / xp.where(total > 0, total, xp.ones_like(total))
    missed = xp.astype(residual != 0, residual.dtype)
    shares = 1.0 - xp.where(total > 0, ratio, missed)
    weighs = xp.astype(xp.reshape(mass, (-1,)) > 0, shares.dtype) * xp.ones_like(shares)
    shares = xp.where(weighs > 0, shares, xp.zeros_like(shares))
    return float(xp.sum(shares) / xp.sum(weighs))
