"""Epochs, one after the other: by batches, and of L-BFGS. No formula stands here."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from dlx import network, quasi_newton
from dlx.backend import Array
from dlx.network import Params
from dlx.schedules import Losses, Named, Schedule
from dlx.training import batches, flat, interrupts, steps
from dlx.training.divergence import DIVERGENCE_REMEDY, DivergenceError, epoch_loss, highest_loss, zero_loss
from dlx.training.state import Saver, TrainingState
from dlx.training.steps import Settings, Task


class Epoch(NamedTuple):
    """What an epoch leaves: parameters, its mean loss, and its last learning rate or step length.

    `end` is the state from which another training can go on. The next epoch may consume `params` and `end`. The epoch
    is the `last` one if nothing more can be gained. `path` says how its steps ran, if that is known.
    """

    params: Params
    loss: float
    rate: float
    end: TrainingState | None = None
    last: bool = False
    path: tuple[str, bool] | None = None


class Saving(NamedTuple):
    """How a training is saved between two updates.

    The `saver` says when saving is due. `save` completes the state and saves it. `received` lists the signals that have
    asked for the end.
    """

    saver: Saver
    save: Callable[[TrainingState], None]
    received: list[int]


class BatchTraining:
    """A training by batches that is under way: `position` batches of its `epoch` are done, with these `losses`."""

    def __init__(self, task: Task, settings: Settings, start: TrainingState) -> None:
        self.epoch, self.position, self.earlier, self.limit = start.epoch, start.position, start.losses, start.limit
        self.task, self.settings = task, settings
        n = task.size
        self.sizes = [min(settings.batch_size, n - first) for first in range(0, n, settings.batch_size)]
        self.before = start.updates - self.epoch * len(self.sizes) - self.position
        step, self.carry = steps.make_step(task, settings, start.params, start.optimizer_state)
        key = steps.kind(task, settings)
        self.run = task.backend.loop(step, key)
        self.padding = batches.padding(task, settings.batch_size)
        self.stage = task.backend.staging()
        self.at_zero = zero_loss(task) if self.epoch == 0 else math.nan
        self.losses: list[Array] = []
        self.rates: list[float] = []

    @property
    def first(self) -> int:
        """The number of updates before this epoch."""
        return self.before + self.epoch * len(self.sizes)

    def advance(self, rng: steps.Draws, watched: Losses, most: int | None) -> Iterator[None]:
        """Draw the epoch's random numbers and train to its end. Yields whenever the caller may stop the training."""
        task, settings, n = self.task, self.settings, len(self.sizes)
        keys = steps.dropout_keys(task, n, rng)
        order = batches.order(task, settings, rng)
        first, planned = self.first, self.before + settings.epochs * n
        self.rates = _rates(settings.schedule, range(first, first + n), planned, watched)
        inputs = steps.Inputs(None, keys, *steps.numbers(task, settings, first, self.rates))
        groups = batches.groups(task, settings, order, inputs, n, self.padding, self.stage)
        for carry, loss in steps.chained(self.run, self.carry, groups, self.position, most):
            self.carry = carry
            self.losses.append(loss)
            self.position += math.prod(loss.shape)
            yield

    def state(self) -> TrainingState:
        """Where the training stands. The next update may consume these arrays."""
        new = self.task.backend.outputs_to_host(self.losses) if self.losses else np.asarray([])
        losses = np.concatenate([self.earlier, new]) if len(self.earlier) else new
        if self.epoch == 0:
            self.limit = highest_loss(self.at_zero, *map(float, losses[:1]))
        (params, optimizer_state), updates = self.carry, self.first + self.position
        return TrainingState(params, optimizer_state, updates, self.epoch, self.position, losses, self.limit)

    def close(self) -> Epoch:
        """End the epoch, whether all of its batches are done or not, and return it."""
        state = self.state()
        mean = epoch_loss(np.asarray(state.losses), self.sizes, self.epoch, self.limit)
        if state.position == len(self.sizes):
            state = state._replace(epoch=self.epoch + 1, position=0, losses=())
        epoch = Epoch(state.params, mean, self.rates[self.position - 1], state, path=getattr(self.run, "path", None))
        self.epoch, self.position, self.earlier, self.losses = self.epoch + 1, 0, (), []
        return epoch


