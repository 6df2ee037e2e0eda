"""Learning-rate schedules: functions ``(step, steps, losses) -> rate`` on the host.

constant, step_decay, exponential, inverse_scaling, cosine, warmup_cosine, one_cycle, reduce_on_plateau.

`step` is the number of updates so far, and `steps` the number that the fit plans in all. `losses` holds the watched
loss of every epoch so far: the validation loss, or without validation the training loss. Pass a schedule, or a number,
as ``learning_rate``. A schedule of your own is any such function.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dlx import checks

Schedule = Callable[[int, int, Sequence[float]], float]


class Losses(list[float]):
    """The watched losses of one training. They are only appended to, so that a schedule need not read them again."""


class Named:
    """A schedule of dlx with its name and settings, which checkpoints compare and pickles hold."""

    def __init__(self, schedule: Schedule, name: str, settings: Mapping[str, Any]) -> None:
        self.schedule, self.name, self.settings = schedule, name, settings

    @property
    def description(self) -> dict[str, Any]:
        """Name and settings in one dict, as checkpoints store and compare them."""
        return {"name": self.name, **self.settings}

    def __call__(self, step: int, steps: int, losses: Sequence[float]) -> float:
        """The learning rate of the update after `step` updates."""
        return self.schedule(step, steps, losses)

    def __repr__(self) -> str:
        return checks.called(self.name, self.settings)

    def __reduce__(self) -> tuple[Any, ...]:
        return _made, (self.name, dict(self.settings))


def _made(name: str, settings: Mapping[str, Any]) -> Schedule:
    """The schedule with this name and these settings. Pickles refer to this function."""
    schedule: Schedule = globals()[name](**settings)
    return schedule


def _as_named(schedule: Schedule, name: str, /, **settings: float) -> Schedule:
    """The function `schedule` with its name and settings."""
    return Named(schedule, name, settings)


def _rate(name: str, value: float) -> float:
    """Check that `value` is a learning rate, > 0."""
    return checks.number(name, value, low=0, above=True, remedy="Use 1e-3, for example.")


def _fraction(name: str, value: float) -> float:
    """Check that `value` is a share of the fit, in [0, 1]."""
    return checks.number(name, value, low=0, high=1, remedy="It is a share of the whole fit.")


def _factor(value: float) -> float:
    """Check that `value` is a factor for the rate, in (0, 1]."""
    return checks.number("factor", value, low=0, high=1, above=True, remedy="Use 0.5 to halve the rate.")


def constant(rate: float) -> Schedule:
    """The same rate at every update.

    rate(step) = rate

    Parameters
    ----------
    rate : float > 0

    Returns
    -------
    schedule

    Raises
    ------
    ValueError, TypeError
        An argument is out of range or of another type.

    Examples
    --------
    >>> import dlx
    >>> dlx.schedules.constant(0.1)(5, 10, [])
    0.1
    """
    rate = _rate("rate", rate)

    def schedule(step: int, steps: int, losses: Sequence[float]) -> float:
        return rate

    return _as_named(schedule, "constant", rate=rate)


def step_decay(rate: float, factor: float = 0.1, every: int = 1000) -> Schedule:
    """A rate that drops by a factor after every so many updates.

    rate(step) = rate · factor^⌊step / every⌋

    Parameters
    ----------
    rate : float > 0
        The rate of the first updates.
    factor : float in (0, 1], default 0.1
    every : int >= 1, default 1000
        The number of updates between two drops.

    Returns
    -------
    schedule

    Raises
    ------
    ValueError, TypeError
        An argument is out of range or of another type.

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

    return _as_named(schedule, "step_decay", rate=rate, factor=factor, every=every)


def exponential(rate: float, factor: float = 0.1, every: int = 1000) -> Schedule:
    """A rate that decays exponentially.

    rate(step) = rate · factor^(step / every)

    Parameters
    ----------
    rate : float > 0
        The rate of the first update.
    factor : float in (0, 1], default 0.1
    every : int >= 1, default 1000
        The number of updates in which the rate falls by `factor`.

    Returns
    -------
    schedule

    Raises
    ------
    ValueError, TypeError
        An argument is out of range or of another type.

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

    return _as_named(schedule, "exponential", rate=rate, factor=factor, every=every)


def inverse_scaling(rate: float, power: float = 0.5) -> Schedule:
    """A rate that falls with a power of the number of updates.

    rate(step) = rate / (step + 1)^power

    Parameters
    ----------
    rate : float > 0
        The rate of the first update.
    power : float >= 0, default 0.5

    Returns
    -------
    schedule

    Raises
    ------
    ValueError, TypeError
        An argument is out of range or of another type.

    Source: the "invscaling" of scikit-learn, which counts samples where this counts updates.

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

    return _as_named(schedule, "inverse_scaling", rate=rate, power=power)


def _cosine(start: float, end: float, share: float) -> float:
    """Half a cosine wave from `start` (share 0) to `end` (share 1)."""
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * min(share, 1.0)))


