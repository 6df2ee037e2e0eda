"""Data as scikit-learn's users pass them, checked by scikit-learn's own rules, and the way back to them."""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

import numpy as np
from sklearn import get_config
from sklearn.model_selection import train_test_split
from sklearn.utils.validation import _check_sample_weight, column_or_1d, validate_data

from dlx import checks, columns, data, labels, targets
from dlx.backend import HOST, Backend, backend_of, get_backend, library_of
from dlx.host import way_to_host

HostArray = np.ndarray[Any, Any]


def dispatches() -> bool:
    """Whether scikit-learn lets arrays of other libraries stay where they are."""
    return bool(get_config()["array_api_dispatch"])


def features(est: Any, X: Any, y: Any = "no_validation", **how: Any) -> Any:
    """X, or X and y, by scikit-learn's checks: dense, CSR or CSC, floating, finite; `est` learns the columns' names."""
    dtypes: list[Any] = [np.float64, np.float32]
    scope: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
    if library_of(X) not in (None, HOST) and not dispatches():
        X = _numpys(X)
    elif library_of(X) not in (None, HOST):
        backend = backend_of(X)
        X = backend.asarray(data.real_array(X, backend, "X"))  # without the graph of PyTorch's gradients
        scope = backend.scope()  # what is copied stays on the device
        offered = backend.xp.__array_namespace_info__().dtypes(kind="real floating", device=backend.device)
        dtypes = [offered[name] for name in ("float64", "float32") if name in offered]
    if est.dtype is not None:
        dtypes = [each for each in dtypes if getattr(each, "__name__", str(each)).endswith(est.dtype)]
    data.require_rows_of_numbers(X, "X")
    if columns.hold_times(X):
        data.real_array(X, get_backend(HOST), "X")
    try:
        with scope:
            return validate_data(est, X, y, accept_sparse=["csr", "csc"], dtype=dtypes, **how)
    except (ValueError, TypeError) as reason:
        place = _odd_place(X, str(reason))
        if place is None:
            raise
        kind = ValueError if isinstance(reason, ValueError) else TypeError
        raise kind(place) from reason


def _odd_place(X: Any, reason: str) -> str | None:
    """What scikit-learn refuses in `X`, by the name of its column; None where it says so itself."""
    names = columns.names_of(X)
    if names is not None and reason.startswith("Input X contains"):
        row, column = np.argwhere(~np.isfinite(data.as_array(X, "X").astype(np.float64)))[0]
        return f"{reason}\nThe first is at row {row}, column {names[column]!r}."
    odd = columns.odd(X, "X", mixed_alone=True) if names is not None or "could not convert" in reason else None
    return None if odd is None else f"`X` must hold real numbers; got {odd.got}. {odd.remedy}"


def _numpys(X: Any) -> HostArray:
    """An array of another library as NumPy takes it by itself, which it does not from a GPU, for example."""
    try:
        return np.asarray(X)
    except (TypeError, RuntimeError) as reason:
        remedy = f"Pass {way_to_host(X, 'X')}, or call sklearn.set_config(array_api_dispatch=True)."
        got = f"one of {library_of(X)}: {reason}".rstrip(".")
        checks.reject("X", "be an array that NumPy can take", got, remedy, TypeError)


def require_same_place(X: Any, W: Any, name: str) -> None:
    """Where arrays stay where they are, a prediction is asked for where the weights lie."""
    found, wanted = backend_of(X if library_of(X) else np.empty(0)), backend_of(W)
    if found != wanted:
        raise ValueError(
            f"Inputs passed to {name} must use the same namespace and the same device as those passed to fit(); "
            f"got {found.selector}, and {wanted.selector} before. Move X there."
        )


def on_host(y: Any) -> Any:
    """Targets and weights are worked on where scikit-learn is at home, and dense."""
    if data.compressed(y):
        return y.toarray()
    return y if library_of(y) in (None, HOST) else backend_of(y).to_host(y)


def real_targets(est: Any, X: Any, y: Any, reset: bool) -> tuple[Any, HostArray]:
    """X and real targets (n, K)."""
    X, y = features(est, X, on_host(y), multi_output=True, y_numeric=True, reset=reset)
    if y.dtype.kind not in "biuf":
        remedy = "Convert it with y.astype(float); for labels use MLPClassifier."
        checks.reject("y", "hold real numbers", f"dtype {y.dtype}", remedy, TypeError)
    if y.ndim == 2 and y.shape[1] == 1:
        y = column_or_1d(y, warn=True)
    return X, y if y.dtype.kind == "f" else y.astype(np.float64)


def repeated(y: Any, outputs: int) -> Any:
    """One target a row, (n,) or (n, 1), as that of every output, (n, outputs); several as they are."""
    backend = backend_of(y)
    y = backend.asarray(y)
    y = y[:, None] if y.ndim == 1 else y
    return backend.xp.concat([y] * outputs, axis=1) if y.shape[1] == 1 else y


def plain_labels(y: Any, name: str = "y") -> Any:
    """Labels on the host in a dtype that holds them exactly, which scikit-learn takes; None as it is."""
    if y is None:
        return None
    found = targets.on_host(on_host(y), get_backend(HOST), name)
    column = found[:, 0] if found.ndim == 2 and found.shape[1] == 1 else found
    if column.ndim == 1 and column.dtype.kind not in "fc" and not labels.are_labels(column):
        labels.refuse(column, name)
    return found


