"""Features, checked at the door, and batches of rows."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from dlx import checks
from dlx.backend import HOST, Array, Backend, Namespace, get_backend, host_array, library_of
from dlx.data import columns, sparse
from dlx.data.sparse import compressed as compressed
from dlx.host import require_rows

HostArray = np.ndarray[Any, Any]
KEPT_INTEGERS = ("bool", "uint8", "int8", "int16", "int32", "int64")  # converted a batch at a time
CHECKED_AT_ONCE = 1 << 22  # elements


class Rows(NamedTuple):
    """Samples on the backend, or some of them on the host, from where they are brought there block by block.

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
    return _standard_name(x.dtype.__class__, x.dtype)


@functools.cache
def _standard_name(kind: type, dtype: Any) -> str:  # of that kind, since those of two libraries may not be compared
    return str(dtype).rpartition(".")[-1]


def working_dtype(dtype: Any, X: Array) -> str:
    """The dtype to compute in: the one asked for, or else float64 for float64 data and float32 for all other."""
    if dtype is None:
        return "float64" if dtype_name(X) in ("float64", "longdouble", "float128") else "float32"
    name = dtype if isinstance(dtype, str) else getattr(dtype, "__name__", str(dtype).rpartition(".")[-1])
    return checks.choice("dtype", name, ("float32", "float64"), "These are the dtypes of the standard.")


def as_array(x: Any, name: str) -> Array:
    """`x`, if it is an array of some library, else the array that NumPy makes of it; not masked, not sparse."""
    library = library_of(x)
    if library is not None:
        return host_array(x, name) if library == HOST else x
    require_rows(x, name)
    return host_array(_numbers_of(x), name)


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
        x = backend.asarray(x)  # without PyTorch's gradients, and dense
        real = backend.xp.isdtype(x.dtype, ("bool", "integral", "real floating"))
    elif columns.hold_times(x):
        real = False
    else:
        x = host_array(as_array(x, name), name)
        real = x.dtype.kind in "biuf"
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
    """`X` as an array of the host or of the backend's own library, or as CSR: (n, width), n >= 1, real."""
    X = sparse.as_csr(X, name) if compressed(X) else real_array(X, backend, name)
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
    X: Any, backend: Backend, dtype: str, width: int, name: str = "X", names: Sequence[str] | None = None
) -> Array:
    """`X` on the backend, checked: (n, width), n >= 1, real and finite; `names` are its columns', for an error's text.

    Floating data take the working dtype; integers stay as they are, where the backend's library has their dtype. A
    matrix of SciPy's stays on the host, as CSR.
    """
    names = names_of(X) if names is None else names
    X = real_rows(X, backend, width, name)
    stored = stored_dtype(dtype_name(X), backend, dtype)
    if compressed(X):
        return sparse.as_dtype(X, stored, name)
    found = backend.asarray(X, stored)
    require_finite(found, backend, name, names=names)
    return found


def dense(X: Array, backend: Backend) -> Array:
    """Rows as they are where the backend multiplies sparse ones; elsewhere such ones become dense, and lie there."""
    return backend.asarray(X.toarray()) if compressed(X) and not backend.multiplies_sparse else X


def unplaced(
    X: Any, backend: Backend, dtype: str, width: int, name: str = "X", names: Sequence[str] | None = None
) -> Array:
    """`X` as it is and where it lies, on the backend or on the host, checked as by `features`.

    `block` and `some_rows` bring rows of it to the backend.
    """
    names = names_of(X) if names is None else names
    X = real_rows(X, backend, width, name)
    if compressed(X):
        return sparse.as_dtype(X, stored_dtype(dtype_name(X), backend, dtype), name)
    require_finite(X, get_backend(HOST) if library_of(X) == HOST else backend, name, dtype, names)
    return X


def stored_dtype(name: str, backend: Backend, dtype: str) -> str:
    """The dtype in which data of the dtype `name` come to the backend."""
    if name not in KEPT_INTEGERS:
        return dtype
    try:
        backend.dtype(name)
    except TypeError:  # 64-bit integers are off in JAX
        return dtype
    return name


