"""Learning-rate schedules: functions ``rate(step, steps, losses)``, on the host.

constant, step_decay, exponential, inverse_scaling, cosine, warmup_cosine, one_cycle, reduce_on_plateau.

`step` counts the updates made so far from 0, `steps` is how many the fit plans in all, and `losses` holds the
watched loss (validation, or else training) of every epoch so far. Pass one as ``learning_rate``; a user's own is any
such function.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dlx import checks

Schedule = Callable[[int, int, Sequence[float]], float]


class Losses(list[float]):
    """The watched losses of a training, which only grow: a schedule that has seen them may go on from there."""


class Named:
    """A schedule that tells what it is: a checkpoint compares it with another, and a pickle holds no more than that."""

    def __init__(self, schedule: Schedule, name: str, settings: Mapping[str, Any]) -> None:
        self.schedule, self.name, self.settings = schedule, name, settings

    @property
    def told(self) -> dict[str, Any]:
        """Its name and settings, for a checkpoint."""
        return {"name": self.name, **self.settings}

    def __call__(self, step: int, steps: int, losses: Sequence[float]) -> float:
        """The rate."""
        return self.schedule(step, steps, losses)

    def __repr__(self) -> str:
        return checks.called(self.name, self.settings)

    def __reduce__(self) -> tuple[Any, ...]:
        return _made, (self.name, dict(self.settings))


def _made(name: str, settings: Mapping[str, Any]) -> Schedule:
    """The schedule of that name and those settings."""
    found: Schedule = globals()[name](**settings)
    return found


def _named(schedule: Schedule, name: str, /, **settings: float) -> Schedule:
    return Named(schedule, name, settings)


def _rate(name: str, value: float) -> float:
    return checks.number(name, value, low=0, above=True, remedy="Use 1e-3, for example.")


def _fraction(name: str, value: float) -> float:
    return checks.number(name, value, low=0, high=1, remedy="It is a share of the whole fit.")


def _factor(value: float) -> float:
    return checks.number("factor", value, low=0, high=1, above=True, remedy="Use 0.5 to halve the rate.")


def constant(rate: float) -> Schedule:
    """The same rate at every step.

    Examples
    --------
    >>> import dlx
    >>> dlx.schedules.constant(0.1)(5, 10, [])
    0.1
    """
    rate = _rate("rate", rate)

    def schedule(step: int, steps: int, losses: Sequence[float]) -> float:
        return rate

    return _named(schedule, "constant", rate=rate)


def step_decay(rate: float, factor: float = 0.1, every: int = 1000) -> Schedule:
    """rate · factor^⌊step / every⌋; `every` counts updates.

    Examples
    --------
    >>> import dlx
    >>> dlx.schedules.step_decay(1.0, factor=0.5, every=10)(25, 100, [])
    0.25
    """
    rate, factor = _rate("rate", rate), _factor(factor)
    every = checks.integer("every", every, low=1, remedy="It counts updates.")

    def schedule(step: int, steps: int, losses: Sequence[float]) -> float:
        return rate * factor ** (step // every)

    return _named(schedule, "step_decay", rate=rate, factor=factor, every=every)


def exponential(rate: float, factor: float = 0.1, every: int = 1000) -> Schedule:
    """rate · factor^(step / every); `every` counts updates.

    Examples
    --------
    >>> import dlx
    >>> dlx.schedules.exponential(1.0, factor=0.25, every=10)(5, 100, [])
    0.5
    """
    rate, factor = _rate("rate", rate), _factor(factor)
    every = checks.integer("every", every, low=1, remedy="It counts updates.")

    def schedule(step: int, steps: int, losses: Sequence[float]) -> float:
        return float(rate * factor ** (step / every))

    return _named(schedule, "exponential", rate=rate, factor=factor, every=every)


def inverse_scaling(rate: float, power: float = 0.5) -> Schedule:
    """rate / (step + 1)^power.

    scikit-learn's "invscaling" counts samples where this counts updates.

    Examples
    --------
    >>> import dlx
    >>> dlx.schedules.inverse_scaling(1.0)(3, 100, [])
    0.5
    """
    rate = _rate("rate", rate)
    power = checks.number("power", power, low=0, remedy="Use 0.5, for example.")

    def schedule(step: int, steps: int, losses: Sequence[float]) -> float:
        return float(rate / (step + 1) ** power)

    return _named(schedule, "inverse_scaling", rate=rate, power=power)


def _cosine(start: float, end: float, share: float) -> float:
    """Half a cosine wave from `start` (share 0) to `end` (share 1)."""
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * min(share, 1.0)))


def cosine(rate: float, floor: float = 0.0) -> Schedule:
    """Half a cosine wave from `rate` at the first update to `floor` at the end of the fit.

    floor + (rate - floor) (1 + cos(π step / steps)) / 2

    Source: Loshchilov and Hutter 2017, arXiv:1608.03983, without restarts.

    Examples
    --------
    >>> import dlx
    >>> dlx.schedules.cosine(1.0)(50, 100, [])
    0.5
    """
    return warmup_cosine(rate, warmup=0.0, floor=floor)


def warmup_cosine(rate: float, warmup: float = 0.05, floor: float = 0.0) -> Schedule:
    """A line from `floor` up to `rate` over the share `warmup` of the fit, then `cosine` down to `floor`.

    Examples
    --------
    >>> import dlx
    >>> schedule = dlx.schedules.warmup_cosine(1.0, warmup=0.1)
    >>> schedule(5, 100, []), schedule(10, 100, []), schedule(55, 100, [])
    (0.5, 1.0, 0.5)
    """
    rate, warmup = _rate("rate", rate), _fraction("warmup", warmup)
    floor = checks.number("floor", floor, low=0, high=rate, remedy="It is where the rate ends.")

    def schedule(step: int, steps: int, losses: Sequence[float]) -> float:
        rise = warmup * steps
        if step < rise:
            return floor + (rate - floor) * step / rise
        return _cosine(rate, floor, (step - rise) / max(steps - rise, 1))

    return _named(schedule, "warmup_cosine", rate=rate, warmup=warmup, floor=floor)


def one_cycle(rate: float, warmup: float = 0.3, start: float = 25.0, end: float = 1e4) -> Schedule:
    """Half a cosine up from rate/start to `rate` over the share `warmup` of the fit, then half a cosine down to
    rate / (start · end) at its last update.

    Source: Smith and Topin 2018, arXiv:1708.07120, with torch's cosine phases.

    Examples
    --------
    >>> import dlx
    >>> schedule = dlx.schedules.one_cycle(1.0, warmup=0.5, start=10)
    >>> round(schedule(0, 101, []), 6), round(schedule(50, 101, []), 3)
    (0.1, 1.0)
    """
    rate, warmup = _rate("rate", rate), _fraction("warmup", warmup)
    start = checks.number("start", start, low=1, remedy="The first rate is rate/start.")
    end = checks.number("end", end, low=1, remedy="The last rate is rate/(start * end).")
    first, last = rate / start, rate / start / end

    def schedule(step: int, steps: int, losses: Sequence[float]) -> float:
        peak = warmup * steps - 1.0
        if step < peak:
            return _cosine(first, rate, step / peak)
        return _cosine(rate, last, (step - peak) / max(steps - 1.0 - peak, 1.0))

    return _named(schedule, "one_cycle", rate=rate, warmup=warmup, start=start, end=end)


def reduce_on_plateau(
    rate: float, factor: float = 0.1, patience: int = 10, floor: float = 0.0, improvement: float = 1e-4
) -> Schedule:
    """The rate is multiplied by `factor` whenever the watched loss has not improved for more than `patience` epochs.

    An epoch improves if its loss < best - improvement · |best|. A pure function of the losses so far: nothing is kept
    between calls but a memo.

    Parameters
    ----------
    rate : float > 0
    factor : float in (0, 1]
    patience : int >= 0, in epochs
    floor : float >= 0, the smallest rate
    improvement : float in [0, 1), relative

    Source: torch.optim.lr_scheduler.ReduceLROnPlateau, mode "min", relative threshold; for a negative best, as a
    Poisson loss may have, that one lets a higher loss improve.

    Examples
    --------
    >>> import dlx
    >>> schedule = dlx.schedules.reduce_on_plateau(1.0, factor=0.5, patience=1)
    >>> [schedule(0, 0, [3.0, 2.0, 2.0, 2.0][:epochs]) for epochs in range(5)]
    [1.0, 1.0, 1.0, 1.0, 0.5]
    """
    rate, factor = _rate("rate", rate), _factor(factor)
    patience = checks.integer("patience", patience, low=0, remedy="It counts epochs.")
    floor = checks.number("floor", floor, low=0, high=rate, remedy="It is the smallest rate.")
    improvement = checks.number("improvement", improvement, low=0, high=1, below=True, remedy="Use 1e-4.")
    begun = math.inf, 0, rate  # the best loss, how many epochs were since, and the rate
    memo: dict[str, tuple[Sequence[float], int, tuple[float, int, float]]] = {}

    def after(loss: float, best: float, waited: int, current: float) -> tuple[float, int, float]:
        wanted = best * (1.0 - math.copysign(improvement, best))
        best, waited = (loss, 0) if loss < wanted else (best, waited + 1)
        return (best, waited, current) if waited <= patience else (best, 0, max(current * factor, floor))

    def schedule(step: int, steps: int, losses: Sequence[float]) -> float:
        seen, count, state = memo.get("last", ((), 0, begun))
        grown = losses is seen and isinstance(losses, Losses) and len(losses) >= count
        if not grown and [*seen[:count]] != [*losses[:count]]:  # others may have been changed anywhere
            count, state = 0, begun
        for k in range(count, len(losses)):
            state = after(losses[k], *state)
        memo["last"] = losses if isinstance(losses, Losses) else [*losses], len(losses), state
        return state[2]

    return _named(
        schedule, "reduce_on_plateau", rate=rate, factor=factor, patience=patience, floor=floor, improvement=improvement
    )


def get(learning_rate: object) -> Schedule:
    """A schedule from a number or from itself."""
    if callable(learning_rate):
        return learning_rate
    return constant(
        checks.number(
            "learning_rate",
            learning_rate,
            low=0,
            above=True,
            remedy="Use 1e-3, or a schedule such as dlx.schedules.cosine(1e-3).",
        )
    )
