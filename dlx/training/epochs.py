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
from dlx.schedules import Losses
from dlx.training import flat, interrupts, steps
from dlx.training.divergence import REMEDY, DivergenceError, highest_loss, mean_loss, zero_loss
from dlx.training.steps import Settings, Start, Task

HostArray = np.ndarray[Any, Any]


class Epoch(NamedTuple):
    """What an epoch leaves: parameters that the next one may consume, its mean loss, its last rate or step length.

    With `end`, another training goes on from here; the next epoch may consume that too. Where there is nothing more to
    gain it is the `last`.
    """

    params: Params
    loss: float
    rate: float
    end: Start | None = None
    last: bool = False


class Pauses(NamedTuple):
    """What may happen between two updates.

    The list of signals `received` that ask for an end; how many updates may lie between two looks at whether saving is
    `due`; the state of the training's generator; and how to save, given parameters, start, and the generator's state
    before the epoch's draws.
    """

    received: list[int]
    most: int | None
    drawn: Callable[[], Any]
    due: Callable[[int], bool]
    save: Callable[[Params, Start, Any], None]


class Course:
    """A training by batches, under way: `position` batches of its `epoch` are done, and gave `losses`."""

    def __init__(self, task: Task, settings: Settings, params: Params, start: Start | None) -> None:
        start = start or Start(None, 0)
        self.epoch, self.position, self.earlier, self.limit = start.epoch, start.position, start.losses, start.limit
        self.task, self.settings = task, settings
        n = task.size
        self.sizes = [min(settings.batch_size, n - first) for first in range(0, n, settings.batch_size)]
        self.before = start.updates - self.epoch * len(self.sizes) - self.position
        step, self.carry, self.params_in = steps.make_step(task, settings, params, start.slots)
        key = steps.kind(task, settings)
        self.run = task.backend.loop(step, key)
        self.padding = steps.padding(task, settings.batch_size)
        self.at_zero = zero_loss(task) if self.epoch == 0 else math.nan
        self.losses: list[Array] = []
        self.rates: list[float] = []

    @property
    def first(self) -> int:
        """How many updates were before this epoch."""
        return self.before + self.epoch * len(self.sizes)

    def advance(self, rng: steps.Draws, watched: Losses, most: int | None) -> Iterator[None]:
        """The rest of the epoch, from its draws on, coming back as often as it may be stopped."""
        task, settings, batches = self.task, self.settings, len(self.sizes)
        keys = steps.dropout_keys(task, batches, rng)
        order = steps.order(task, settings, rng, self.padding)
        planned = self.before + settings.epochs * batches
        self.rates = [settings.schedule(self.first + t, planned, watched) for t in range(batches)]
        tables = keys, *steps.numbers(task, settings, self.first, self.rates)
        groups = steps.groups(task, settings, order, tables, batches, self.padding)
        for carry, loss in steps.chained(self.run, self.carry, groups, self.position, most):
            self.carry = carry
            self.losses.append(loss)
            self.position += math.prod(loss.shape)
            yield

    def standing(self) -> tuple[Params, Start]:
        """Parameters, and where another training goes on from here; the next update may consume both."""
        new = self.task.backend.outputs_to_host(self.losses) if self.losses else np.asarray([])
        found = np.concatenate([self.earlier, new]) if len(self.earlier) else new
        if self.epoch == 0:
            self.limit = highest_loss(self.at_zero, *map(float, found[:1]))
        params = self.params_in(self.carry)
        slots = steps.slots_of(self.task, self.carry, params)
        return params, Start(slots, self.first + self.position, self.epoch, self.position, found, self.limit)

    def close(self) -> Epoch:
        """The epoch, whole or not; what comes next is another."""
        params, start = self.standing()
        mean = mean_loss(np.asarray(start.losses), self.sizes, self.epoch, self.limit)
        if start.position == len(self.sizes):
            start = Start(start.slots, start.updates, self.epoch + 1, limit=self.limit)
        found = Epoch(params, mean, self.rates[self.position - 1], start)
        self.epoch, self.position, self.earlier, self.losses = self.epoch + 1, 0, (), []
        return found