def require_finite(
    X: Array,
    backend: Backend,
    name: str,
    dtype: str | None = None,
    names: Sequence[str] | None = None,
    remedy: str = "Fill or drop such values, or scale the column.",
) -> None:
    """Raise on the first value that is nan or infinite, in that dtype if one is named, naming its place."""
    xp = backend.xp
    if xp.isdtype(X.dtype, ("bool", "integral")):
        return
    dtype = dtype or dtype_name(X)
    if dtype == dtype_name(X) and backend.seems_finite(X):
        return
    at_once = CHECKED_AT_ONCE if dtype == dtype_name(X) else CHECKED_AT_ONCE // 16  # of which a copy is made
    for first, last in spans(X.shape[0], at_once // max(X.shape[1], 1)):
        block = xp.astype(X[first:last, :], backend.dtype(dtype), copy=False)
        if not bool(xp.all(xp.isfinite(block))):
            host = backend.to_host(block)
            row, column = np.argwhere(~np.isfinite(host))[0]
            got = f"{host[row, column]} at row {first + row}, column {column if names is None else repr(names[column])}"
            if dtype == "float32" and np.isinf(host[row, column]):
                remedy += " Values beyond 3.4e38 need dtype='float64'."
            checks.reject(name, f"be finite in {dtype}", got, remedy)


def spans(n: int, rows: int) -> Iterator[tuple[int, int]]:
    """(first, last) of blocks of so many of n rows, at least one each, the last maybe of fewer."""
    rows = max(1, rows)
    return ((first, min(first + rows, n)) for first in range(0, n, rows))


def center_and_scale(backend: Backend, X: Array, numbers: HostArray | None = None) -> tuple[Array, Array]:
    """The mean and the standard deviation of each column, (1, d); where all its values are one, the latter is 1.

    Of the rows of those numbers (all, if None), over blocks of rows B of size n_B:

    mean = Σ_B n_B mean_B / n,  variance = Σ_B n_B (variance_B + (mean_B - mean)²) / n

    Source: Chan, Golub and LeVeque 1983.
    """
    n = X.shape[0] if numbers is None else len(numbers)
    found, sizes = [], []
    for first, last in spans(n, CHECKED_AT_ONCE // 16 // max(X.shape[1], 1)):
        block = X[first:last, :] if numbers is None else taken(X, numbers[first:last], backend)
        found.append(backend.stack_to_host(_moments(backend, block)).astype(np.float64))
        sizes.append(last - first)
    units, means, squares, highest, lowest = np.stack(found, axis=1)
    share = (np.asarray(sizes, np.float64) / n)[:, None, None]
    unit = units.max(axis=0)
    means = means * (units / unit)
    mean = np.sum(share * means, axis=0)
    square = np.sum(share * (squares * (units / unit) ** 2 + (means - mean) ** 2), axis=0)
    varies = (highest.max(axis=0) > lowest.min(axis=0)) & (square > 0)
    scale = np.where(varies, np.sqrt(square) * unit, 1.0)
    return backend.asarray(mean * unit, dtype_name(X)), backend.asarray(scale, dtype_name(X))


def _moments(backend: Backend, X: Array) -> tuple[Array, ...]:
    """Of each column, (1, d): a unit in which no square overflows or vanishes, mean and variance in it, extremes."""
    xp, share = backend.xp, 1.0 / X.shape[0]
    highest, lowest = xp.max(X, axis=0, keepdims=True), xp.min(X, axis=0, keepdims=True)
    largest = xp.maximum(xp.abs(highest), xp.abs(lowest))
    unit = xp.where(largest > 0, largest, xp.ones_like(largest))
    X = X / unit
    mean = backend.sum_rows(X) * share
    X = X - mean
    rest = backend.sum_rows(X) * share  # what rounding left of the mean of a column far from 0
    X = X - rest
    return unit, mean + rest, backend.sum_rows(X * X) * share, highest, lowest


def truth(xp: Namespace, Y: Array, classes: Array | None, dtype: Any) -> Array:
    """Targets (n, K): class numbers become rows of probabilities."""
    return Y if classes is None else xp.astype(classes == Y, dtype)


def gather(xp: Namespace, samples: Rows, rows: Array | None, dtype: Any) -> Batch:
    """The batch of the rows of those numbers (all, if None)."""
    X, Y, w, classes = samples
    if rows is not None:
        X, Y = X[rows] if compressed(X) else xp.take(X, rows, axis=0), xp.take(Y, rows, axis=0)
        w = None if w is None else xp.take(w, rows, axis=0)
    return Batch(X if X.dtype == dtype else xp.astype(X, dtype), truth(xp, Y, classes, dtype), w)


def batch(rows: Rows, numbers: HostArray, backend: Backend, dtype: str) -> Batch:
    """The batch of the rows of those numbers on the backend, wherever they lie."""
    X = block(rows.X, 0, len(numbers), numbers, backend, dtype)
    X = backend.placed(X)
    Y, w = beside(rows, 0, len(numbers), numbers, backend, dtype)
    working = backend.dtype(dtype)
    return Batch(backend.xp.astype(X, working, copy=False), truth(backend.xp, Y, rows.classes, working), w)


def streams(samples: Rows, backend: Backend) -> bool:
    """Whether X lies on the host, or is sparse, and goes to the backend a batch at a time."""
    return compressed(samples.X) or library_of(samples.X) == HOST != backend.name


def taken(X: Array, numbers: HostArray, backend: Backend) -> Array:
    """The rows of those numbers, where X lies."""
    if compressed(X):
        return X[numbers]
    return X.take(numbers, axis=0) if library_of(X) == HOST else backend.take(X, numbers)


def block(X: Array, first: int, last: int, numbers: HostArray | None, backend: Backend, dtype: str) -> Array:
    """Rows first:last of X, or of those of the `numbers`, for the backend: dense, unless it multiplies sparse ones.

    Those that lie on the host stay there, in a dtype that the backend's library has.
    """
    part = X[first:last, ...] if numbers is None else taken(X, numbers[first:last], backend)
    return _for(part, backend, dtype)


def beside(
    samples: Rows, first: int, last: int, numbers: HostArray | None, backend: Backend, dtype: str
) -> tuple[Array, Array | None]:
    """Targets and weights of the rows first:last, or of those of the `numbers`, on the backend."""
    found = []
    for each, kind in ((samples.Y, dtype if samples.classes is None else "int32"), (samples.weights, dtype)):
        part = each
        if each is not None:
            part = each[first:last, ...] if numbers is None else taken(each, numbers[first:last], backend)
            part = backend.asarray(part, kind) if library_of(part) == HOST else part
        found.append(part)
    return found[0], found[1]


def _for(part: Array, backend: Backend, dtype: str | None) -> Array:
    """Rows of the host, of a kind that the library has and, if `dtype` is named, in a dtype for computing in it."""
    if compressed(part) and not backend.multiplies_sparse:
        part = part.toarray()
    if dtype is not None and library_of(part) == HOST != backend.name:
        part = part.astype(stored_dtype(dtype_name(part), backend, dtype), copy=False)
    return part


def some_rows(samples: Rows, rows: HostArray, backend: Backend, dtype: str | None = None) -> Rows:
    """Those rows on the backend, copied; what lies on the host comes in a dtype for computing in `dtype`."""
    X, Y, w, classes = samples
    X = taken(X, rows, backend)
    X = _for(X, backend, dtype)
    if library_of(X) == HOST != backend.name:
        X = backend.asarray(X)  # CuPy takes it through pinned memory, without waiting
    Y, w = (None if each is None else backend.take(each, rows) for each in (Y, w))
    return Rows(X, Y, w, classes)
