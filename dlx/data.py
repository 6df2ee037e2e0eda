"""Features, targets and weights, checked at the door; batches and splits of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from dlx import checks, losses
from dlx.backend import Array, Backend, Namespace, host_array, library_of

HostArray = np.ndarray[Any, Any]
KEPT_INTEGERS = ("bool", "uint8", "int8", "int16", "int32", "int64")  # converted a batch at a time
CHECKED_AT_ONCE = 1 << 22  # elements


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


class Targets(NamedTuple):
    """Checked targets on the host.

    `Y` (n, K), or (n, 1) class numbers where `one_hot`; `classes` the labels that class numbers stand for and `labels`
    (n,) the class number of each row, both None where there are none.
    """

    Y: HostArray
    classes: HostArray | None = None
    labels: HostArray | None = None
    one_hot: bool = False


def dtype_name(x: Any) -> str:
    """The standard's name of an array's dtype: "float32"."""
    return str(x.dtype).rpartition(".")[-1]


def working_dtype(dtype: Any, X: Any) -> str:
    """The dtype to compute in: the one asked for, or else float64 for float64 data and float32 for all other."""
    if dtype is None:
        found = dtype_name(X) if library_of(X) else np.asarray(X).dtype.name
        return "float64" if found in ("float64", "longdouble", "float128") else "float32"
    name = dtype if isinstance(dtype, str) else getattr(dtype, "__name__", str(dtype).rpartition(".")[-1])
    return checks.choice("dtype", name, ("float32", "float64"), "These are the dtypes of the standard.")


def features(X: Any, backend: Backend, dtype: str, width: int | None, name: str = "X") -> Array:
    """`X` on the backend, checked: (n, width), n >= 1, real and finite.

    Floating data take the working dtype; integers stay as they are, where the library has their dtype.
    """
    if library_of(X) != backend.name:
        X = real_host_array(X, name)
    wanted = "any width" if width is None else width
    if len(X.shape) != 2:
        remedy = (
            f"Flatten it with xp.reshape({name}, ({X.shape[0]}, -1))."
            if len(X.shape) > 2
            else (f"One sample is {name}[None, :], one feature is {name}[:, None].")
        )
        checks.reject(name, f"have shape (n, {wanted}): rows are samples", tuple(X.shape), remedy)
    if X.shape[0] == 0:
        checks.reject(name, "have at least one row", f"shape {tuple(X.shape)}", "Check how it was selected.")
    if width is not None and X.shape[1] != width:
        checks.reject(
            name,
            f"have shape (n, {width}) to match the first layer",
            tuple(X.shape),
            "Its columns are features: change layer_dims[0] or the columns.",
        )
    found = backend.asarray(X, _stored_dtype(dtype_name(X), backend, dtype))
    if not backend.xp.isdtype(found.dtype, ("bool", "integral")):
        require_finite(found, backend, name)
    return found


def real_host_array(x: Any, name: str) -> HostArray:
    """`x` on the host, if it holds real numbers."""
    host = host_array(x, name)
    if host.dtype.kind not in "biuf":
        checks.reject(
            name,
            "hold real numbers",
            f"dtype {host.dtype}",
            "Encode its columns as numbers first.",
            TypeError,
        )
    return host


def _stored_dtype(name: str, backend: Backend, dtype: str) -> str:
    if name not in KEPT_INTEGERS:
        return dtype
    try:
        backend.dtype(name)
    except TypeError:  # 64-bit integers are off in JAX
        return dtype
    return name


def require_finite(X: Array, backend: Backend, name: str) -> None:
    """Raise on the first value that is nan or infinite, naming its place."""
    xp = backend.xp
    rows = max(1, CHECKED_AT_ONCE // max(X.shape[1], 1))
    for first in range(0, X.shape[0], rows):
        block = X[first : min(first + rows, X.shape[0]), :]
        if not bool(xp.all(xp.isfinite(block))):
            host = backend.to_host(block)
            row, column = np.argwhere(~np.isfinite(host))[0]
            checks.reject(
                name,
                f"be finite in {dtype_name(X)}",
                f"{host[row, column]} at row {first + row}, column {column}",
                "Fill or drop such values, or scale the column.",
            )


def host_targets(y: Any, backend: Backend, name: str = "y") -> HostArray:
    """`y` on the host, where it is checked: a bad label raises on no GPU library."""
    return backend.to_host(y) if library_of(y) == backend.name else host_array(y, name)


def holds_labels(y: HostArray) -> bool:
    """Whether ``loss="auto"`` takes `y` for class labels: integers, booleans or strings in one dimension."""
    return y.ndim == 1 and (y.dtype.kind in "biuUT" or _strings(y))


def _strings(y: HostArray) -> bool:
    return y.dtype.kind in "UT" or (y.dtype.kind == "O" and all(isinstance(each, str) for each in y.flat))


def targets(
    y: HostArray, loss: losses.Loss, outputs: int, n: int, known: HostArray | None = None, name: str = "y"
) -> Targets:
    """`y` as the loss takes it; `known` are the classes of an earlier call, which validation data must share."""
    if y.ndim == 0 or y.shape[0] != n:
        checks.reject(
            name, f"have {n} rows, one for each row of X", f"shape {y.shape}", "Check how they were selected."
        )
    if y.ndim > 2:
        checks.reject(name, f"have shape ({n},) or ({n}, {outputs})", y.shape, "Flatten its last axes.")
    if loss.targets == "classes":
        return _class_targets(y, outputs, known, name)
    if loss.targets == "binary" and outputs == 1 and holds_labels(y):
        return _class_targets(y, 2, known, name)._replace(one_hot=False)
    Y = _numbers(y, name)
    if loss.targets == "binary" and not ((Y >= 0) & (Y <= 1)).all():
        bad = Y[(Y < 0) | (Y > 1)][0]
        checks.reject(name, "lie in [0, 1] for binary_cross_entropy", bad, "Encode no as 0 and yes as 1.")
    if loss.targets == "counts" and not (Y >= 0).all():
        checks.reject(name, "be >= 0 for poisson", Y[Y < 0][0], "Counts are not negative.")
    shared = loss.name == "quantile" and Y.shape[1] == 1  # one target for every quantile
    if Y.shape[1] != outputs and not shared:
        checks.reject(
            name,
            f"have {outputs} columns to match the last layer",
            f"shape {y.shape}",
            "Change layer_dims[-1] or y.",
        )
    classes = np.arange(2) if loss.targets == "binary" and outputs == 1 else None
    return Targets(Y, classes)


def _numbers(y: HostArray, name: str) -> HostArray:
    if y.dtype.kind not in "biuf":
        checks.reject(
            name,
            "hold real numbers for this loss",
            f"dtype {y.dtype}",
            "Convert it with y.astype(float).",
            TypeError,
        )
    Y = y[:, None] if y.ndim == 1 else y
    if not np.isfinite(Y).all():
        row, column = np.argwhere(~np.isfinite(Y))[0]
        checks.reject(name, "be finite", f"{Y[row, column]} at row {row}", "Fill or drop such rows.")
    return Y


def _class_targets(y: HostArray, outputs: int, known: HostArray | None, name: str) -> Targets:
    """Integer labels 0..K-1 or K distinct strings as indices (n, 1); rows of probabilities as they are."""
    if y.ndim == 2:
        Y = _numbers(y, name)
        sums = Y.sum(axis=1)
        if Y.shape[1] != outputs or (Y < 0).any() or not np.allclose(sums, 1.0, atol=1e-4):
            checks.reject(
                name,
                f"hold one label a row, or rows of {outputs} probabilities that sum to 1",
                f"shape {y.shape}",
                "Pass labels as y.ravel(); for several labels a row use loss='binary_cross_entropy'.",
            )
        return Targets(Y, np.arange(outputs))
    if _strings(y):
        classes = np.unique(y.astype(str)) if known is None else known
        if len(classes) != outputs:
            found = f"{len(classes)} distinct ones"
            checks.reject(
                name,
                f"hold {outputs} distinct labels to match the last layer",
                found,
                "Change layer_dims[-1].",
            )
        places = np.searchsorted(classes, y.astype(str)).clip(0, outputs - 1)
        unknown = classes[places] != y
        if unknown.any():
            checks.reject(name, "hold labels of the training data", repr(str(y[unknown][0])), "Drop such rows.")
    elif y.dtype.kind in "biu":
        classes = np.array([False, True]) if y.dtype.kind == "b" else np.arange(outputs)
        outside = (y < 0) | (y >= outputs) if y.dtype.kind != "b" else np.zeros(len(y), bool)
        if outside.any():
            remedy = (
                "Number the classes with np.unique(y, return_inverse=True); for real targets pass loss='squared_error'."
            )
            checks.reject(name, f"hold labels 0..{outputs - 1} to match the last layer", y[outside][0], remedy)
        places = y
    else:
        remedy = "Convert labels with y.astype(int); for real targets pass loss='squared_error'."
        checks.reject(name, "hold integer or string labels for this loss", f"dtype {y.dtype}", remedy, TypeError)
    labels = places.astype(np.int32)
    return Targets(labels[:, None], classes, labels, one_hot=True)


def weights(sample_weight: Any, class_weight: Any, target: Targets, backend: Backend) -> HostArray | None:
    """The product of both weights, (n, 1) float64 on the host, or None where there are none."""
    n = target.Y.shape[0]
    w = None
    if sample_weight is not None:
        w = host_targets(sample_weight, backend, "sample_weight")
        if w.shape != (n,) or w.dtype.kind not in "biuf":
            checks.reject(
                "sample_weight",
                f"be {n} numbers, one for each row of X",
                f"shape {w.shape}",
                "Use 1 for a plain row.",
            )
        w = w.astype(np.float64)
        if not np.isfinite(w).all() or (w < 0).any() or not w.any():
            checks.reject(
                "sample_weight",
                "be finite, >= 0 and not all 0",
                f"{w.min()} to {w.max()}",
                "Use 0 to leave out a row.",
            )
    if class_weight is not None:
        each = _weight_of_classes(class_weight, target)[target.labels]
        w = each if w is None else w * each
        if not w.any():
            checks.reject(
                "class_weight",
                "leave some row a weight above 0",
                "0 for every row",
                "Use 1 for a plain class.",
            )
    return None if w is None else w[:, None]


def _weight_of_classes(class_weight: Any, target: Targets) -> HostArray:
    """ "balanced": n / (classes present · rows of the class), as scikit-learn has it; a dict: 1 for labels it lacks."""
    if target.classes is None or target.labels is None:
        checks.reject("class_weight", "come with one label a row", "other targets", "Use sample_weight instead.")
    counts = np.bincount(target.labels, minlength=len(target.classes))
    if isinstance(class_weight, str) and class_weight == "balanced":
        return np.where(counts > 0, counts.sum() / ((counts > 0).sum() * np.maximum(counts, 1)), 0.0)
    if not isinstance(class_weight, dict):
        kind = TypeError if not isinstance(class_weight, str) else ValueError
        checks.reject(
            "class_weight",
            "be 'balanced' or a dict of label to weight",
            repr(class_weight),
            "For example {0: 1, 1: 5}.",
            kind,
        )
    found = np.ones(len(target.classes))
    for label, weight in class_weight.items():
        place = np.flatnonzero(target.classes == label)
        if len(place) != 1:
            checks.reject("class_weight", "name labels of y", repr(label), f"They are {target.classes.tolist()}.")
        found[place[0]] = checks.number("class_weight", weight, low=0, remedy="Use 1 for a plain class.")
    return found


def to_mean_one(w: HostArray | None, rows: HostArray | None) -> HostArray | None:
    """Weights scaled to mean 1 over `rows` (all, if None): only their proportions matter."""
    return w if w is None else w / (w if rows is None else w[rows]).mean()


def split(target: Targets, fraction: float, rng: np.random.Generator) -> tuple[HostArray, HostArray]:
    """Row numbers for training and for validation; labels keep their proportions in both."""
    n = target.Y.shape[0]
    order = rng.permutation(n)
    groups = np.zeros(n, np.int32) if target.labels is None else target.labels[order]
    place = np.empty(n, np.int64)  # the row's number within its label, in random order
    for label in np.unique(groups):
        members = groups == label
        place[members] = np.arange(members.sum())
    sizes = np.bincount(groups)[groups]
    held_out = np.floor((place + 1) * fraction + 0.5) > np.floor(place * fraction + 0.5)
    held_out &= sizes > 1  # a label's only row is for training
    if not held_out.any() or held_out.all():
        checks.reject(
            "validation",
            f"leave rows on both sides of {n}",
            fraction,
            "Use a larger share, more data, or (X_val, y_val).",
        )
    return np.sort(order[~held_out]), np.sort(order[held_out])


def gather(xp: Namespace, samples: Rows, rows: Array | None, dtype: Any) -> Batch:
    """The batch of the rows of those numbers (all, if None); class numbers become rows of probabilities."""
    X, Y, w, classes = samples
    if rows is not None:
        X, Y = xp.take(X, rows, axis=0), xp.take(Y, rows, axis=0)
        w = None if w is None else xp.take(w, rows, axis=0)
    return Batch(xp.astype(X, dtype, copy=False), Y if classes is None else xp.astype(classes == Y, dtype), w)


def place(target: Targets, w: HostArray | None, X: Array, backend: Backend, dtype: str) -> Rows:
    """Targets and weights on the backend, beside `X`."""
    Y = backend.asarray(target.Y, "int32" if target.one_hot else dtype)
    classes = None
    if target.one_hot and target.classes is not None:
        classes = backend.asarray(np.arange(len(target.classes))[None, :], "int32")
    return Rows(X, Y, None if w is None else backend.asarray(w, dtype), classes)


def row_numbers(rows: HostArray, n: int, backend: Backend) -> Array:
    """Numbers of rows, out of n, on the backend: as small as they may be."""
    return backend.asarray(rows, "int32" if n < 2**31 else "int64")


def some_rows(samples: Rows, rows: HostArray, backend: Backend) -> Rows:
    """Those rows, copied once."""
    numbers = row_numbers(rows, samples.X.shape[0], backend)
    X, Y, w = (None if each is None else backend.xp.take(each, numbers, axis=0) for each in samples[:3])
    return Rows(X, Y, w, samples.classes)
