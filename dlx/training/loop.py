"""The training loop: epochs, validation, stopping, saving. No formula stands here."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from dlx import checks, network
from dlx.backend import Backend
from dlx.network import Layer, Params
from dlx.schedules import Losses
from dlx.training import divergence, epochs, interrupts, steps
from dlx.training.state import History as History
from dlx.training.state import Saver, TrainingState
from dlx.training.steps import Settings, Task

ORDER = ["loss", "training_loss", "validation_loss", "validation_score"]  # of the history, as fit has it
ORDER += ["learning_rate", "seconds"]
WATCHED = ("validation_loss", "training_loss", "loss")  # the first that there is decides what is best


def watched(history: Mapping[str, Any]) -> Any:
    """The losses that decide: those of validation if there are any, else of all training rows, else of the epochs."""
    return next((history[name] for name in WATCHED if name in history), [])


def judges_before(task: Task, settings: Settings) -> bool:
    """Whether an epoch's loss is that of the weights before it, because it is one batch of all rows without dropout."""
    return not settings.optimizer.full_batch and settings.batch_size >= task.size and not any(task.net.dropout)


def measures(task: Task, settings: Settings, validates: bool) -> bool:
    """Whether the loss of all training rows is computed after each epoch, to decide which weights are the best.

    This is so if `patience` watches the training loss, and the epoch's own loss is not that of any one set of weights.
    """
    unknown = not (validates or settings.optimizer.loss_after_epoch or judges_before(task, settings))
    return settings.patience is not None and unknown


def figures(task: Task, settings: Settings, validates: bool) -> list[str]:
    """The names of a training's own figures, in the order of its history."""
    left_out = () if validates else ("validation_loss", "validation_score")
    measured = measures(task, settings, validates)
    return [name for name in ORDER if name not in left_out and (measured or name != "training_loss")]


class Monitor:
    """The record of a training so far: its history, the watched losses, and with `patience` the best weights.

    `before` holds the weights at the beginning of the epoch if the epoch's loss is theirs.
    """

    def __init__(self, task: Task, settings: Settings, start: TrainingState) -> None:
        self.task, self.settings = task, settings
        self.history: History = {} if start.history is None else start.history
        self.watched = Losses(watched(self.history))
        self.best, self.best_epoch = start.best, start.best_epoch
        self.ended, self.limit = start.ended, start.limit
        self.since = time.perf_counter() - start.seconds
        keeps = settings.patience is not None and judges_before(task, settings)
        self.before = _copied(task.backend, start.params) if keeps else None
        self.judged: Params | None = None

    def add(self, epoch: epochs.Epoch, figures: dict[str, float]) -> None:
        """Add an epoch with the figures that were measured after it, and keep its weights if they are the best."""
        now = time.perf_counter() - self.since
        figures = {"loss": epoch.loss, **figures, "learning_rate": epoch.rate, "seconds": now}
        for name, figure in figures.items():
            self.history.setdefault(name, []).append(figure)
        self.watched.append(watched(figures))
        self.limit = self.limit if epoch.end is None else epoch.end.limit
        if self.settings.patience is None:
            return
        copy = partial(_copied, self.task.backend, epoch.params)
        before = None if {"validation_loss", "training_loss"} & figures.keys() else self.before
        if self.best_epoch is None or _is_lower(self.watched[-1], self.watched[self.best_epoch]):
            self.best, self.best_epoch = before or copy(), len(self.watched) - 1
        if before is not None:
            self.before = copy()

    @property
    def out_of_patience(self) -> bool:
        """Whether `patience` epochs have passed without a better one."""
        if self.settings.patience is None or self.best_epoch is None:
            return False
        return len(self.watched) - 1 - self.best_epoch >= self.settings.patience

    def complete(self, state: TrainingState, last: bool) -> TrainingState:
        """The state with what is recorded here, ready to be saved. Raises if it has diverged.

        The `last` state, with which the training ends, is judged on more rows.
        """
        self.limit = state.limit
        if last:
            self.require_good(state.params)
        else:
            divergence.require_good(self.task, state.params, len(self.watched), divergence.GLANCED)
        return state._replace(
            history=self.history,
            best=self.best,
            best_epoch=self.best_epoch,
            seconds=time.perf_counter() - self.since,
            ended=self.ended,
        )

    def require_good(self, params: Params) -> None:
        """Raise if the weights that the training would return, given these last ones, have diverged."""
        returned, done = params if self.best is None else self.best, len(self.watched)
        if returned is self.judged:
            return
        lowest = self.watched[-1 if self.best_epoch is None else self.best_epoch] if done else math.nan
        validated = "validation_loss" in self.history
        if validated:
            divergence.require_good_loss("validation_loss", lowest, done)
        loss_is_theirs = self.best is not None or self.settings.optimizer.loss_after_epoch
        if done and not validated and loss_is_theirs:
            divergence.require_finite_params(self.task, returned, done)
            divergence.require_good_loss("loss", lowest, done, self.limit)
        else:
            divergence.require_good(self.task, returned, done, divergence.JUDGED, self.limit)
        self.judged = returned


