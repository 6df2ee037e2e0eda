"""What NumPy makes of an object, and what to say where it makes nothing of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from dlx.checks import a_kind_of, reject

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
