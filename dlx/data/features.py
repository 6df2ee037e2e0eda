"""Checks of features, and blocks and batches of rows."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from dlx import checks
from dlx.backend import HOST, Array, Backend, Namespace, get_backend, host_array, library_of
from dlx.data import columns, sparse
from dlx.data.sparse import compressed as compressed
from dlx.host import HostArray as HostArray
from dlx.host import require_rows

KEPT_INTEGERS = ("bool", "uint8", "int8", "int16", "int32", "int64")  # stored as they are, and converted batch by batch
CHECKED_AT_ONCE = 1 << 22  # elements


class Rows(NamedTuple):
    """Samples on the backend, or on the host, from where blocks of them go to the backend.

    `X` is (n, d0). `Y` is (n, K), or (n, 1) class numbers if `classes` (1, K), the numbers 0..K-1, is not None.
    `weights` are (n, 1) or (n, K), or None.
    """

    X: Array
    Y: Array
    weights: Array | None
    classes: Array | None


class Batch(NamedTuple):
    """Samples in the working dtype: X (n, d0), Y (n, K), weights (n, 1) or (n, K), or None."""

    X: Array
    Y: Array
    weights: Array | None


def dtype_name(x: Any) -> str:
    """The name of an array's dtype in the standard: "float32"."""
    return _standard_name(x.dtype.__class__, x.dtype)


@functools.cache
def _standard_name(kind: type, dtype: Any) -> str:
    """The name of a dtype. Its type `kind` keeps dtypes of different libraries apart in the cache."""
    return str(dtype).rpartition(".")[-1]


def working_dtype(dtype: Any, X: Array) -> str:
    """The dtype to compute in: `dtype`, or if that is None float64 for float64 data and float32 for all other data."""
    if dtype is None:
        return "float64" if dtype_name(X) in ("float64", "longdouble", "float128") else "float32"
    name = dtype if isinstance(dtype, str) else getattr(dtype, "__name__", str(dtype).rpartition(".")[-1])
    return checks.choice("dtype", name, ("float32", "float64"), "These are the dtypes of the standard.")


def as_array(x: Any, name: str) -> Array:
    """`x` if it is an array of some library, else `x` as a NumPy array. Raises for masked and sparse arrays."""
    library = library_of(x)
    if library is not None:
        return host_array(x, name) if library == HOST else x
    require_rows(x, name)
    return host_array(_numbers_of(x), name)


def _numbers_of(x: Any) -> Any:
    """A data frame or series as a NumPy array of numbers, where NumPy would make objects; other things unchanged.

    NumPy makes objects of columns whose dtypes are mixed or nullable.
    """
    if not (hasattr(x, "isna") and hasattr(x, "to_numpy")):
        return x
    given = set(x.dtypes) if hasattr(x, "columns") else {x.dtype}
    dtypes = [getattr(dtype, "numpy_dtype", getattr(dtype, "subtype", dtype)) for dtype in given]
    if len(given) == 1 and dtypes == [*given]:  # a dtype of NumPy's
        return x
    if not dtypes or any(getattr(dtype, "kind", "O") not in "biuf" for dtype in given):
        return x
    missing = {"na_value": np.nan} if bool(np.any(x.isna())) else {}
    return x.to_numpy(np.result_type(*dtypes, *(np.float32 for _ in missing)), **missing)


def real_array(x: Any, backend: Backend, name: str) -> Array:
    """`x` as an array of the host or of the backend's library. Raises unless it holds real numbers."""
    given = x
    if library_of(x) == backend.name != HOST:
        x = backend.asarray(x)  # detached from PyTorch's gradients, and dense
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
    """The column names of a table if all are strings, else None."""
    names = columns.column_names(X)
    return names if names and all(isinstance(name, str) for name in names) else None


def own_names(names: Any, width: int) -> list[str] | None:
    """Check that `names` is None or a sequence of `width` strings, and return it as a list."""
    if names is None:
        return None
    given = list(names) if isinstance(names, Iterable) and not isinstance(names, str) else []
    if len(given) != width or not all(isinstance(name, str) for name in given):
        rule = f"be None or {width} strings, one for each column of X"
        checks.reject("feature_names", rule, checks.shown(names), "Name what the columns hold.")
    return [str(name) for name in given]


def require_names(X: Any, known: list[str] | None, name: str = "X") -> None:
    """Raise if the column names of `X` are not the `known` ones, in the same order."""
    own = names_of(X)
    if known is None or own is None or own == known:
        return
    shorter = min(len(own), len(known))
    k = next((k for k in range(shorter) if own[k] != known[k]), shorter)
    if k < len(known):
        rule = f"have the columns of the training data, {known[k]!r} at place {k}"
    else:
        rule = f"have the {len(known)} columns of the training data"
    got = repr(own[k]) if k < len(own) else f"{len(own)} columns"
    checks.reject(name, rule, got, "Select them in that order, or pass an array.")


