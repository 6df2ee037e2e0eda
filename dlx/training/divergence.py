"""Whether a training still learns: its loss finite and bounded, its weights finite."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dlx import network, scoring
from dlx.backend import Array
from dlx.data.features import truth
from dlx.network import Params
from dlx.training.steps import Task

HostArray = np.ndarray[Any, Any]
REMEDY = (
    "Lower learning_rate, scale the columns of X (and real targets) to mean 0 and variance 1, or pass clip_norm=1.0."
)
EXPLODED = 1e4  # times the loss at the start, or that of scores which are all zero
ELEMENTS_AT_ONCE = 1 << 20  # of targets, for the latter
LOOKED_AT = 1 << 24  # elements of X at most, to judge weights by a sample of rows
JUDGED, GLANCED = 4096, 256  # rows that say whether weights diverged: of what is returned, of what is saved on the way


class DivergenceError(ArithmeticError):
    """The loss or the weights became non-finite, or the loss exploded; no model is returned.

    `at` is the number of the epoch and of the batch, from 0, whose loss was the first of that kind; None where it was a
    weight. `after_all` says that every epoch's loss was good, and what the last update left is not.
    """

    at: tuple[int, int] | None = None
    after_all: bool = False


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


def highest_loss(at_zero: float, *at_start: float) -> float:
    """What a mean loss may not exceed, from those of a network that has learnt nothing: its scores zero, or drawn.

    Targets that are all zero have no scale of their own: then it is that of scores of size 1.
    """
    scale = 1.0 if at_zero == 0.0 else at_zero
    return EXPLODED * max((abs(loss) for loss in (scale, *at_start) if math.isfinite(loss)), default=math.inf)


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


def loss_after(task: Task, params: Params, numbers: HostArray | None) -> float:
    """J + R of these parameters over the rows of those numbers (all, if None), without dropout."""
    loss = scoring.loss_of(task.backend, task.net, params, task.rows, numbers)
    return loss + _penalty(task, params)


def _penalty(task: Task, params: Params) -> float:
    """R, its rates given as numbers: so that a library which compiles it does so once for all rates."""
    net = task.net
    if net.l2 is None and net.l1 is None:
        return 0.0

    def penalty(params: Params, l2: float | None, l1: float | None) -> Array | float:
        return network.penalty(net._replace(l2=l2, l1=l1), params)

    return float(task.backend.compile(penalty, ("penalty", net.l2 is None, net.l1 is None))(params, net.l2, net.l1))


def require_finite(task: Task, params: Params, epochs: int) -> None:
    """The loss of the last batch was finite, but its update may have overflowed."""
    if not all(task.backend.all_finite(each) for layer in params for each in layer):
        raise _after_all(f"`params` must stay finite; got a weight that is not finite after {_last_batch(epochs)}")


def require_good(task: Task, params: Params, epochs: int, rows: int, limit: float = math.inf) -> None:
    """The weights that the last update left are finite, and their loss is, without dropout, and at most `limit`.

    So many rows, evenly spaced, are looked at, and all of them where those give a bad loss.
    """
    require_finite(task, params, epochs)
    rows = max(1, min(rows, LOOKED_AT // task.rows.X.shape[1]))
    numbers = None if task.chosen is None and task.size <= rows else _spread(task, rows)
    loss = loss_after(task, params, numbers)
    if numbers is not None and len(numbers) < task.size and not _is_good(loss, limit):
        loss = loss_after(task, params, task.chosen)
    require_good_loss("loss", loss, epochs, limit)


def require_good_loss(name: str, loss: float, epochs: int, limit: float = math.inf) -> None:
    """Raise where what was measured after that many epochs is not finite, or is above the `limit`."""
    if not _is_good(loss, limit):
        raise _after_all(f"`{name}` must stay finite and bounded; got {loss:.3g} after {_last_batch(epochs)}")


def _is_good(loss: float, limit: float) -> bool:
    return math.isfinite(loss) and loss <= limit


def _spread(task: Task, rows: int) -> HostArray:
    """At most so many of the numbers of the rows that are trained on, evenly spaced."""
    count = min(rows, task.size)
    return task.numbers()[np.arange(count) * task.size // count]


def _last_batch(epochs: int) -> str:
    return f"the last batch of epoch {epochs}"


def _after_all(text: str) -> DivergenceError:
    error = DivergenceError(f"{text}. {REMEDY}")
    error.after_all = True
    return error