def by_batch(
    task: Task,
    settings: Settings,
    params: Params,
    rng: steps.Draws,
    watched: Losses,
    start: Start | None = None,
    pauses: Pauses | None = None,
) -> Iterator[Epoch]:
    """Epochs of a first-order optimizer; Ctrl-C ends them after the updates so far, which are an epoch too.

    Not so where they are saved, for they will be in the epoch that goes on.
    """
    course = Course(task, settings, params, start)
    while course.epoch < settings.epochs:
        drawn = None if pauses is None else pauses.drawn()
        interrupted: list[int] = []
        try:
            with interrupts.held(signal.SIGINT) as interrupted:
                for _ in course.advance(rng, watched, None if pauses is None else pauses.most):
                    if pauses is not None:
                        _pause(course, pauses, drawn)
                    if interrupted or (pauses is not None and pauses.received):
                        break
        except KeyboardInterrupt:
            interrupted = [signal.SIGINT]
        if pauses is not None and _ends_within(course, pauses):  # saved
            raise KeyboardInterrupt
        if course.position:
            yield course.close()
        if interrupted or (pauses is not None and pauses.received):
            raise KeyboardInterrupt


def _ends_within(course: Course, pauses: Pauses) -> bool:
    """Whether a signal ends the training here: an epoch that is all done gets its figures first, but by SIGTERM.

    That ends it too where one batch is all, for its loss says how good the weights before it were.
    """
    within, batches = course.position < len(course.sizes), len(course.sizes)
    return bool(pauses.received) and (within or (batches > 1 and signal.SIGTERM in pauses.received))


def _pause(course: Course, pauses: Pauses, drawn: Any) -> None:
    """Save, if it is time or the end; the end of an epoch is saved when its figures are known."""
    within = course.position < len(course.sizes)
    if _ends_within(course, pauses) or (within and pauses.due(course.first + course.position)):
        params, start = course.standing()
        mean_loss(np.asarray(start.losses), course.sizes, course.epoch, course.limit)
        pauses.save(params, start, drawn)


def by_full_batch(task: Task, settings: Settings, params: Params, start: Start | None = None) -> Iterator[Epoch]:
    """Epochs of L-BFGS: one iteration over all rows each."""
    net, xp, backend = task.net, task.net.xp, task.backend
    assert settings.optimizer.full_batch
    ravel = backend.compile(partial(flat.ravel, xp), "ravel")
    unravel = backend.compile(partial(flat.unravel, xp), "unravel")
    as_batch, rows = steps.all_rows(task)

    def objective(x: Array, like: Params, rows: Any, l2: Any, l1: Any) -> tuple[Array, Array]:
        at, batch, penalised = flat.unravel(xp, x, like), as_batch(rows), net._replace(l2=l2, l1=l1)
        loss, gradients = network.loss_and_gradients(penalised, at, batch.X, batch.Y, batch.weights, None)
        return loss, flat.ravel(xp, gradients)

    compiled = backend.compile(objective, None if task.key is None else ("L-BFGS", steps.formulas(task)))

    def evaluate(x: Array) -> tuple[float, Array]:
        loss, gradient = compiled(x, params, rows, net.l2, net.l1)
        return float(loss), gradient

    start = start or Start(None, 0)
    minimizer = quasi_newton.Minimizer(xp, settings.optimizer, evaluate, ravel(params), start.slots)
    limit = highest_loss(zero_loss(task), minimizer.f) if start.slots is None else start.limit
    for epoch in range(start.epoch, settings.epochs):
        mean_loss(np.asarray([minimizer.f]), [1], epoch, limit)
        try:
            converged = minimizer.advance()
        except OverflowError as reason:
            text = f"`loss` must have a finite slope; got none in epoch {epoch + 1}: {reason}. {REMEDY}"
            raise DivergenceError(text) from reason
        end = Start(minimizer.state, minimizer.evaluations, epoch + 1, limit=limit)
        yield Epoch(unravel(minimizer.x, params), minimizer.f, minimizer.length, end, converged)
        if converged:
            return