def real_rows(X: Any, backend: Backend, width: int, name: str = "X") -> Array:
    """`X` as an array of the host or of the backend's library, or as CSR, checked: real, (n, width), n >= 1."""
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
    """`X` on the backend, checked: real and finite, (n, width), n >= 1.

    Floats are converted to the working dtype. Integers keep their dtype if the backend's library has it. A matrix of
    SciPy's stays on the host, as CSR. Errors name columns by `names`, or by the names that `X` itself has.
    """
    names = names_of(X) if names is None else names
    X = real_rows(X, backend, width, name)
    stored = stored_dtype(dtype_name(X), backend, dtype)
    if compressed(X):
        return sparse.as_dtype(X, stored, name)
    placed = backend.asarray(X, stored)
    require_finite(placed, backend, name, names=names)
    return placed


def dense(X: Array, backend: Backend) -> Array:
    """`X` itself, or `X` as a dense array on the backend if it is sparse and the backend multiplies no sparse ones."""
    return backend.asarray(X.toarray()) if compressed(X) and not backend.multiplies_sparse else X


def unplaced(
    X: Any, backend: Backend, dtype: str, width: int, name: str = "X", names: Sequence[str] | None = None
) -> Array:
    """`X` where it lies, on the backend or on the host, checked as in `features`.

    `block` and `some_rows` bring rows of it to the backend.
    """
    names = names_of(X) if names is None else names
    X = real_rows(X, backend, width, name)
    if compressed(X):
        return sparse.as_dtype(X, stored_dtype(dtype_name(X), backend, dtype), name)
    require_finite(X, get_backend(HOST) if library_of(X) == HOST else backend, name, dtype, names)
    return X


def stored_dtype(name: str, backend: Backend, dtype: str) -> str:
    """The dtype in which data of dtype `name` are stored on the backend, where `dtype` is the working dtype."""
    if name not in KEPT_INTEGERS:
        return dtype
    try:
        backend.dtype(name)
    except TypeError:  # JAX has no 64-bit integers by default
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
    """Raise at the first value that is nan or infinite, in `dtype` if one is named; the error states its place."""
    xp = backend.xp
    if xp.isdtype(X.dtype, ("bool", "integral")):
        return
    dtype = dtype or dtype_name(X)
    if dtype == dtype_name(X) and backend.seems_finite(X):
        return
    at_once = CHECKED_AT_ONCE if dtype == dtype_name(X) else CHECKED_AT_ONCE // 16  # as a conversion copies
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
    """(first, last) of blocks of `rows` rows, at least 1, out of n. The last block may be smaller."""
    rows = max(1, rows)
    return ((first, min(first + rows, n)) for first in range(0, n, rows))