def classes_and_rows(est: Any, X: Any, y: Any, reset: bool) -> tuple[Any, HostArray]:
    """X and labels (n,), or several labels a row, (n, K)."""
    X, y = features(est, X, plain_labels(y), multi_output=True, reset=reset)
    return X, column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y


def require_classes(est: Any, classes: Any) -> None:
    """In the first call of `partial_fit` all labels that will ever come, and in others the same or None."""
    known = getattr(est, "classes_", None)
    if classes is None:
        if known is None:
            raise ValueError("classes must be passed on the first call to partial_fit.")
        return
    given = plain_labels(classes, "classes")
    given = np.arange(given.shape[1]) if given.ndim == 2 else labels.distinct(given)[0]
    if known is None:
        est.classes_ = given
    elif given.tolist() != known.tolist():
        raise ValueError(f"`classes={classes!r}` is not the same as on last call to partial_fit, was: {est.classes_!r}")


def require_both(X_val: Any, y_val: Any, sample_weight_val: Any) -> None:
    """Raise where the user's own validation rows lack a part."""
    if (X_val is None) != (y_val is None):
        checks.reject("X_val", "come with y_val", "one of them", "Pass both to fit.")
    if X_val is None and sample_weight_val is not None:
        checks.reject("sample_weight_val", "come with X_val and y_val", "it alone", "Pass all three to fit.")


def sample_weights(sample_weight: Any, X: Any) -> HostArray | None:
    """Weights (n,) in double precision."""
    if sample_weight is None:
        return None
    rows = np.empty((X.shape[0], 1))  # X may lie on a device, where weights are not needed yet
    found: HostArray = _check_sample_weight(on_host(sample_weight), rows, dtype=np.float64, ensure_non_negative=True)
    return found


def split(n: int, share: float, groups: HostArray | None, state: np.random.RandomState) -> tuple[HostArray, HostArray]:
    """Row numbers to train on and to validate on, by scikit-learn's own split; class numbers keep their proportions.

    They are drawn without regard to proportions where a class has too few rows for both sides; its rows are trained on.
    """
    counts = np.zeros(0) if groups is None else np.unique(groups, return_counts=True)[1]
    held = int(np.ceil(share * n))
    drawn = bool(len(counts)) and (counts.min() < 2 or min(held, n - held) < len(counts))
    how = {"random_state": state, "test_size": share, "stratify": None if drawn else groups}
    rows, held_rows = train_test_split(np.arange(n), **how)
    if drawn and groups is not None:
        rows, held_rows = _one_of_each(groups, rows, held_rows)
    if len(held_rows) < 2:
        raise ValueError(
            f"The validation set is too small: {len(held_rows)} of {n} rows. Raise validation_fraction, or pass more."
        )
    return rows, held_rows


def _one_of_each(groups: HostArray, rows: HostArray, held_rows: HostArray) -> tuple[HostArray, HostArray]:
    """The same split with a row of each class to train on, taken in exchange for one of a class that has more."""
    rows, held_rows = rows.copy(), held_rows.copy()
    for group in np.setdiff1d(groups[held_rows], groups[rows]):
        numbers, counts = np.unique(groups[rows], return_counts=True)
        may_go = np.flatnonzero(np.isin(groups[rows], numbers[counts > 1]))
        there = np.flatnonzero(groups[held_rows] == group)[0]
        if len(may_go):
            rows[may_go[-1]], held_rows[there] = held_rows[there], rows[may_go[-1]]
    return rows, held_rows


class Standard(NamedTuple):
    """What standardises the columns of inputs, and of real targets: (x - mean) / scale, (1, d) on the host each."""

    mean: HostArray
    scale: HostArray


def standard(X: Any, rows: HostArray | None, backend: Backend) -> Standard:
    """Of those rows (all, if None) of inputs on the backend; sparse ones keep their zeros, and so their mean."""
    if data.compressed(X):
        part = X if rows is None else X[rows]
        largest = abs(part).max(axis=0).toarray()
        largest = np.where(largest > 0, largest, 1.0)  # whose squares may overflow, or vanish
        shares = part.multiply(1.0 / largest)
        squares = np.asarray(shares.multiply(shares).mean(axis=0)).reshape(1, -1)
        return Standard(np.zeros_like(squares), np.where(squares > 0, largest * np.sqrt(squares), 1.0))
    part = X if rows is None else backend.xp.take(X, data.row_numbers(rows, X.shape[0], backend), axis=0)
    return Standard(*(backend.to_host(each) for each in data.center_and_scale(backend, part)))


def standardized(X: Any, by: Standard | None, backend: Backend, dtype: str) -> Any:
    """Inputs on the backend, in units of their standard deviations."""
    if by is None:
        return X
    if data.compressed(X) and not by.mean.any():
        return X.multiply(1.0 / by.scale).tocsr()
    X = placed(X, backend, dtype, dense=True)  # what is centred is sparse no more
    mean, scale = (backend.asarray(each, dtype) for each in by)
    return (X - mean) / scale


def placed(X: Any, backend: Backend, dtype: str, dense: bool = False) -> Any:
    """Inputs on the backend; sparse ones stay on the host, from where they go there block by block, unless `dense`."""
    if not data.compressed(X):
        return backend.asarray(X, dtype)
    return backend.asarray(X.toarray(), dtype) if dense else X.tocsr().astype(dtype, copy=False)
