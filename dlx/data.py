"""Features, checked at the door, and batches of rows."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dlx import checks, columns
from dlx.backend import HOST, Array, Backend, Namespace, host_array, library_of

HostArray = np.ndarray[Any, Any]
KEPT_INTEGERS = ("bool", "uint8", "int8", "int16", "int32", "int64")  # converted a batch at a time
CHECKED_AT_ONCE = 1 << 22  # elements
READABLE = ("__array__", "__array_interface__", "__array_struct__", "__buffer__", "toarray")  # by NumPy, or SciPy's


class Rows(NamedTuple):
    """Samples on the backend.

    X (n, d0); Y (n, K), or (n, 1) class numbers if `classes` (1, K) is there for them to be compared with; weights
    (n, 1) or None.
    """

    X: Array
    Y: Array
    weights: Array | None
    classes: Array | None


class Batch(NamedTuple):
    """Samples in the working dtype: X (n, d0), Y (n, K), weights (n, 1) or None."""

    X: Array
    Y: Array
    weights: Array | None


def dtype_name(x: Any) -> str:
    """The standard's name of an array's dtype: "float32"."""
    return str(x.dtype).rpartition(".")[-1]


def working_dtype(dtype: Any, X: Array) -> str:
    """The dtype to compute in: the one asked for, or else float64 for float64 data and float32 for all other."""
    if dtype is None:
        return "float64" if dtype_name(X) in ("float64", "longdouble", "float128") else "float32"
    name = dtype if isinstance(dtype, str) else getattr(dtype, "__name__", str(dtype).rpartition(".")[-1])
    return checks.choice("dtype", name, ("float32", "float64"), "These are the dtypes of the standard.")


def as_array(x: Any, name: str) -> Array:
    """`x`, if it is an array of some library, else the array that NumPy makes of it; not masked, not sparse."""
    if library_of(x) not in (None, HOST):
        return x
    require_rows_of_numbers(x, name)
    return host_array(_numbers_of(x), name)


def require_rows_of_numbers(x: Any, name: str) -> None:
    """Raise for what is no array, no table and no list, with the way from it to one of them."""
    if isinstance(x, str | bytes | bytearray | os.PathLike):
        remedy = "Read the file first, for example with pandas.read_csv or numpy.load."
    elif x is None:
        remedy = f"Pass the data as `{name}`."
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
    got = checks.shown(x) if x is None or isinstance(x, str) else f"a {type(x).__name__}"
    checks.reject(name, "be an array, a data frame, a SciPy matrix or a list of rows", got, remedy, TypeError)


def _numbers_of(x: Any) -> Any:
    """A data frame's or series' numbers, of which NumPy makes objects where their dtypes are mixed or nullable."""
    if not (hasattr(x, "isna") and hasattr(x, "to_numpy")):
        return x
    given = set(x.dtypes) if hasattr(x, "columns") else {x.dtype}
    dtypes = [getattr(each, "numpy_dtype", getattr(each, "subtype", each)) for each in given]
    if len(given) == 1 and dtypes == [*given]:  # NumPy's own
        return x
    if not dtypes or any(getattr(each, "kind", "O") not in "biuf" for each in given):
        return x
    missing = {"na_value": np.nan} if bool(np.any(x.isna())) else {}
    return x.to_numpy(np.result_type(*dtypes, *(np.float32 for _ in missing)), **missing)


def real_array(x: Any, backend: Backend, name: str) -> Array:
    """`x` as an array of the host or of the backend's own library, if it holds real numbers."""
    given = x
    if library_of(x) == backend.name != HOST:
        real = backend.xp.isdtype(x.dtype, ("bool", "integral", "real floating"))
    else:
        x = host_array(as_array(x, name), name)
        real = x.dtype.kind in "biuf" and not columns.hold_times(given)
    if not real:
        odd = columns.odd(given, name) or columns.Odd(f"dtype {dtype_name(x)}", "Encode its columns as numbers first.")
        checks.reject(name, "hold real numbers", odd.got, odd.remedy, TypeError)
    return x


