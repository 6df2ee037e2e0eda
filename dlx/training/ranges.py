"""Numbers of the user's that become numbers of the working dtype: those that would vanish there, or overflow.

They are refused by their names, before any work: a loss that is not finite because of them is not mended by a lower
learning rate.
"""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dlx import checks, schedules
from dlx.activations import Activation
from dlx.losses import Loss
from dlx.training.steps import Settings

HostArray = np.ndarray[Any, Any]
MAY_NOT_VANISH = ("eps", "width", "q", "clip_norm", "clip_value")  # what is divided by, or limits all that is learnt


def require(name: str, value: float, dtype: str, called: str | None = None) -> float:
    """`value` itself, if the working dtype holds it; its rule is that of `name`, and the user knows it as `called`."""
    least, most = _limits(dtype)
    if value > most or (0 < value < least and name in MAY_NOT_VANISH):
        rule = f"fit {dtype}, whose numbers are {least:.2g} to {most:.2g}"
        remedy = "Use one of these." if dtype == "float64" else "Use one of these, or pass dtype='float64'."
        checks.reject(called or name, rule, f"{value:g}", remedy)
    return value


def _limits(dtype: str) -> tuple[float, float]:
    """The least normal and the largest number, as Python's floats: NumPy's own would narrow what they are beside."""
    return float(np.finfo(dtype).tiny), float(np.finfo(dtype).max)


def require_all(settings: Mapping[str, Any], dtype: str, called: Mapping[str, str]) -> None:
    """The same for all numbers among the settings of a part."""
    for name, setting in settings.items():
        for value in setting if isinstance(setting, Sequence) and not isinstance(setting, str) else [setting]:
            if isinstance(value, numbers.Real) and not isinstance(value, bool):
                require(name, float(value), dtype, called.get(name))


def in_dtype(
    dtype: str,
    settings: Settings,
    hidden: Sequence[Activation],
    loss: Loss,
    called: Mapping[str, str] | None = None,
    **others: float,
) -> Settings:
    """How to train, if all of its numbers, those of the parts and `others` by name fit; rates are judged as they come.

    Where the user knows some by other names, `called` tells these.
    """
    called = called or {}
    limits = {"clip_norm": settings.clip_norm, "clip_value": settings.clip_value, **others}
    for part in (limits, settings.optimizer.constants, loss.settings, *(each.settings for each in hidden)):
        require_all(part, dtype, called)
    schedule = settings.schedule

    def judged(step: int, steps: int, losses: Sequence[float]) -> float:
        return require("learning_rate", schedule(step, steps, losses), dtype, called.get("learning_rate"))

    if isinstance(schedule, schedules.Named):
        judged(0, 100, [])  # a user's own may count its calls
        return settings._replace(schedule=schedules.Named(judged, schedule.name, schedule.settings))
    return settings._replace(schedule=judged)


def product(weights: HostArray, scale: float) -> HostArray:
    """Weights of rows and of their classes together, times that of the row of the largest."""
    found: HostArray = weights * scale
    if not np.isfinite(found).all():
        got, remedy = "a product that is not", "Divide the weights of the classes by the largest of them."
        checks.reject("class_weight", "be finite when multiplied by sample_weight", got, remedy)
    return found


def penalty(alpha: float, total: float, dtype: str) -> float:
    """What `fit` calls l2: scikit-learn's alpha divided by the sum of the rows' weights."""
    found, most = float(alpha) / total, _limits(dtype)[1]
    if found > most and total >= 1.0:
        remedy = "Use 1e-4, for example."
        checks.reject("alpha", f"fit {dtype}, divided by the sum of the rows' weights, {total:g}", alpha, remedy)
    if found > most:
        rule, remedy = "have a sum that alpha can be divided by", "Scale the weights to a mean of 1, or pass alpha=0."
        checks.reject("sample_weight", rule, f"{total:g}, class weights included", remedy)
    return found