def by_batch(
    task: Task,
    settings: Settings,
    rng: steps.Draws,
    watched: Losses,
    start: TrainingState,
    saving: Saving | None = None,
) -> Iterator[Epoch]:
    """Epochs of a first-order optimizer.

    Ctrl-C ends the training after the current update. The updates since the last epoch then count as an epoch, unless
    the training is saved: a resumed training completes that epoch.
    """
    training = BatchTraining(task, settings, start)
    most = None if saving is None else saving.saver.most
    while training.epoch < settings.epochs:
        drawn = None if saving is None else saving.saver.drawn()
        interrupted: list[int] = []
        try:
            with interrupts.deferred(signal.SIGINT) as interrupted:
                for _ in training.advance(rng, watched, most):
                    if saving is not None:
                        _save_if_due(training, saving, drawn)
                    if interrupted or (saving is not None and saving.received):
                        break
        except KeyboardInterrupt:
            interrupted = [signal.SIGINT]
        if saving is not None and _ends_within(training, saving):  # it has been saved
            raise KeyboardInterrupt
        if training.position:
            yield training.close()
        if interrupted or (saving is not None and saving.received):
            raise KeyboardInterrupt


def _rates(schedule: Schedule, updates: range, planned: int, watched: Losses) -> list[float]:
    """The learning rate of each of these updates. A constant one is asked for once, as that takes 2 us."""
    if isinstance(schedule, Named) and schedule.name == "constant":
        return [schedule(updates.start, planned, watched)] * len(updates)
    return [schedule(update, planned, watched) for update in updates]


def _ends_within(training: BatchTraining, saving: Saving) -> bool:
    """Whether a signal ends the training before the epoch gets its figures.

    It does within an epoch. When all batches are done, SIGTERM still does, which leaves no time, but Ctrl-C waits for
    the figures. If the epoch is a single batch, both wait: its loss judges the weights before it.
    """
    within, n = training.position < len(training.sizes), len(training.sizes)
    return bool(saving.received) and (within or (n > 1 and signal.SIGTERM in saving.received))


def _save_if_due(training: BatchTraining, saving: Saving, drawn: Any) -> None:
    """Save if saving is due, or if a signal ends the training. A whole epoch is saved later, with its figures."""
    within = training.position < len(training.sizes)
    updates = training.first + training.position
    if _ends_within(training, saving) or (within and saving.saver.due(updates, epoch_done=False)):
        state = training.state()
        epoch_loss(np.asarray(state.losses), training.sizes, training.epoch, training.limit)
        saving.save(state._replace(drawn=drawn))


def by_full_batch(task: Task, settings: Settings, start: TrainingState) -> Iterator[Epoch]:
    """Epochs of L-BFGS: each is one iteration over all rows."""
    net, xp, backend, params = task.net, task.net.xp, task.backend, start.params
    assert settings.optimizer.full_batch
    ravel = backend.compile(partial(flat.ravel, xp), "ravel")
    unravel = backend.compile(partial(flat.unravel, xp), "unravel")
    as_batch, rows = batches.all_rows(task)

    def objective(x: Array, like: Params, rows: Any, l2: Any, l1: Any) -> tuple[Array, Array]:
        at, batch, penalised = flat.unravel(xp, x, like), as_batch(rows), net._replace(l2=l2, l1=l1)
        loss, gradients = network.loss_and_gradients(penalised, at, batch.X, batch.Y, batch.weights, None)
        return loss, flat.ravel(xp, gradients)

    compiled = backend.compile(objective, None if task.key is None else ("L-BFGS", steps.formulas(task)))

    def evaluate(x: Array) -> tuple[float, Array]:
        loss, gradient = compiled(x, params, rows, net.l2, net.l1)
        return float(loss), gradient

    minimizer = quasi_newton.Minimizer(xp, settings.optimizer, evaluate, ravel(params), start.optimizer_state)
    limit = highest_loss(zero_loss(task), minimizer.f) if start.optimizer_state is None else start.limit
    for epoch in range(start.epoch, settings.epochs):
        epoch_loss(np.asarray([minimizer.f]), [1], epoch, limit)
        try:
            converged = minimizer.advance()
        except OverflowError as reason:
            text = f"`loss` must have a finite slope; got none in epoch {epoch + 1}: {reason}. {DIVERGENCE_REMEDY}"
            raise DivergenceError(text) from reason
        reached = unravel(minimizer.x, params)
        end = TrainingState(reached, minimizer.state, minimizer.evaluations, epoch + 1, limit=limit)
        yield Epoch(reached, minimizer.f, minimizer.length, end, converged)
        if converged:
            return