def names_of(X: Any) -> list[str] | None:
    """The names of a data frame's columns, if all are strings; None for what has none."""
    names = columns.names_of(X)
    return names if names and all(isinstance(each, str) for each in names) else None


def own_names(names: Any, width: int) -> list[str] | None:
    """Names for that many columns, or None."""
    if names is None:
        return None
    given = list(names) if isinstance(names, Iterable) and not isinstance(names, str) else []
    if len(given) != width or not all(isinstance(each, str) for each in given):
        rule = f"be None or {width} strings, one for each column of X"
        checks.reject("feature_names", rule, checks.shown(names), "Name what the columns hold.")
    return [str(each) for each in given]


def require_names(X: Any, known: list[str] | None, name: str = "X") -> None:
    """Raise where `X` has columns of other names than the `known` ones, or in another order."""
    found = names_of(X)
    if known is None or found is None or found == known:
        return
    shorter = min(len(found), len(known))
    place = next((k for k in range(shorter) if found[k] != known[k]), shorter)
    if place < len(known):
        rule = f"have the columns of the training data, {known[place]!r} at place {place}"
    else:
        rule = f"have the {len(known)} columns of the training data"
    got = repr(found[place]) if place < len(found) else f"{len(found)} columns"
    checks.reject(name, rule, got, "Select them in that order, or pass an array.")


def real_rows(X: Any, backend: Backend, width: int, name: str = "X") -> Array:
    """`X` as an array of the host or of the backend's own library: (n, width), n >= 1, real."""
    X = real_array(X, backend, name)
    if len(X.shape) != 2:
        flatten = f"Flatten it with xp.reshape({name}, ({', '.join(map(str, X.shape[:1]))}, -1))."
        expand = f"One sample is {name}[None, :], one feature is {name}[:, None]."
        remedy = flatten if len(X.shape) > 2 else expand
        checks.reject(name, f"have shape (n, {width}): rows are samples", tuple(X.shape), remedy)
    if X.shape[0] == 0:
        checks.reject(name, "have at least one row", f"shape {tuple(X.shape)}", "Check how it was selected.")
    if X.shape[1] != width:
        rule = f"have shape (n, {width}) to match the first layer"
        remedy = "Its columns are features: change layer_dims[0] or the columns."
        checks.reject(name, rule, tuple(X.shape), remedy)
    return X


def features(
    X: Any,
    backend: Backend,
    dtype: str,
    width: int,
    name: str = "X",
    home: Backend | None = None,
    names: Sequence[str] | None = None,
) -> Array:
    """`X` on the backend (or on `home`, from where batches go there), checked: (n, width), n >= 1, real and finite.

    Floating data take the working dtype; integers stay as they are, where the backend's library has their dtype.
    """
    names = names_of(X) if names is None else names  # of the columns, for an error's text
    X, home = real_rows(X, backend, width, name), home or backend
    found = home.asarray(X, _stored_dtype(dtype_name(X), backend, dtype))
    if not home.xp.isdtype(found.dtype, ("bool", "integral")):
        require_finite(found, home, name, names)
    return found


def _stored_dtype(name: str, backend: Backend, dtype: str) -> str:
    if name not in KEPT_INTEGERS:
        return dtype
    try:
        backend.dtype(name)
    except TypeError:  # 64-bit integers are off in JAX
        return dtype
    return name


def all_finite(xp: Namespace, X: Array) -> bool:
    """Whether no value is nan or infinite, by their sum: in one pass, but large values may be taken for infinite."""
    return bool(xp.isfinite(xp.sum(X)))


