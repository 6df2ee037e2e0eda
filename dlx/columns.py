"""Which columns of a table hold no numbers, and what makes numbers of each: for the text of an error alone."""

from __future__ import annotations

import datetime
import itertools
from typing import Any, NamedTuple

import numpy as np

from dlx import labels

HostArray = np.ndarray[Any, Any]
MOST_NAMED = 3
ENCODE = "encode it as numbers, for example with scikit-learn's OneHotEncoder or pandas.get_dummies"


class Odd(NamedTuple):
    """What was got in place of numbers, and what to do."""

    got: str
    remedy: str


class _Kind(NamedTuple):
    """What a column holds, what makes numbers of it, and whether NumPy can do that by itself."""

    holds: str
    mend: str
    mixed: bool = True


def names_of(X: Any) -> list[Any] | None:
    """The names of a table's columns, of pandas, polars or PyArrow; None for what has none."""
    names = getattr(X, "column_names", None)
    names = getattr(X, "columns", None) if names is None else names
    return None if names is None or not hasattr(X, "shape") else list(names)


def odd(X: Any, name: str, mixed_alone: bool = False) -> Odd | None:
    """The columns of `X` that hold no numbers; None where all do, or where NumPy makes numbers of them, if so asked."""
    names = names_of(X)
    table = X if names is not None else np.asarray(X)
    if getattr(table, "ndim", 2) != 2 or not all(table.shape):
        return None
    kinds = [
        _kind(_column(table, k), name if names is None else f"{name}[{names[k]!r}]") for k in range(table.shape[1])
    ]
    found = [(k, kind) for k, kind in enumerate(kinds) if kind is not None]
    if not found or (mixed_alone and not any(kind.mixed for _, kind in found)):
        return None
    mixed = [(k, kind) for k, kind in found if kind.mixed] or found
    kind = mixed[0][1]
    if names is None and (len(mixed) == len(kinds) or not kind.mixed):
        return Odd(f"dtype {table.dtype}", f"It holds {kind.holds}: {kind.mend}.")
    first, *rest = [repr(k if names is None else names[k]) for k, _ in mixed]
    also = f" (and in {', '.join(rest[: MOST_NAMED - 1])}{', ...' if len(rest) >= MOST_NAMED else ''})" if rest else ""
    return Odd(f"{kind.holds} in column {first}{also}", f"{kind.mend[0].upper()}{kind.mend[1:]}.")


def hold_times(X: Any) -> bool:
    """Whether a table has columns of dates or times that NumPy would read as numbers, as polars' are."""
    dtypes = getattr(X, "dtypes", None) if names_of(X) is not None else None
    return isinstance(dtypes, list) and any(
        callable(each := getattr(d, "is_temporal", None)) and each() for d in dtypes
    )


def _column(table: Any, k: int) -> Any:
    """The column of that number."""
    if hasattr(table, "iloc"):
        return table.iloc[:, k]
    return table.column(k) if hasattr(table, "column_names") else table[:, k]


def _kind(column: Any, name: str) -> _Kind | None:
    """What a column holds in place of numbers, None for numbers; `name` is an expression for it."""
    values = np.asarray(column)
    dtype = getattr(column, "dtype", values.dtype)
    kind = getattr(dtype, "kind", values.dtype.kind)
    if kind in "biuf":
        return None
    if values.dtype.kind == "c":
        return _Kind("complex numbers", f"pass {name}.real and {name}.imag as columns")
    if values.dtype.kind in "Mm":
        days = f"({name} - {name}.min()) / numpy.timedelta64(1, 'D')"
        days = f"{name}.to_physical()" if hasattr(column, "to_physical") else days
        return _Kind("times", f"make numbers of them, for example {days}")
    there = [(row, each) for row, each in enumerate(values.tolist()) if not labels.missing(each)]
    kinds = {type(each) for _, each in there}
    if values.dtype.kind in "biuf" or labels.real(values.astype(object)) is not None:
        missing = ", then fill what is missing" if len(there) < len(values) else ""
        return _Kind(f"numbers of dtype {dtype}", f"convert them with {name}.astype(float){missing}", mixed=False)
    row, first = next((row, each) for row, each in there if not isinstance(each, bool | int | float))
    at = f" ({first!r} at row {row})"
    if isinstance(first, datetime.date | datetime.timedelta):
        return _Kind(f"times{at}", f"make numbers of them, for example pandas.to_datetime({name}).astype('int64')")
    if all(issubclass(each, str) for each in kinds) and _written(there):
        return _Kind(f"numbers as text{at}", f"convert them with {name}.astype(float)", mixed=False)
    if isinstance(first, str):
        return _Kind(f"text{at}", ENCODE)
    return _Kind(f"objects of {type(first).__name__}{at if len(at) < 60 else ''}", ENCODE)


def _written(there: list[tuple[int, Any]]) -> bool:
    """Whether texts are numbers, all of them."""
    try:
        return all(float(each) is not None for _, each in itertools.islice(there, 100_000))
    except ValueError:
        return False
