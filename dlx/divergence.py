"""Whether a training still learns: its loss finite and bounded, its weights finite."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dlx import network
from dlx.backend import Array
from dlx.data import truth
from dlx.network import Params
from dlx.steps import Task

HostArray = np.ndarray[Any, Any]
REMEDY = (
    "Lower learning_rate, scale the columns of X (and real targets) to mean 0 and variance 1, or pass clip_norm=1.0."
)
EXPLODED = 1e4  # times the loss at the start, or that of scores which are all zero
ELEMENTS_AT_ONCE = 1 << 20  # of targets, for the latter


class DivergenceError(ArithmeticError):
    """The loss or the weights became non-finite, or the loss exploded; no model is returned.

    `at` is the number of the epoch and of the batch, from 0, whose loss was the first of that kind; None where it was a
    weight.
    """

    at: tuple[int, int] | None = None


def zero_loss(task: Task) -> float:
    """The mean loss of scores that are all zero: the scale of a loss that learns nothing."""
    net, xp, backend, dtype = task.net, task.net.xp, task.backend, task.backend.dtype(task.dtype)
    _, Y, weights, classes = task.rows

    by_target = network.weighs_targets(weights)

    def values(classes: Array | None, Y: Array) -> Array:
        T = truth(xp, Y, classes, dtype)
        return network.values_at(net, xp.zeros_like(T), T, by_target)

    of_rows = backend.rowwise(values, None if net.kind is None else ("loss of zeros", net.kind, by_target))
    wide = (Y if classes is None else classes).shape[1]
    losses, sizes, most, rows = [], [], max(1, ELEMENTS_AT_ONCE // wide), task.numbers()
    for first in range(0, task.size, most):
        block = rows[first : first + most]
        w = None if weights is None else backend.to_host(backend.take(weights, block))
        found = of_rows(classes, backend.take(Y, block), to_host=True).astype(np.float64)
        losses.append(float(network.mean_loss(np, found, w)))
        sizes.append(len(block))
    return float(np.average(losses, weights=sizes))


def highest_loss(*at_start: float) -> float:
    """What a mean loss may not exceed, from those of a network that has learnt nothing."""
    return EXPLODED * max((abs(loss) for loss in at_start if math.isfinite(loss)), default=math.inf)


def mean_loss(losses: HostArray, sizes: Sequence[int], epoch: int, limit: float) -> float:
    """The mean over the rows seen, if it is finite and at most `limit`."""
    with np.errstate(all="ignore"):
        mean = float(np.average(losses.astype(np.float64), weights=sizes[: len(losses)]))
    if not (math.isfinite(mean) and mean <= limit):
        bad = ~(np.isfinite(losses) & (losses <= limit))
        batch = int(np.flatnonzero(bad)[0]) if bad.any() else len(losses) - 1
        error = DivergenceError(
            f"`loss` must stay finite and bounded; got {losses[batch]:.3g} in epoch {epoch + 1}, batch {batch + 1}. "
            + REMEDY
        )
        error.at = epoch, batch
        raise error
    return mean


def require_finite(task: Task, params: Params, epochs: int) -> None:
    """The loss of the last batch was finite, but its update may have overflowed."""
    if not all(task.backend.all_finite(each) for layer in params for each in layer):
        raise DivergenceError(
            f"`params` must stay finite; got a weight that is not finite after the last batch of epoch {epochs}. "
            + REMEDY
        )
