"""The training loop: epochs, validation, stopping, saving. No formula stands here."""

from __future__ import annotations

import math
import signal
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

from dlx import epochs, interrupts, quasi_newton, steps
from dlx.divergence import require_finite
from dlx.network import Layer, Params
from dlx.steps import Settings, Start, Task

History = dict[str, list[float]]


class Progress(NamedTuple):
    """A training between two updates: all that it takes to go on, to the same bits.

    `drawn` is the generator's state before the draws of the epoch that `start` is in, in which `seconds` have gone by;
    `ended` says that a rule has ended the training before its last epoch.
    """

    params: Params
    start: Start
    history: History
    best: Params | None
    best_epoch: int | None
    seconds: float
    ended: bool
    drawn: Any


class Keeper(Protocol):
    """What saves a training while it runs, and in one epoch at least every `most` updates, if that is a number."""

    most: int | None

    def drawn(self) -> Any:
        """The state of the training's generator."""

    def due(self, updates: int, epoch_done: bool) -> bool:
        """Whether to save now."""

    def save(self, progress: Progress) -> None:
        """Save."""


class Run:
    """What a training has seen so far: its history, the losses it watches, and with `patience` the best weights."""

    def __init__(self, task: Task, settings: Settings, resumed: Progress | None) -> None:
        self.task, self.settings = task, settings
        self.history: History = {} if resumed is None else resumed.history
        self.watched = list(self.history.get("validation_loss", self.history.get("loss", [])))
        self.best, self.best_epoch = (None, None) if resumed is None else (resumed.best, resumed.best_epoch)
        self.ended = resumed is not None and resumed.ended
        self.since = time.perf_counter() - (0.0 if resumed is None else resumed.seconds)

    def add(self, epoch: epochs.Epoch, figures: dict[str, float]) -> None:
        """An epoch's figures, those of the validation among them, and its weights where they are the best."""
        now = time.perf_counter() - self.since
        figures = {"loss": epoch.loss, **figures, "learning_rate": epoch.rate, "seconds": now}
        for name, figure in figures.items():
            self.history.setdefault(name, []).append(figure)
        self.watched.append(figures.get("validation_loss", epoch.loss))
        if self.settings.patience is not None and (
            self.best_epoch is None or _is_lower(self.watched[-1], self.watched[self.best_epoch])
        ):
            copy = self.task.backend.copy
            self.best = tuple(Layer(copy(W), copy(b)) for W, b in epoch.params)
            self.best_epoch = len(self.watched) - 1

    @property
    def out_of_patience(self) -> bool:
        """Whether so many epochs went by without a better one."""
        if self.settings.patience is None or self.best_epoch is None:
            return False
        return len(self.watched) - 1 - self.best_epoch >= self.settings.patience

    def progress(self, params: Params, start: Start, drawn: Any) -> Progress:
        """What to save."""
        require_finite(self.task, params, len(self.watched))
        seconds = time.perf_counter() - self.since
        return Progress(params, start, self.history, self.best, self.best_epoch, seconds, self.ended, drawn)


def train(
    task: Task,
    settings: Settings,
    params: Params,
    rng: steps.Draws,
    validate: Callable[[Params], dict[str, float]],
    report: Callable[[Params, History], bool],
    start: Start | None = None,
    keep: Callable[[Start], None] | None = None,
    keeper: Keeper | None = None,
    resumed: Progress | None = None,
) -> tuple[Params, History]:
    """Epochs until the last, until `patience` ends, until `report` says stop, or until Ctrl-C.

    Consumes `params`. `validate` gives an epoch's figures, `report` shows the history so far. Returns the last
    weights, or with `patience` those of the best epoch by the watched loss: the validation's, or else the training's.
    With `start`, which is consumed too, it goes on where another training ended; `keep` is given the like after
    each epoch. What a `keeper` saves, another call takes as `resumed`, with its `params` and `start`.
    """
    run, interrupted = Run(task, settings, resumed), False

    def pause(reached: Params, start: Start, drawn: Any) -> None:
        nonlocal params
        assert keeper is not None
        params = reached
        keeper.save(run.progress(params, start, drawn))

    with interrupts.held(*(() if keeper is None else (signal.SIGINT, signal.SIGTERM))) as received:
        pauses = None
        if keeper is not None:
            pauses = epochs.Pauses(received, keeper.most, keeper.drawn, partial(keeper.due, epoch_done=False), pause)
        if isinstance(settings.optimizer, quasi_newton.LBFGS):
            each = epochs.by_lbfgs(task, settings, params, start)
        else:
            each = epochs.by_batch(task, settings, params, rng, run.watched, start, pauses)
        try:
            for epoch in () if run.ended else each:
                params = epoch.params
                run.add(epoch, validate(params))
                if keep is not None and epoch.end is not None:
                    keep(Start(epoch.end.slots, epoch.end.updates))
                stop = report(params, run.history)
                run.ended = stop or epoch.last or run.out_of_patience
                run.since = time.perf_counter()
                if keeper is not None and epoch.end is not None and not epoch.end.position:
                    last = run.ended or received or len(run.watched) == settings.epochs
                    if last or keeper.due(epoch.end.updates, epoch_done=True):
                        keeper.save(run.progress(params, epoch.end, keeper.drawn()))
                if run.ended:
                    break
                if received:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            interrupted = True
    if interrupted:
        text = f"training was interrupted after {len(run.watched)} epochs; the weights so far are kept."
        warnings.warn(text, stacklevel=4)
    params = params if run.best is None else run.best
    require_finite(task, params, len(run.watched))
    return params, run.history


def _is_lower(loss: float, best: float) -> bool:
    """Whether the loss is the better one; any is better than nan."""
    return loss < best or (math.isnan(best) and not math.isnan(loss))
