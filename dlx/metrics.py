"""What `score` reports."""

from __future__ import annotations

from dlx.backend import Array, Namespace


def accuracy(xp: Namespace, correct: Array, weights: Array | None = None) -> float:
    """The (weighted) share of correct rows; `correct` is a boolean array (n,), `weights` (n,)."""
    if weights is None:
        right = int(xp.sum(xp.astype(correct, xp.int32)))
        return right / int(correct.shape[0])  # exact, whatever the working dtype
    return float(xp.sum(weights * xp.astype(correct, weights.dtype)) / xp.sum(weights))


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
    w = xp.ones_like(Y[:, :1]) if weights is None else xp.expand_dims(weights, axis=1)
    mean = xp.sum(w * Y, axis=0, keepdims=True) / xp.sum(w)
    residual = xp.sum(w * (Y - predicted) * (Y - predicted), axis=0)
    total = xp.sum(w * (Y - mean) * (Y - mean), axis=0)
    highest, lowest = xp.where(w > 0, Y, -xp.inf), xp.where(w > 0, Y, xp.inf)
    # total > 0 does not tell: the mean of three 0.1 is not 0.1
    varies = (xp.max(highest, axis=0) > xp.min(lowest, axis=0)) & (total > 0)
    ratio = residual / xp.where(varies, total, xp.ones_like(total))
    missed = xp.astype(residual != 0, Y.dtype)
    return float(xp.mean(1.0 - xp.where(varies, ratio, missed)))
