"""scikit-learn's rules for the end of a training and for its learning rate; they look at numbers only."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dlx.schedules import Schedule

SMALLEST_RATE, FACTOR = 1e-6, 0.2  # an adaptive rate is multiplied by the factor until it is this small


class Plateau:
    """Counts the epochs in a row whose figure, of which more is better, is below the best one so far plus `tol`.

    More than `patience` of them end the training. If `adaptive`, they divide the learning rate by 5 instead, until it
    is at its smallest. A figure that is nan never counts as an improvement. The state between calls is `count`, `best`
    and `rate`.

    Examples
    --------
    >>> rule = Plateau(tol=0.1, patience=1, rate=1.0)
    >>> [rule.ends(figure) for figure in (0.5, 0.55, 0.7, 0.7, 0.7)]
    [False, False, False, False, True]
    """

    def __init__(
        self,
        tol: float,
        patience: float,
        rate: float,
        adaptive: bool = False,
        best: float = -math.inf,
        count: int = 0,
    ) -> None:
        self.tol, self.patience, self.rate, self.adaptive = tol, patience, rate, adaptive
        self.best, self.count = best, count

    def ends(self, figure: float) -> bool:
        """Whether the training ends with an epoch that has this figure."""
        self.count = 0 if figure >= self.best + self.tol else self.count + 1
        if figure > self.best:
            self.best = figure
        if self.count <= self.patience:
            return False
        if not self.adaptive or self.rate <= SMALLEST_RATE:
            return True
        self.rate, self.count = self.rate * FACTOR, 0
        return False

    def schedule(self, step: int, steps: int, losses: Sequence[float]) -> float:
        """The present rate, as a schedule."""
        return self.rate


def by_samples(rate: float, power: float, before: int, per_epoch: int) -> Schedule:
    """The schedule "invscaling" of scikit-learn: rate / (1 + samples so far)^power, constant within an epoch.

    `before` is the number of samples in earlier trainings, `per_epoch` that in an epoch.
    """

    def schedule(step: int, steps: int, losses: Sequence[float]) -> float:
        return float(rate / (1 + before + len(losses) * per_epoch) ** power)

    return schedule


def over(schedule: Schedule, planned: int) -> Schedule:
    """The schedule of a training of `planned` updates that is done in parts; after these the last rate stays."""

    def part(step: int, steps: int, losses: Sequence[float]) -> float:
        return schedule(min(step, planned - 1), planned, losses)

    return part


def flat(losses: Sequence[float], relative: float) -> bool:
    """Whether the last loss is lower by no more than the share `relative` of its size, or of 1 if that is larger.

    Source: the rule "ftol" of L-BFGS-B, Byrd, Lu, Nocedal and Zhu 1995.
    """
    if len(losses) < 2:
        return False
    before, now = losses[-2:]
    return before - now <= relative * max(abs(before), abs(now), 1.0)