def train(
    task: Task,
    settings: Settings,
    params: Params,
    rng: steps.Draws,
    validate: Callable[[Params], dict[str, float]],
    report: Callable[[Params, History], bool],
    start: TrainingState | None = None,
    keep: Callable[[TrainingState], None] | None = None,
    saver: Saver | None = None,
    told: Callable[[tuple[str, bool] | None], None] = lambda path: None,
) -> tuple[Params, History]:
    """Train until the last epoch, until `patience` ends, until `report` returns True, or until Ctrl-C.

    `validate` gives an epoch's figures, and `report` shows the history so far. Returns the last weights, or with
    `patience` the best ones by the watched loss (see `watched` and `measures`), and the history. `start` is a state to
    go on from: one that a `saver` has saved, or one that `keep` was given after an epoch of another training, whose
    optimizer goes on. `params` and `start` are consumed. `told` is given how the steps of each epoch ran.
    """
    start = TrainingState(params, None, 0) if start is None else start._replace(params=params)
    monitor, interrupted = Monitor(task, settings, start), False

    def save(state: TrainingState) -> None:
        nonlocal params
        assert saver is not None
        params = state.params
        saver.save(monitor.complete(state, last=bool(received)))

    with interrupts.deferred(*(() if saver is None else (signal.SIGINT, signal.SIGTERM))) as received:
        saving = None if saver is None else epochs.Saving(saver, save, received)
        if settings.optimizer.full_batch:
            training = epochs.by_full_batch(task, settings, start)
        else:
            training = epochs.by_batch(task, settings, rng, monitor.watched, start, saving)
        try:
            for epoch in () if monitor.ended else training:
                params = epoch.params
                told(epoch.path)
                monitor.add(epoch, validate(params))
                if keep is not None and epoch.end is not None:
                    keep(TrainingState(params, epoch.end.optimizer_state, epoch.end.updates))
                stop = report(params, monitor.history)
                monitor.ended = stop or epoch.last or monitor.out_of_patience
                monitor.since = time.perf_counter()
                if saver is not None and epoch.end is not None and not epoch.end.position:
                    last = monitor.ended or bool(received) or len(monitor.watched) == settings.epochs
                    if last or saver.due(epoch.end.updates, epoch_done=True):
                        state = monitor.complete(epoch.end._replace(drawn=saver.drawn()), last)
                        if monitor.best is None or network.all_finite(task.net.xp, params):  # the best are good by now
                            saver.save(state)
                if monitor.ended:
                    break
                if received:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            interrupted = True
    if interrupted:
        checks.warn(f"training was interrupted after {len(monitor.watched)} epochs; the weights so far are kept.")
    monitor.require_good(params)
    return params if monitor.best is None else monitor.best, monitor.history


def _copied(backend: Backend, params: Params) -> Params:
    return tuple(Layer(backend.copy(W), backend.copy(b)) for W, b in params)


def _is_lower(loss: float, best: float) -> bool:
    """Whether the loss is better than the best so far. Any loss is better than nan."""
    return loss < best or (math.isnan(best) and not math.isnan(loss))
