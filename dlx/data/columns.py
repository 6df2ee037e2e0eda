"""Columns of a table that hold no numbers, and how to convert each. This only serves the texts of errors."""

from __future__ import annotations

import datetime
from typing import Any, NamedTuple

import numpy as np

from dlx.data import labels

MOST_NAMED = 3  # columns in one error
MOST_READ = 100_000  # values of a column
ENCODE = "encode it as numbers, for example with scikit-learn's OneHotEncoder or pandas.get_dummies"


class Odd(NamedTuple):
    """What a column or an array holds instead of numbers, and the remedy, both as an error states them."""

    got: str
    remedy: str


class _Kind(NamedTuple):
    """What a column `holds`, how to `mend` it, and whether NumPy can convert it by itself, if it is not `mixed`."""

    holds: str
    mend: str
    mixed: bool = True


def column_names(X: Any) -> list[Any] | None:
    """The column names of a table of pandas, polars or PyArrow; None for anything else."""
    names = getattr(X, "column_names", None)
    names = getattr(X, "columns", None) if names is None else names
    return None if names is None or not hasattr(X, "shape") else list(names)


def odd(X: Any, name: str, mixed_alone: bool = False) -> Odd | None:
    """The columns of `X` that hold no numbers; None if all hold numbers.

    With `mixed_alone` also None if NumPy can convert all of them by itself.
    """
    names = column_names(X)
    table = X if names is not None else np.asarray(X)
    if getattr(table, "ndim", 2) != 2 or not all(table.shape):
        return None
    kinds = [
        _kind(_column(table, k), name if names is None else f"{name}[{names[k]!r}]") for k in range(table.shape[1])
    ]
    not_numbers = [(k, kind) for k, kind in enumerate(kinds) if kind is not None]
    if not not_numbers or (mixed_alone and not any(kind.mixed for _, kind in not_numbers)):
        return None
    mixed = [(k, kind) for k, kind in not_numbers if kind.mixed] or not_numbers
    kind = mixed[0][1]
    if names is None and (len(mixed) == len(kinds) or not kind.mixed):
        return Odd(f"dtype {table.dtype}", f"It holds {kind.holds}: {kind.mend}.")
    first, *rest = [repr(k if names is None else names[k]) for k, _ in mixed]
    also = f" (and in {', '.join(rest[: MOST_NAMED - 1])}{', ...' if len(rest) >= MOST_NAMED else ''})" if rest else ""
    return Odd(f"{kind.holds} in column {first}{also}", f"{kind.mend[0].upper()}{kind.mend[1:]}.")


def hold_times(X: Any) -> bool:
    """Whether an array, or a column of a table, holds dates or times, which a conversion could take for numbers."""
    if column_names(X) is None:
        return getattr(getattr(X, "dtype", None), "kind", "") in ("M", "m")
    dtypes = getattr(getattr(X, "schema", None), "types", None)  # of PyArrow
    return any(_is_time(dtype) for dtype in (getattr(X, "dtypes", ()) if dtypes is None else dtypes))


def _is_time(dtype: Any) -> bool:
    """Whether a dtype of NumPy, pandas, polars or PyArrow is one of dates or times."""
    if getattr(dtype, "kind", "") in ("M", "m"):  # of NumPy and pandas
        return True
    temporal = getattr(dtype, "is_temporal", None)  # of polars
    return bool(temporal()) if callable(temporal) else str(dtype).startswith(("timestamp", "date", "time", "duration"))


def _column(table: Any, k: int) -> Any:
    """Column k of a table or an array."""
    if hasattr(table, "iloc"):
        return table.iloc[:, k]
    return table.column(k) if hasattr(table, "column_names") else table[:, k]


def _kind(column: Any, name: str) -> _Kind | None:
    """What a column holds instead of numbers; None for numbers. Remedies call the column `name`."""
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
    present = [(row, value) for row, value in enumerate(values.tolist()) if not labels.is_missing(value)]
    kinds = {type(value) for _, value in present}
    then = ", then fill what is missing" if len(present) < len(values) else ""
    as_float = f"{name}.astype(float)" if _has_astype(column) else f"{name}.to_numpy().astype(float)"
    if values.dtype.kind in "biuf" or labels.real(values.astype(object)) is not None:
        return _Kind(f"numbers of dtype {dtype}", f"convert them with {as_float}{then}", mixed=False)
    others = ((row, value) for row, value in present if not isinstance(value, bool | int | float))
    row, first = next(others, (None, None))
    if row is None:
        return _Kind(f"numbers of dtype {dtype} that no float holds", f"scale them, or make {name} floats")
    at = f" ({first!r} at row {row})"
    if isinstance(first, datetime.date | datetime.timedelta):
        return _Kind(f"times{at}", f"make numbers of them, for example pandas.to_datetime({name}).astype('int64')")
    if all(issubclass(kind, str) for kind in kinds) and _share_of_numbers(present) == 1.0:
        return _Kind(f"numbers as text{at}", f"convert them with {as_float}{then}", mixed=False)
    if isinstance(first, str) and _share_of_numbers(present) > 0.5:
        row, first = next((row, value) for row, value in present if not labels.spells_number(value))
        mend = f"convert them with pandas.to_numeric({name}, errors='coerce'), then fill what is missing"
        return _Kind(f"numbers with {first!r} at row {row}", mend)
    if isinstance(first, str):
        return _Kind(f"text{at}", ENCODE)
    return _Kind(f"objects of {type(first).__name__}{at if len(at) < 60 else ''}", ENCODE)


def _has_astype(column: Any) -> bool:
    """Whether a column has astype: NumPy's and pandas' columns have it, those of polars and PyArrow do not."""
    return hasattr(column, "astype")


def _share_of_numbers(values: list[tuple[int, Any]]) -> float:
    """The share of values that are numbers or spell one. The list holds (row, value)."""
    are_numbers = [labels.spells_number(value) for _, value in values[:MOST_READ]]
    return sum(are_numbers) / len(are_numbers)
