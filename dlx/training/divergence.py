"""Checks that a training has not diverged: its loss is finite and bounded, and its weights are finite."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from dlx import network, scoring
from dlx.backend import Array
from dlx.data.features import truth
from dlx.host import HostArray
from dlx.network import Params
from dlx.training.steps import Task

DIVERGENCE_REMEDY = (
    "Lower learning_rate, scale the columns of X (and real targets) to mean 0 and variance 1, or pass clip_norm=1.0."
)
EXPLOSION_FACTOR = 1e4  # by which a loss may exceed the loss at the start, and that of scores which are all zero
ELEMENTS_AT_ONCE = 1 << 20  # of the targets, while the loss of zero scores is computed
LOOKED_AT = 1 << 24  # the most elements of X in a sample of rows by which weights are judged
JUDGED, GLANCED = 4096, 256  # the rows in such a sample: for weights that are returned, and for those saved on the way


class DivergenceError(ArithmeticError):
    """The loss or the weights became non-finite, or the loss exploded; no model is returned.

    `at` holds the numbers, from 0, of the epoch and the batch with the first bad loss; it is None if a weight was bad.
    `after_all` says that the loss of every epoch was good, but that the weights after the last update are not.
    """

    at: tuple[int, int] | None = None
    after_all: bool = False


def zero_loss(task: Task) -> float:
    """The mean loss of scores that are all zero, which is the scale of the loss before anything is learnt."""
    net, xp, backend, dtype = task.net, task.net.xp, task.backend, task.backend.dtype(task.dtype)
    _, Y, weights, classes = task.rows

    by_target = network.weighs_targets(weights)

    def values(classes: Array | None, Y: Array) -> Array:
        T = truth(xp, Y, classes, dtype)
        return network.values_at(net, xp.zeros_like(T), T, by_target)

    of_rows = backend.rowwise(values, None if net.kind is None else ("loss of zeros", net.kind, by_target))
    wide = (Y if classes is None else classes).shape[1]
    losses, sizes, most, numbers = [], [], max(1, ELEMENTS_AT_ONCE // wide), task.numbers()
    for first in range(0, task.size, most):
        block = numbers[first : first + most]
        w = None if weights is None else backend.to_host(backend.take(weights, block))
        block_losses = of_rows(classes, backend.take(Y, block), to_host=True).astype(np.float64)
        losses.append(float(network.mean_loss(np, block_losses, w)))
        sizes.append(len(block))
    return float(np.average(losses, weights=sizes))


def highest_loss(at_zero: float, *at_start: float) -> float:
    """The largest mean loss that does not count as divergence, by the losses of a network that has learnt nothing.

    `at_zero` is the loss of scores that are all zero, `at_start` that of the first weights. If `at_zero` is 0, as for
    squared error and targets that are all zero, 1 takes its place.
    """
    scale = 1.0 if at_zero == 0.0 else at_zero
    return EXPLOSION_FACTOR * max((abs(loss) for loss in (scale, *at_start) if math.isfinite(loss)), default=math.inf)


def epoch_loss(losses: HostArray, sizes: Sequence[int], epoch: int, limit: float) -> float:
    """The mean of the batches' losses over all of their rows; raises if it is not finite, or is above `limit`."""
    with np.errstate(all="ignore"):
        rows = np.asarray(sizes[: len(losses)], np.float64)
        mean = float((losses.astype(np.float64) * rows).sum() / rows.sum())
    if not (math.isfinite(mean) and mean <= limit):
        bad = ~(np.isfinite(losses) & (losses <= limit))
        batch = int(np.flatnonzero(bad)[0]) if bad.any() else len(losses) - 1
        error = DivergenceError(
            f"`loss` must stay finite and bounded; got {losses[batch]:.3g} in epoch {epoch + 1}, batch {batch + 1}. "
            + DIVERGENCE_REMEDY
        )
        error.at = epoch, batch
        raise error
    return mean


def loss_after(task: Task, params: Params, numbers: HostArray | None) -> float:
    """J + R of these parameters without dropout, over the rows with these numbers, or over all rows if that is None."""
    loss = scoring.loss_of(task.backend, task.net, params, task.rows, numbers)
    return loss + _penalty(task, params)


def _penalty(task: Task, params: Params) -> float:
    """R, with l2 and l1 as arguments, so that a library which compiles it does so once for all rates."""
    net = task.net
    if net.l2 is None and net.l1 is None:
        return 0.0

    def penalty(params: Params, l2: float | None, l1: float | None) -> Array | float:
        return network.penalty(net._replace(l2=l2, l1=l1), params)

    return float(task.backend.compile(penalty, ("penalty", net.l2 is None, net.l1 is None))(params, net.l2, net.l1))


def require_finite_params(task: Task, params: Params, epochs: int) -> None:
    """Raise if a parameter is not finite: the last update may have overflowed, though the loss before it was finite."""
    if not all(task.backend.all_finite(array) for layer in params for array in layer):
        raise _after_all(f"`params` must stay finite; got a weight that is not finite after {_last_batch(epochs)}")


def require_good(task: Task, params: Params, epochs: int, rows: int, limit: float = math.inf) -> None:
    """Raise unless these weights are finite, and their loss without dropout is finite and at most `limit`.

    The loss is computed on a sample of `rows` evenly spaced rows, and on all rows if that of the sample is bad.
    """
    require_finite_params(task, params, epochs)
    rows = max(1, min(rows, LOOKED_AT // task.rows.X.shape[1]))
    numbers = None if task.chosen is None and task.size <= rows else _spread(task, rows)
    loss = loss_after(task, params, numbers)
    if numbers is not None and len(numbers) < task.size and not _is_good(loss, limit):
        loss = loss_after(task, params, task.chosen)
    require_good_loss("loss", loss, epochs, limit)


def require_good_loss(name: str, loss: float, epochs: int, limit: float = math.inf) -> None:
    """Raise if a loss that was measured after so many epochs is not finite, or is above `limit`."""
    if not _is_good(loss, limit):
        raise _after_all(f"`{name}` must stay finite and bounded; got {loss:.3g} after {_last_batch(epochs)}")


def _is_good(loss: float, limit: float) -> bool:
    return math.isfinite(loss) and loss <= limit


def _spread(task: Task, rows: int) -> HostArray:
    """The numbers of at most `rows` evenly spaced rows of those that are trained on."""
    count = min(rows, task.size)
    return task.numbers()[np.arange(count) * task.size // count]


def _last_batch(epochs: int) -> str:
    return f"the last batch of epoch {epochs}"


def _after_all(text: str) -> DivergenceError:
    """The error for weights that are bad after epochs whose losses were all good."""
    error = DivergenceError(f"{text}. {DIVERGENCE_REMEDY}")
    error.after_all = True
    return error
