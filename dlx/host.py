"""NumPy arrays from any object, and the errors for objects that give none."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dlx.checks import a_kind_of, reject, shown

HostArray = np.ndarray[Any, Any]
READABLE = ("__array__", "__array_interface__", "__array_struct__", "__buffer__", "toarray")  # the last is SciPy's
TO_HOST_METHODS = ("compute", "todense")  # of lazy arrays, and of sparse ones


def as_numpy(x: Any, name: str) -> HostArray:
    """`x` as a NumPy array; where NumPy cannot read it, the error states the reason that NumPy or the object gives."""
    try:
        return np.asarray(x)
    except MemoryError:
        raise
    except Exception as reason:  # __array__ may raise anything
        if isinstance(reason, ValueError) and "inhomogeneous" in str(reason):
            rule, got, remedy = "rows of one length", "rows of different lengths", "Pad or drop the odd ones."
        else:
            rule = "what NumPy can read as one"
            got = f"{a_kind_of(x)}, which raises {type(reason).__name__}: {reason}".rstrip(".")
            has_method = any(hasattr(x, method) for method in TO_HOST_METHODS)
            remedy = f"Pass {way_to_host(x, name)}." if has_method else f"Pass what numpy.asarray({name}) takes."
        reject(name, f"be an array, or {rule}", got, remedy, TypeError if isinstance(reason, TypeError) else ValueError)


def way_to_host(x: Any, name: str) -> str:
    """The text of an expression that turns `x` into a NumPy array; lazy and sparse arrays have methods of their own."""
    method = next((method for method in TO_HOST_METHODS if hasattr(x, method)), None)
    return f"{name}.{method}()" if method else f"dlx.backend.backend_of({name}).to_host({name})"


def require_rows(x: Any, name: str) -> None:
    """Raise where `x` is no array, table or list; the error says how to make one of it."""
    if isinstance(x, str | bytes | bytearray | os.PathLike):
        remedy = "Read the file first, for example with pandas.read_csv or numpy.load."
    elif x is None:
        remedy = f"Pass the data as `{name}`."
    elif callable(getattr(x, "collect", None)):
        remedy = f"Pass {name}.collect(), which computes it."
    elif any(hasattr(x, attribute) for attribute in READABLE):
        return
    elif isinstance(x, Mapping):
        remedy = f"Pass pandas.DataFrame({name}), whose columns are its entries."
    elif isinstance(x, set | frozenset):
        remedy = f"A set has no order: pass a list, sorted({name}) for example."
    elif isinstance(x, Iterator):
        remedy = f"Pass list({name}), or numpy.stack(list({name})) where it gives arrays."
    elif isinstance(x, Sequence) or not hasattr(x, "__len__"):
        return
    elif hasattr(x, "__iter__") and not hasattr(x, "__getitem__"):
        remedy = f"Put together what it gives: numpy.concatenate([batch[0] for batch in {name}]) for pairs (X, y)."
    else:
        remedy = f"Put together what it holds: numpy.stack([row[0] for row in {name}]) for pairs (x, y)."
    got = shown(x) if x is None or isinstance(x, str) else a_kind_of(x)
    reject(name, "be an array, a data frame, a SciPy matrix or a list of rows", got, remedy, TypeError)


def staged(
    place: Callable[[HostArray], Any], fill: Callable[[HostArray, slice], Any], shape: tuple[int, ...], dtype: str
) -> Callable[[], Any]:
    """A function that brings the array which ``fill(out, rows)`` writes on the host to its place."""

    def bring() -> Any:
        host = np.empty(shape, dtype)
        fill(host, slice(None))
        return place(host)

    return bring


def row_number_dtype(n: int) -> str:
    """The dtype of row numbers below n."""
    return "int32" if n < 2**31 else "int64"