def cosine(rate: float, floor: float = 0.0) -> Schedule:
    """Half a cosine wave from `rate` at the first update to `floor` at the end of the fit.

    rate(step) = floor + (rate - floor) (1 + cos(π step / steps)) / 2

    Parameters
    ----------
    rate : float > 0
        The rate of the first update.
    floor : float in [0, rate], default 0
        The rate at the end of the fit.

    Returns
    -------
    schedule

    Raises
    ------
    ValueError, TypeError
        An argument is out of range or of another type.

    Source: Loshchilov and Hutter 2017, arXiv:1608.03983, without restarts.

    Examples
    --------
    >>> import dlx
    >>> dlx.schedules.cosine(1.0)(50, 100, [])
    0.5
    """
    return warmup_cosine(rate, warmup=0.0, floor=floor)


def warmup_cosine(rate: float, warmup: float = 0.05, floor: float = 0.0) -> Schedule:
    """A line from `floor` up to `rate`, then half a cosine wave down to `floor`.

    With w = warmup · steps,

    rate(step) = floor + (rate - floor) step / w                                         where step < w
    rate(step) = floor + (rate - floor) (1 + cos(π (step - w) / (steps - w))) / 2        elsewhere

    Parameters
    ----------
    rate : float > 0
        The highest rate.
    warmup : float in [0, 1], default 0.05
        The share of the fit in which the rate rises.
    floor : float in [0, rate], default 0
        The rate at the start of a warmup, and at the end of the fit.

    Returns
    -------
    schedule

    Raises
    ------
    ValueError, TypeError
        An argument is out of range or of another type.

    Source: Loshchilov and Hutter 2017, arXiv:1608.03983, without restarts; the warmup is that of Goyal et al. 2017,
    arXiv:1706.02677.

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

    return _as_named(schedule, "warmup_cosine", rate=rate, warmup=warmup, floor=floor)


def one_cycle(rate: float, warmup: float = 0.3, start: float = 25.0, end: float = 1e4) -> Schedule:
    """Half a cosine wave up to `rate`, then half a cosine wave down to the last update.

    With p = warmup · steps - 1 the rate is rate / start at step 0, `rate` at step p, and rate / (start · end) at step
    steps - 1.

    Parameters
    ----------
    rate : float > 0
        The highest rate.
    warmup : float in [0, 1], default 0.3
        The share of the fit in which the rate rises.
    start : float >= 1, default 25
        The highest rate over the first one.
    end : float >= 1, default 1e4
        The first rate over the last one.

    Returns
    -------
    schedule

    Raises
    ------
    ValueError, TypeError
        An argument is out of range or of another type.

    Source: Smith and Topin 2018, arXiv:1708.07120, with the cosine phases of torch.optim.lr_scheduler.OneCycleLR.

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

    return _as_named(schedule, "one_cycle", rate=rate, warmup=warmup, start=start, end=end)


def reduce_on_plateau(
    rate: float, factor: float = 0.1, patience: int = 10, floor: float = 0.0, improvement: float = 1e-4
) -> Schedule:
    """A rate that drops by a factor whenever the watched loss has not improved for more than `patience` epochs.

    An epoch improves on the best loss so far if its loss < best - improvement · |best|. After a drop,
    rate = max(rate · factor, floor), and the count of epochs starts again.

    Parameters
    ----------
    rate : float > 0
        The rate of the first epochs.
    factor : float in (0, 1], default 0.1
    patience : int >= 0, default 10
        The number of epochs without improvement that leave the rate as it is.
    floor : float in [0, rate], default 0
        The lowest rate.
    improvement : float in [0, 1), default 1e-4
        The smallest relative improvement that counts.

    Returns
    -------
    schedule

    Raises
    ------
    ValueError, TypeError
        An argument is out of range or of another type.

    Numerics: the schedule is a pure function of the losses so far. It only stores the state of its last call to save
    time.

    Source: torch.optim.lr_scheduler.ReduceLROnPlateau with mode "min" and a relative threshold. Where the best loss is
    negative, as a Poisson loss may be, that one counts a higher loss as an improvement.

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
    start = math.inf, 0, rate  # the best loss, the number of epochs since then, and the rate
    memo: dict[str, tuple[Sequence[float], int, tuple[float, int, float]]] = {}

    def after(loss: float, best: float, epochs: int, current: float) -> tuple[float, int, float]:
        threshold = best * (1.0 - math.copysign(improvement, best))
        best, epochs = (loss, 0) if loss < threshold else (best, epochs + 1)
        return (best, epochs, current) if epochs <= patience else (best, 0, max(current * factor, floor))

    def schedule(step: int, steps: int, losses: Sequence[float]) -> float:
        seen, count, state = memo.get("last", ((), 0, start))
        grown = losses is seen and isinstance(losses, Losses) and len(losses) >= count
        if not grown and [*seen[:count]] != [*losses[:count]]:  # another list may have changed anywhere
            count, state = 0, start
        for k in range(count, len(losses)):
            state = after(losses[k], *state)
        memo["last"] = losses if isinstance(losses, Losses) else [*losses], len(losses), state
        return state[2]

    return _as_named(
        schedule, "reduce_on_plateau", rate=rate, factor=factor, patience=patience, floor=floor, improvement=improvement
    )


def get(learning_rate: object) -> Schedule:
    """The schedule for a number, or a function itself."""
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
