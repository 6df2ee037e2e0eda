"""The training loop: batches, epochs, stopping. No formula stands here."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from dlx import interrupts, network, optimizers, quasi_newton, steps, storage
from dlx.backend import Array
from dlx.data import Batch, gather, truth
from dlx.network import Layer, Params
from dlx.steps import Settings, Start, Task

HostArray = np.ndarray[Any, Any]
History = dict[str, list[float]]
REMEDY = (
    "Lower learning_rate, scale the columns of X (and real targets) to mean 0 and variance 1, or pass clip_norm=1.0."
)
EXPLODED = 1e4  # times the loss at the start, or that of scores which are all zero
ELEMENTS_AT_ONCE = 1 << 20  # of targets, for the latter


class DivergenceError(ArithmeticError):
    """The loss or the weights became non-finite, or the loss exploded; no model is returned."""


class Epoch(NamedTuple):
    """What an epoch leaves: parameters that the next one may consume, its mean loss, its last rate or step length.

    With `end`, another training goes on from here; the next epoch may consume that too.
    """

    params: Params
    loss: float
    rate: float
    end: Start | None = None


def epochs_by_batch(
    task: Task,
    settings: Settings,
    params: Params,
    rng: steps.Draws,
    watched: list[float],
    start: Start | None = None,
) -> Iterator[Epoch]:
    """Epochs of a first-order optimizer; Ctrl-C ends them after the updates so far, which are an epoch too."""
    optimizer, backend, n = settings.optimizer, task.backend, task.size
    assert isinstance(optimizer, optimizers.Optimizer)
    slots, before = (None, 0) if start is None else start
    step, carry, params_in = steps.make_step(task, settings, params, slots)
    key = None if task.key is None or not optimizers.is_own(optimizer) else (task.key, steps.kind(settings))
    run = backend.loop(step, key)
    sizes = [min(settings.batch_size, n - first) for first in range(0, n, settings.batch_size)]
    at_zero, limit = zero_loss(task), math.inf
    for epoch in range(settings.epochs):
        keys = steps.dropout_keys(task, len(sizes), rng)
        order = steps.order(task, settings, rng)
        first, planned = before + epoch * len(sizes), before + settings.epochs * len(sizes)
        rates = [settings.schedule(first + t, planned, watched) for t in range(len(sizes))]
        tables = keys, *steps.numbers(task, settings, first, rates)
        losses: list[Array] = []
        try:
            with interrupts.held() as interrupted:
                for done in steps.chained(run, carry, steps.groups(task, settings, order, tables, len(sizes))):
                    carry, loss = done
                    losses.append(loss)
                    if interrupted:
                        break
        except KeyboardInterrupt:
            interrupted = [True]
        if losses:
            found = backend.outputs_to_host(losses)
            limit = highest_loss(at_zero, float(found[0])) if epoch == 0 else limit
            reached = params_in(carry)
            end = Start(steps.slots_of(task, carry, reached), first + len(found))
            yield Epoch(reached, mean_loss(found, sizes, epoch, limit), rates[len(found) - 1], end)
        if interrupted:
            raise KeyboardInterrupt


def zero_loss(task: Task) -> float:
    """The mean loss of scores that are all zero: the scale of a loss that learns nothing."""
    net, xp, dtype = task.net, task.net.xp, task.backend.dtype(task.dtype)
    _, Y, weights, classes = task.rows
    wide = (Y if classes is None else classes).shape[1]
    losses, sizes, most = [], [], max(1, ELEMENTS_AT_ONCE // wide)
    for first in range(0, task.size, most):
        block = task.numbers()[first : first + most]
        numbers = task.to_device(block)
        T = truth(xp, xp.take(Y, numbers, axis=0), classes, dtype)
        w = None if weights is None else xp.take(weights, numbers, axis=0)
        losses.append(network.mean_loss(xp, net.loss.value(xp.zeros_like(T), T), w))
        sizes.append(len(block))
    return float(np.average(task.backend.stack_to_host(losses).astype(np.float64), weights=sizes))


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
        raise DivergenceError(
            f"`loss` must stay finite and bounded; got {losses[batch]:.3g} in epoch {epoch + 1}, batch {batch + 1}. "
            + REMEDY
        )
    return mean


def epochs_by_lbfgs(task: Task, settings: Settings, params: Params) -> Iterator[Epoch]:
    """Epochs of L-BFGS: one iteration over all rows each."""
    net, xp, backend = task.net, task.net.xp, task.backend
    assert isinstance(settings.optimizer, quasi_newton.LBFGS)
    numbers = None if task.chosen is None else task.to_device(task.chosen)
    batch = gather(xp, task.rows, numbers, backend.dtype(task.dtype))

    def objective(params: Params, batch: Batch) -> tuple[Array, Params]:
        return network.loss_and_gradients(net, params, batch.X, batch.Y, batch.weights, None)

    compiled = backend.compile(objective)

    def evaluate(x: Array) -> tuple[float, Array]:
        loss, gradients = compiled(storage.unravel(xp, x, params), batch)
        return float(loss), storage.ravel(xp, gradients)

    minimizer = quasi_newton.Minimizer(xp, settings.optimizer, evaluate, storage.ravel(xp, params))
    limit = highest_loss(zero_loss(task), minimizer.f)
    for epoch in range(settings.epochs):
        mean_loss(np.asarray([minimizer.f]), [1], epoch, limit)
        try:
            converged = minimizer.advance()
        except OverflowError as reason:
            text = f"`loss` must have a finite slope; got none in epoch {epoch + 1}: {reason}. {REMEDY}"
            raise DivergenceError(text) from reason
        end = Start((), minimizer.evaluations)
        yield Epoch(storage.unravel(xp, minimizer.x, params), minimizer.f, minimizer.length, end)
        if converged:
            return


def train(
    task: Task,
    settings: Settings,
    params: Params,
    rng: steps.Draws,
    validate: Callable[[Params], dict[str, float]],
    report: Callable[[Params, History], bool],
    start: Start | None = None,
    keep: Callable[[Start], None] | None = None,
) -> tuple[Params, History]:
    """Epochs until the last, until `patience` ends, until `report` says stop, or until Ctrl-C.

    Consumes `params`. `validate` gives an epoch's figures, `report` shows the history so far. Returns the last
    weights, or with `patience` those of the best epoch by the watched loss: the validation's, or else the training's.
    With `start`, which is consumed too, it goes on where another training ended; `keep` is given the like after
    each epoch.
    """
    history: History = {}
    watched: list[float] = []
    best, best_epoch = params, -1
    if isinstance(settings.optimizer, quasi_newton.LBFGS):
        epochs = epochs_by_lbfgs(task, settings, params)
    else:
        epochs = epochs_by_batch(task, settings, params, rng, watched, start)
    interrupted = False
    started = time.perf_counter()
    try:
        for epoch in epochs:
            params = epoch.params
            figures = {"loss": epoch.loss, **validate(params), "learning_rate": epoch.rate}
            figures["seconds"] = time.perf_counter() - started
            for name, figure in figures.items():
                history.setdefault(name, []).append(figure)
            watched.append(figures.get("validation_loss", epoch.loss))
            if keep is not None and epoch.end is not None:
                keep(epoch.end)
            if settings.patience is not None and (best_epoch < 0 or _is_lower(watched[-1], watched[best_epoch])):
                best = tuple(Layer(*(task.backend.copy(each) for each in layer)) for layer in params)
                best_epoch = len(watched) - 1
            stop = report(params, history)
            if stop or (settings.patience is not None and len(watched) - 1 - best_epoch >= settings.patience):
                break
            started = time.perf_counter()
    except KeyboardInterrupt:
        interrupted = True
    if interrupted:
        warnings.warn(
            f"training was interrupted after {len(watched)} epochs; the weights so far are kept.",
            stacklevel=3,
        )
    params = best if best_epoch >= 0 else params
    _require_finite(task, params, len(watched))
    return params, history


def _is_lower(loss: float, best: float) -> bool:
    """Whether the loss is the better one; any is better than nan."""
    return loss < best or (math.isnan(best) and not math.isnan(loss))


def _require_finite(task: Task, params: Params, epochs: int) -> None:
    """The loss of the last batch was finite, but its update may have overflowed."""
    if not network.all_finite(task.net.xp, params):
        raise DivergenceError(
            f"`params` must stay finite; got a weight that is not after the last batch of epoch {epochs}. " + REMEDY
        )