def require_finite(X: Array, backend: Backend, name: str, names: Sequence[str] | None = None) -> None:
    """Raise on the first value that is nan or infinite, naming its place."""
    if all_finite(backend.xp, X):
        return
    xp = backend.xp
    rows = max(1, CHECKED_AT_ONCE // max(X.shape[1], 1))
    for first in range(0, X.shape[0], rows):
        block = X[first : min(first + rows, X.shape[0]), :]
        if not bool(xp.all(xp.isfinite(block))):
            host = backend.to_host(block)
            row, column = np.argwhere(~np.isfinite(host))[0]
            got = f"{host[row, column]} at row {first + row}, column {column if names is None else repr(names[column])}"
            remedy = "Fill or drop such values, or scale the column."
            checks.reject(name, f"be finite in {dtype_name(X)}", got, remedy)


def center_and_scale(backend: Backend, X: Array) -> tuple[Array, Array]:
    """The mean and the standard deviation of each column, (1, d); where all its values are one, the latter is 1."""
    xp, share = backend.xp, 1.0 / X.shape[0]
    largest = xp.max(xp.abs(X), axis=0, keepdims=True)
    unit = xp.where(largest > 0, largest, xp.ones_like(largest))  # in which no square overflows or vanishes
    X = X / unit
    mean = backend.sum_rows(X) * share
    mean = mean + backend.sum_rows(X - mean) * share  # what rounding left of the mean of a column far from 0
    squares = backend.sum_rows((X - mean) * (X - mean)) * share
    varies = (xp.max(X, axis=0, keepdims=True) > xp.min(X, axis=0, keepdims=True)) & (squares > 0)
    return mean * unit, xp.where(varies, xp.sqrt(squares) * unit, xp.ones_like(squares))


def truth(xp: Namespace, Y: Array, classes: Array | None, dtype: Any) -> Array:
    """Targets (n, K): class numbers become rows of probabilities."""
    return Y if classes is None else xp.astype(classes == Y, dtype)


def gather(xp: Namespace, samples: Rows, rows: Array | None, dtype: Any) -> Batch:
    """The batch of the rows of those numbers (all, if None)."""
    X, Y, w, classes = samples
    if rows is not None:
        X, Y = xp.take(X, rows, axis=0), xp.take(Y, rows, axis=0)
        w = None if w is None else xp.take(w, rows, axis=0)
    return Batch(X if X.dtype == dtype else xp.astype(X, dtype), truth(xp, Y, classes, dtype), w)


def row_numbers(rows: HostArray, n: int, backend: Backend) -> Array:
    """Numbers of rows, out of n, on the backend: as small as they may be."""
    return backend.asarray(rows, "int32" if n < 2**31 else "int64")


def compressed(X: Any) -> bool:
    """Whether `X` is a matrix of SciPy's that holds what is not zero alone."""
    return hasattr(X, "toarray") and hasattr(X, "nnz")


def streams(samples: Rows, backend: Backend) -> bool:
    """Whether X lies on the host, or is sparse, and goes to the backend a batch at a time."""
    return compressed(samples.X) or library_of(samples.X) == HOST != backend.name


def block(X: Array, first: int, last: int, backend: Backend) -> Array:
    """Those rows on the backend, dense."""
    return backend.asarray(X[first:last].toarray()) if compressed(X) else X[first:last, :]


def some_rows(samples: Rows, rows: HostArray, backend: Backend) -> Rows:
    """Those rows on the backend, copied."""
    numbers = row_numbers(rows, samples.X.shape[0], backend)
    Y, w = (None if each is None else backend.xp.take(each, numbers, axis=0) for each in (samples.Y, samples.weights))
    if compressed(samples.X):
        X = backend.asarray(samples.X[rows].toarray())
    elif streams(samples, backend):
        X = backend.asarray(np.take(samples.X, rows, axis=0))  # CuPy takes it through pinned memory, without waiting
    else:
        X = backend.xp.take(samples.X, numbers, axis=0)
    return Rows(X, Y, w, samples.classes)
