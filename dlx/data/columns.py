"""Which columns of a table hold no numbers, and what makes numbers of each: for the text of an error alone."""

from __future__ import annotations

import datetime
from typing import Any, NamedTuple

import numpy as np

from dlx.data import labels

HostArray = np.ndarray[Any, Any]
MOST_NAMED = 3
MOST_READ = 100_000  # values of a column
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
    """Whether an array, or a table in one of its columns, holds dates or times, which others read as numbers."""
    if names_of(X) is None:
        return getattr(getattr(X, "dtype", None), "kind", "") in ("M", "m")
    dtypes = getattr(getattr(X, "schema", None), "types", None)  # of PyArrow
    return any(_is_time(each) for each in (getattr(X, "dtypes", ()) if dtypes is None else dtypes))


def _is_time(dtype: Any) -> bool:
    if getattr(dtype, "kind", "") in ("M", "m"):  # of NumPy and pandas
        return True
    temporal = getattr(dtype, "is_temporal", None)  # of polars
    return bool(temporal()) if callable(temporal) else str(dtype).startswith(("timestamp", "date", "time", "duration"))


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
        if not _has_astype(column):
            days = f"{name}.to_physical()" if hasattr(column, "to_physical") else f"{name}.to_numpy().astype('int64')"
        return _Kind("times", f"make numbers of them, for example {days}")
    there = [(row, each) for row, each in enumerate(values.tolist()) if not labels.missing(each)]
    kinds = {type(each) for _, each in there}
    then = ", then fill what is missing" if len(there) < len(values) else ""
    as_float = f"{name}.astype(float)" if _has_astype(column) else f"{name}.to_numpy().astype(float)"
    if values.dtype.kind in "biuf" or labels.real(values.astype(object)) is not None:
        return _Kind(f"numbers of dtype {dtype}", f"convert them with {as_float}{then}", mixed=False)
    odd = ((row, each) for row, each in there if not isinstance(each, bool | int | float))
    row, first = next(odd, (None, None))
    if row is None:
        return _Kind(f"numbers of dtype {dtype} that no float holds", f"scale them, or make {name} floats")
    at = f" ({first!r} at row {row})"
    if isinstance(first, datetime.date | datetime.timedelta):
        return _Kind(f"times{at}", f"make numbers of them, for example pandas.to_datetime({name}).astype('int64')")
    if all(issubclass(each, str) for each in kinds) and _written(there) == 1.0:
        return _Kind(f"numbers as text{at}", f"convert them with {as_float}{then}", mixed=False)
    if isinstance(first, str) and _written(there) > 0.5:
        row, first = next((row, each) for row, each in there if not labels.spells_number(each))
        mend = f"convert them with pandas.to_numeric({name}, errors='coerce'), then fill what is missing"
        return _Kind(f"numbers with {first!r} at row {row}", mend)
    if isinstance(first, str):
        return _Kind(f"text{at}", ENCODE)
    return _Kind(f"objects of {type(first).__name__}{at if len(at) < 60 else ''}", ENCODE)


def _has_astype(column: Any) -> bool:
    """Whether it converts itself: NumPy's arrays and pandas' columns do, those of polars and PyArrow do not."""
    return hasattr(column, "astype")


def _written(there: list[tuple[int, Any]]) -> float:
    """Which share of the values are numbers, perhaps as texts."""
    some = [labels.spells_number(each) for _, each in there[:MOST_READ]]
    return sum(some) / len(some)
