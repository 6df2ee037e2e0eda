"""Checks that the working dtype can hold the numbers of a user, which would otherwise overflow there, or become 0.

Such a number is refused by its name before any work. It would make the loss non-finite, and the advice that a
`DivergenceError` gives, a lower learning rate, would not help.
"""

from __future__ import annotations

import functools
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dlx import checks, schedules
from dlx.activations import Activation
from dlx.host import HostArray
from dlx.losses import Loss
from dlx.training.steps import Settings

MAY_NOT_VANISH = ("eps", "width", "q", "clip_norm", "clip_value")  # divisors, and limits that may not become 0


def require(name: str, value: float, dtype: str, public_name: str | None = None) -> float:
    """Return `value` if the working dtype holds it. Errors call it `public_name`, if that differs from `name`."""
    least, most = _limits(dtype)
    if value > most or (0 < value < least and name in MAY_NOT_VANISH):
        rule = f"fit {dtype}, whose numbers are {least:.2g} to {most:.2g}"
        remedy = "Use one of these." if dtype == "float64" else "Use one of these, or pass dtype='float64'."
        checks.reject(public_name or name, rule, f"{value:g}", remedy)
    return value


@functools.cache
def _limits(dtype: str) -> tuple[float, float]:
    """The smallest normal and the largest number, as Python floats: a NumPy scalar would narrow what it meets."""
    return float(np.finfo(dtype).tiny), float(np.finfo(dtype).max)


def require_all(settings: Mapping[str, Any], dtype: str, public_names: Mapping[str, str]) -> None:
    """Require that the working dtype holds all numbers among these settings."""
    for name, setting in settings.items():
        for value in setting if isinstance(setting, Sequence) and not isinstance(setting, str) else [setting]:
            if isinstance(value, numbers.Real) and not isinstance(value, bool):
                require(name, float(value), dtype, public_names.get(name))


def in_dtype(
    dtype: str,
    settings: Settings,
    hidden: Sequence[Activation],
    loss: Loss,
    public_names: Mapping[str, str] | None = None,
    **others: float,
) -> Settings:
    """The settings of a training, once the working dtype holds their numbers, those of its parts, and `others`.

    The learning rates are checked one by one as the schedule gives them. `public_names` maps the names of settings to
    those by which the user knows them, if they differ.
    """
    public_names = public_names or {}
    limits = {"clip_norm": settings.clip_norm, "clip_value": settings.clip_value, **others}
    for part in (limits, settings.optimizer.constants, loss.settings, *(activation.settings for activation in hidden)):
        require_all(part, dtype, public_names)
    schedule = settings.schedule

    def checked(step: int, steps: int, losses: Sequence[float]) -> float:
        return require("learning_rate", schedule(step, steps, losses), dtype, public_names.get("learning_rate"))

    if isinstance(schedule, schedules.Named):
        checked(0, 100, [])  # only of dlx's own schedules: a user's function may count its calls
        return settings._replace(schedule=schedules.Named(checked, schedule.name, schedule.settings))
    return settings._replace(schedule=checked)


def product_of_weights(weights: HostArray, scale: float) -> HostArray:
    """The products of row weights and class weights, multiplied by the `scale` that was divided out of them."""
    product: HostArray = weights * scale
    if not np.isfinite(product).all():
        got, remedy = "a product that is not", "Divide the weights of the classes by the largest of them."
        checks.reject("class_weight", "be finite when multiplied by sample_weight", got, remedy)
    return product


def l2_of_alpha(alpha: float, total: float, dtype: str) -> float:
    """The rate that `fit` calls l2: scikit-learn's alpha divided by the `total` of the rows' weights."""
    l2, most = float(alpha) / total, _limits(dtype)[1]
    if l2 > most and total >= 1.0:
        remedy = "Use 1e-4, for example."
        checks.reject("alpha", f"fit {dtype}, divided by the sum of the rows' weights, {total:g}", alpha, remedy)
    if l2 > most:
        rule, remedy = "have a sum that alpha can be divided by", "Scale the weights to a mean of 1, or pass alpha=0."
        checks.reject("sample_weight", rule, f"{total:g}, class weights included", remedy)
    return l2