def center_and_scale(backend: Backend, X: Array, numbers: HostArray | None = None) -> tuple[Array, Array]:
    """The mean and the standard deviation of each column, from blocks B of n_B rows.

    mean = Σ_B n_B mean_B / n,  variance = Σ_B n_B (variance_B + (mean_B - mean)²) / n

    Parameters
    ----------
    backend : Backend
    X : float array (n, d) on the backend or the host
    numbers : integer array on the host, default None
        The numbers of the rows to use; None uses all.

    Returns
    -------
    mean, scale : arrays (1, d) on the backend, of the dtype of `X`
        The scale of a column with equal values is 1.

    Numerics: moments are computed in units of each column's largest value, so that no square overflows or vanishes, and
    are combined in float64.

    Source: Chan, Golub and LeVeque 1983.
    """
    n = X.shape[0] if numbers is None else len(numbers)
    moments, sizes = [], []
    for first, last in spans(n, CHECKED_AT_ONCE // 16 // max(X.shape[1], 1)):
        block = X[first:last, :] if numbers is None else taken(X, numbers[first:last], backend)
        moments.append(backend.stack_to_host(_moments(backend, block)).astype(np.float64))
        sizes.append(last - first)
    units, means, squares, highest, lowest = np.stack(moments, axis=1)
    share = (np.asarray(sizes, np.float64) / n)[:, None, None]
    unit = units.max(axis=0)
    means = means * (units / unit)
    mean = np.sum(share * means, axis=0)
    square = np.sum(share * (squares * (units / unit) ** 2 + (means - mean) ** 2), axis=0)
    varies = (highest.max(axis=0) > lowest.min(axis=0)) & (square > 0)
    scale = np.where(varies, np.sqrt(square) * unit, 1.0)
    return backend.asarray(mean * unit, dtype_name(X)), backend.asarray(scale, dtype_name(X))


def _moments(backend: Backend, X: Array) -> tuple[Array, ...]:
    """The unit, mean and variance (in this unit), maximum and minimum of each column, (1, d) each.

    The unit is the largest absolute value, so that no square overflows or vanishes.
    """
    xp, share = backend.xp, 1.0 / X.shape[0]
    highest, lowest = xp.max(X, axis=0, keepdims=True), xp.min(X, axis=0, keepdims=True)
    largest = xp.maximum(xp.abs(highest), xp.abs(lowest))
    unit = xp.where(largest > 0, largest, xp.ones_like(largest))
    X = X / unit
    mean = backend.sum_rows(X) * share
    X = X - mean
    rest = backend.sum_rows(X) * share  # the rounding error of the mean, large for a column far from 0
    X = X - rest
    return unit, mean + rest, backend.sum_rows(X * X) * share, highest, lowest


def truth(xp: Namespace, Y: Array, classes: Array | None, dtype: Any) -> Array:
    """Targets (n, K) in this dtype: class numbers (n, 1) become one-hot rows."""
    return Y if classes is None else one_hot(xp, dtype)(classes, Y)


def one_hot(xp: Namespace, dtype: Any) -> Callable[[Array, Array], Array]:
    """The elementwise formula of one-hot rows (n, K) from the numbers of all classes (1, K) and of the rows' (n, 1)."""

    def formula(classes: Array, Y: Array) -> Array:
        return xp.astype(classes == Y, dtype)

    return formula


def gather(
    xp: Namespace, samples: Rows, rows: Array | None, dtype: Any, fused: Callable[..., Array] | None = None
) -> Batch:
    """The batch of the rows with these numbers (None: all rows), all on the backend. It may be compiled.

    `fused` is the formula of `one_hot`, if the library has fused it.
    """
    X, Y, w, classes = samples
    if rows is not None:
        X, Y = X[rows] if compressed(X) else xp.take(X, rows, axis=0), xp.take(Y, rows, axis=0)
        w = None if w is None else xp.take(w, rows, axis=0)
    Y = truth(xp, Y, classes, dtype) if fused is None or classes is None else fused(classes, Y)
    return Batch(X if X.dtype == dtype else xp.astype(X, dtype), Y, w)


def batch(rows: Rows, numbers: HostArray, backend: Backend, dtype: str) -> Batch:
    """The batch of the rows with these numbers, brought to the backend from wherever they lie."""
    X = block(rows.X, 0, len(numbers), numbers, backend, dtype)
    X = backend.placed(X)
    Y, w = targets_of(rows, 0, len(numbers), numbers, backend, dtype)
    working = backend.dtype(dtype)
    return Batch(backend.xp.astype(X, working, copy=False), truth(backend.xp, Y, rows.classes, working), w)


def taken(X: Array, numbers: HostArray, backend: Backend) -> Array:
    """The rows with these numbers, where X lies."""
    if compressed(X):
        return X[numbers]
    return X.take(numbers, axis=0) if library_of(X) == HOST else backend.take(X, numbers)


def block(X: Array, first: int, last: int, numbers: HostArray | None, backend: Backend, dtype: str) -> Array:
    """Rows first:last of X, or of its rows with these `numbers`, as the backend can take them.

    They become dense unless the backend multiplies sparse matrices. Rows on the host stay there, in a dtype that the
    backend's library has.
    """
    part = X[first:last, ...] if numbers is None else taken(X, numbers[first:last], backend)
    return takable(part, backend, dtype)


def targets_of(
    samples: Rows, first: int, last: int, numbers: HostArray | None, backend: Backend, dtype: str
) -> tuple[Array, Array | None]:
    """Targets and weights of rows first:last, or of these among the rows with these `numbers`, on the backend."""
    parts = []
    for array, kind in ((samples.Y, dtype if samples.classes is None else "int32"), (samples.weights, dtype)):
        part = array
        if array is not None:
            part = array[first:last, ...] if numbers is None else taken(array, numbers[first:last], backend)
            part = backend.asarray(part, kind) if library_of(part) == HOST else part
        parts.append(part)
    return parts[0], parts[1]


def takable(part: Array, backend: Backend, dtype: str | None) -> Array:
    """Rows in a form that the backend can take: not sparse if it has no such products, in a dtype that it has.

    The dtype of rows on the host is only changed if `dtype`, the working dtype, is named.
    """
    if compressed(part) and not backend.multiplies_sparse:
        part = part.toarray()
    if dtype is not None and library_of(part) == HOST != backend.name:
        part = part.astype(stored_dtype(dtype_name(part), backend, dtype), copy=False)
    return part
