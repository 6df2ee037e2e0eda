"""What NumPy makes of an object, and what to say where it makes nothing of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dlx.checks import a_kind_of, reject, shown

READABLE = ("__array__", "__array_interface__", "__array_struct__", "__buffer__", "toarray")  # by NumPy, or SciPy's
OWN_WAYS = ("compute", "todense")  # to the host, of lazy and of sparse arrays


def as_numpy(x: Any, name: str) -> np.ndarray[Any, Any]:
    """`x` as NumPy takes it; where it does not, its reason, or that of the object's own method."""
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
            own = any(hasattr(x, method) for method in OWN_WAYS)
            remedy = f"Pass {way_to_host(x, name)}." if own else f"Pass what numpy.asarray({name}) takes."
        reject(name, f"be an array, or {rule}", got, remedy, TypeError if isinstance(reason, TypeError) else ValueError)


def way_to_host(x: Any, name: str) -> str:
    """An expression that makes a NumPy array of an array: lazy and sparse ones have methods of their own for that."""
    method = next((each for each in OWN_WAYS if hasattr(x, each)), None)
    return f"{name}.{method}()" if method else f"dlx.backend.backend_of({name}).to_host({name})"


def require_rows(x: Any, name: str) -> None:
    """Raise for what is no array, no table and no list, with the way from it to one of them."""
    if isinstance(x, str | bytes | bytearray | os.PathLike):
        remedy = "Read the file first, for example with pandas.read_csv or numpy.load."
    elif x is None:
        remedy = f"Pass the data as `{name}`."
    elif callable(getattr(x, "collect", None)):
        remedy = f"Pass {name}.collect(), which computes it."
    elif any(hasattr(x, each) for each in READABLE):
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
