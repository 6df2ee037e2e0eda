"""Where a training stands between two updates, and what saves that. No formula stands here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from dlx.network import Params

History = dict[str, list[float]]


class TrainingState(NamedTuple):
    """A training between two updates: all that it takes to go on from there, to the same bits.

    params
        The parameters. The next update may consume them and the optimizer's state.
    optimizer_state
        What the optimizer keeps between updates: slots, layer by layer, whose layout does not depend on the backend
        (`dlx.optimizers.State`), or that of L-BFGS (`dlx.quasi_newton.MinimizerState`). None before the first update.
    updates
        The number of updates so far, including those of earlier trainings; for L-BFGS, of evaluations of the loss.
    epoch, position
        The number of epochs that this training has finished, and of batches in the next one.
    losses
        The losses of these batches.
    limit
        The largest loss that is not taken for divergence.
    history
        The figures of the finished epochs; None before this training begins.
    best, best_epoch
        With `patience` the parameters with the lowest watched loss, and their epoch.
    seconds
        The seconds since the epoch began.
    ended
        Whether a rule has ended the training before its last epoch.
    drawn
        The state of the generator before the epoch drew from it.
    """

    params: Params
    optimizer_state: Any
    updates: int
    epoch: int = 0
    position: int = 0
    losses: Sequence[float] | np.ndarray[Any, Any] = ()
    limit: float = math.inf
    history: History | None = None
    best: Params | None = None
    best_epoch: int | None = None
    seconds: float = 0.0
    ended: bool = False
    drawn: Any = None


class Saver(Protocol):
    """What saves a training while it runs. It must be asked every `most` updates at least, unless that is None."""

    most: int | None

    def drawn(self) -> Any:
        """The state of the training's generator."""

    def due(self, updates: int, epoch_done: bool) -> bool:
        """Whether to save now."""

    def save(self, state: TrainingState) -> None:
        """Save the state."""
