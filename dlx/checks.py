"""Checks of arguments. All their errors have one form: *`name` must <rule>; got <value>. <What to do>.*"""

from __future__ import annotations

import math
import numbers
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

BETWEEN = ("dlx", "contextlib", "sklearn", "joblib")  # whose calls may lie between the user's and a warning


class BackendNotInstalled(ImportError):
    """The requested array library is not installed."""


class BackendUnavailable(RuntimeError):
    """The array library is installed but cannot compute here; the text states its own reason."""


def reject(name: str, rule: str, got: object, remedy: str, kind: type[Exception] = ValueError) -> NoReturn:
    """Raise an error in the one form that all errors of dlx have; `kind` is its type."""
    raise kind(f"`{name}` must {rule}; got {got}. {remedy}")


def warn(text: str, kind: type[Warning] = UserWarning) -> None:
    """Warn at the line of the user's code that called dlx, however many calls lie between."""
    frame, level = sys._getframe(), 1
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in BETWEEN:
        frame, level = frame.f_back, level + 1
    warnings.warn(text, kind, stacklevel=level)


def number(
    name: str,
    value: Any,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    above: bool = False,
    below: bool = False,
    remedy: str,
) -> float:
    """Check that `value` is a finite number with low <= value <= high, and return it as a float.

    `above` makes the lower bound strict, and `below` the upper bound.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        reject(name, "be a number" + _bounds(low, high, above, below), shown(value), remedy, TypeError)
    result = _as_float(value)
    inside = (low < result if above else low <= result) and (result < high if below else result <= high)
    if not inside:
        reject(name, "be a number" + _bounds(low, high, above, below), value, remedy)
    if math.isinf(result):
        reject(name, "be finite", result, remedy)
    return result


def integer(name: str, value: Any, *, low: int, remedy: str) -> int:
    """Check that `value` is an integer >= `low`, and return it as an int."""
    rule = f"be an integer >= {low}"
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        reject(name, rule, shown(value), remedy, TypeError)
    if value < low:
        reject(name, rule, value, remedy)
    return int(value)


def choice(name: str, value: Any, known: Iterable[str], remedy: str) -> str:
    """Check that `value` is one of the names in `known`, and return it."""
    names = sorted(known)
    rule = f"be one of {', '.join(repr(option) for option in names)}"
    if not isinstance(value, str):
        reject(name, rule, shown(value), remedy, TypeError)
    if value not in names:
        reject(name, rule, repr(value), remedy)
    return value


def checked_tf32(value: Any, selector: str, possible: bool, hint: str) -> bool:
    """Check the argument `tf32` for this backend. `hint` says where TF32 is possible if it is not here."""
    if type(value).__name__ not in ("bool", "bool_"):  # NumPy's bool, too
        reject("tf32", "be True or False", shown(value), "True is for CUDA devices only.", TypeError)
    if value and not possible:
        remedy = f"It is a number format of CUDA devices: {hint}."
        reject("tf32", f"be False on {selector}", value, remedy)
    return bool(value)


def shown(value: Any) -> str:
    """The text of `value` for an error: the value itself if that is short and plain, else the name of its type."""
    if isinstance(value, str):
        return repr(value)
    text = str(value)
    return text if len(text) <= 60 and not set("<\n") & set(text) else type(value).__name__


def a_kind_of(value: object) -> str:
    """The name of the type of `value` with its article: "an iterator"."""
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeio' else 'a'} {name}"


def _as_float(value: Any) -> float:
    """`value` as a float; an integer beyond the largest float becomes infinite."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _bounds(low: float, high: float, above: bool, below: bool) -> str:
    """The words for the finite bounds in an error: " >= 0 and < 1"."""
    lower = "" if low == -math.inf else f" {'>' if above else '>='} {low:g}"
    upper = "" if high == math.inf else f" {'<' if below else '<='} {high:g}"
    return " and".join(part for part in (lower, upper) if part)


def called(name: str, settings: Mapping[str, Any]) -> str:
    """The text of the call that makes an object with this name and these settings: ``adam(b1=0.9, b2=0.999)``."""
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in settings.items())})"


def is_made_by(makers: Mapping[str, Callable[..., Any]], part: Any, beside: Sequence[str] = ()) -> bool:
    """Whether the maker with the name of `part` gives an equal `part` for the settings of `part`.

    Functions are equal if their code and the constants that they enclose are. The fields in `beside` are not compared.
    """
    if not isinstance(part.name, str) or part.name not in makers:
        return False
    try:
        made: Any = makers[part.name](**part.settings)
        return all(_is_same(getattr(made, name), getattr(part, name)) for name in made._fields if name not in beside)
    except (AttributeError, TypeError, ValueError):  # not the settings of this maker, or `part` is of another type
        return False


def _is_same(own: Any, other: Any) -> bool:
    """Whether two values are equal; two functions are if their code and the values that they enclose are."""
    code = getattr(own, "__code__", None)
    if code is None:
        return bool(own == other)
    if code is not getattr(other, "__code__", None):
        return False
    cells = zip(own.__closure__ or (), other.__closure__ or (), strict=True)
    return all(_is_same(a.cell_contents, b.cell_contents) for a, b in cells)
