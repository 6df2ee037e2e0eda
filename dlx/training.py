"""The training loop: epochs, validation, stopping, saving. No formula stands here."""

from __future__ import annotations

import math
import signal
import time
import warnings
from collections.abc import Callable
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
    history = {} if resumed is None else resumed.history
    watched = list(history.get("validation_loss", history.get("loss", [])))
    best, best_epoch = (None, None) if resumed is None else (resumed.best, resumed.best_epoch)
    ended, interrupted = resumed is not None and resumed.ended, False
    started = time.perf_counter()

    def progress(params: Params, start: Start, drawn: Any) -> Progress:
        require_finite(task, params, len(watched))
        return Progress(params, start, history, best, best_epoch, time.perf_counter() - started, ended, drawn)

    with interrupts.held(*(() if keeper is None else (signal.SIGINT, signal.SIGTERM))) as received:
        pauses = None
        if keeper is not None:

            def pause(reached: Params, start: Start, drawn: Any) -> None:
                nonlocal params
                params = reached
                keeper.save(progress(params, start, drawn))

            pauses = epochs.Pauses(received, keeper.most, keeper.drawn, lambda u: keeper.due(u, False), pause)
        if isinstance(settings.optimizer, quasi_newton.LBFGS):
            each = epochs.by_lbfgs(task, settings, params, start)
        else:
            each = epochs.by_batch(task, settings, params, rng, watched, start, pauses)
        started = time.perf_counter() - (0.0 if resumed is None else resumed.seconds)
        try:
            for epoch in () if ended else each:
                params = epoch.params
                figures = {"loss": epoch.loss, **validate(params), "learning_rate": epoch.rate}
                figures["seconds"] = time.perf_counter() - started
                for name, figure in figures.items():
                    history.setdefault(name, []).append(figure)
                watched.append(figures.get("validation_loss", epoch.loss))
                if keep is not None and epoch.end is not None:
                    keep(Start(epoch.end.slots, epoch.end.updates))
                if settings.patience is not None and (
                    best_epoch is None or _is_lower(watched[-1], watched[best_epoch])
                ):
                    best = tuple(Layer(*(task.backend.copy(each) for each in layer)) for layer in params)
                    best_epoch = len(watched) - 1
                stop = report(params, history)
                waited = 0 if best_epoch is None else len(watched) - 1 - best_epoch
                ended = stop or epoch.last or (settings.patience is not None and waited >= settings.patience)
                started = time.perf_counter()
                if keeper is not None and epoch.end is not None and not epoch.end.position:
                    last = ended or received or len(watched) == settings.epochs
                    if last or keeper.due(epoch.end.updates, True):
                        keeper.save(progress(params, epoch.end, keeper.drawn()))
                if ended:
                    break
                if received:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            interrupted = True
    if signal.SIGTERM in received:
        signal.raise_signal(signal.SIGTERM)
    if interrupted:
        warnings.warn(
            f"training was interrupted after {len(watched)} epochs; the weights so far are kept.",
            stacklevel=4,
        )
    params = params if best is None else best
    require_finite(task, params, len(watched))
    return params, history


def _is_lower(loss: float, best: float) -> bool:
    """Whether the loss is the better one; any is better than nan."""
    return loss < best or (math.isnan(best) and not math.isnan(loss))
