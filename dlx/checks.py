"""Errors at the door, all of one form: *`name` must <rule>; got <value>. <What to do>.*"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn


def reject(name: str, rule: str, got: object, remedy: str, kind: type[Exception] = ValueError) -> NoReturn:
    """Raise the one form of error that dlx has."""
    raise kind(f"`{name}` must {rule}; got {got}. {remedy}")


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
    """`value` as a finite float with low <= value <= high (strictly, if `above` or `below`)."""
    rule = "be a number" + _bounds(low, high, above, below)
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        reject(name, rule, shown(value), remedy, TypeError)
    found = _as_float(value)
    inside = (low < found if above else low <= found) and (found < high if below else found <= high)
    if not inside:
        reject(name, rule, value, remedy)
    if math.isinf(found):
        reject(name, "be finite", found, remedy)
    return found


def integer(name: str, value: Any, *, low: int, remedy: str) -> int:
    """`value` as an int of at least `low`."""
    rule = f"be an integer >= {low}"
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        reject(name, rule, shown(value), remedy, TypeError)
    if value < low:
        reject(name, rule, value, remedy)
    return int(value)


def choice(name: str, value: Any, known: Iterable[str], remedy: str) -> str:
    """`value`, if it is one of the names in `known`."""
    names = sorted(known)
    rule = f"be one of {', '.join(repr(each) for each in names)}"
    if not isinstance(value, str):
        reject(name, rule, shown(value), remedy, TypeError)
    if value not in names:
        reject(name, rule, repr(value), remedy)
    return value


def shown(value: Any) -> str:
    """The value itself where that is short and plain, else its type."""
    if isinstance(value, str):
        return repr(value)
    text = str(value)
    return text if len(text) <= 60 and not set("<\n") & set(text) else type(value).__name__


def a_kind_of(value: object) -> str:
    """The name of its type, with an article: an iterator."""
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeio' else 'a'} {name}"


def _as_float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer beyond the largest float
        return math.inf if value > 0 else -math.inf


def _bounds(low: float, high: float, above: bool, below: bool) -> str:
    lower = "" if low == -math.inf else f" {'>' if above else '>='} {low:g}"
    upper = "" if high == math.inf else f" {'<' if below else '<='} {high:g}"
    return " and".join(part for part in (lower, upper) if part)


def called(name: str, settings: Mapping[str, Any]) -> str:
    """The call that makes a part of that name and those settings: ``adam(b1=0.9, b2=0.999)``."""
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in settings.items())})"


def is_made_by(makers: Mapping[str, Callable[..., Any]], part: Any, beside: Sequence[str] = ()) -> bool:
    """Whether `part` is what its maker of that name gives for its settings, to the constants in its formulas.

    The fields `beside` its settings may be any.
    """
    if not isinstance(part.name, str) or part.name not in makers:
        return False
    try:
        made: Any = makers[part.name](**part.settings)
        return all(_is_same(getattr(made, each), getattr(part, each)) for each in made._fields if each not in beside)
    except (AttributeError, TypeError, ValueError):  # settings that are not the maker's, or a part of another kind
        return False


def _is_same(own: Any, other: Any) -> bool:
    """Equality; of functions, that of their code and of what they enclose."""
    code = getattr(own, "__code__", None)
    if code is None:
        return bool(own == other)
    if code is not getattr(other, "__code__", None):
        return False
    cells = zip(own.__closure__ or (), other.__closure__ or (), strict=True)
    return all(_is_same(a.cell_contents, b.cell_contents) for a, b in cells)
