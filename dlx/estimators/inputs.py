"""Data as scikit-learn's users pass them, checked by scikit-learn's own rules, and the way back to them."""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

import numpy as np
from sklearn import get_config
from sklearn.model_selection import train_test_split
from sklearn.utils.validation import _check_sample_weight, column_or_1d, validate_data

from dlx import checks, losses, scoring
from dlx.backend import HOST, Backend, backend_of, get_backend, host_array, library_of
from dlx.data import columns, features, labels, samples, targets
from dlx.host import require_rows, way_to_host

HostArray = np.ndarray[Any, Any]
BLOCK = 1 << 18  # elements, while standardising: they stay in cache


def dispatches() -> bool:
    """Whether scikit-learn lets arrays of other libraries stay where they are."""
    return bool(get_config()["array_api_dispatch"])


def checked(est: Any, X: Any, y: Any = "no_validation", **how: Any) -> Any:
    """X, or X and y, by scikit-learn's checks: dense, CSR or CSC, floating, finite; `est` learns the columns' names."""
    dtypes: list[Any] = [np.float64, np.float32]
    scope: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
    if library_of(X) not in (None, HOST) and not dispatches():
        X = _numpys(X)
    elif library_of(X) not in (None, HOST):
        backend = backend_of(X)
        X = backend.asarray(features.real_array(X, backend, "X"))  # without the graph of PyTorch's gradients
        scope = backend.scope()  # what is copied stays on the device
        offered = backend.xp.__array_namespace_info__().dtypes(kind="real floating", device=backend.device)
        dtypes = [offered[name] for name in ("float64", "float32") if name in offered]
    if est.dtype is not None:
        dtypes = [each for each in dtypes if getattr(each, "__name__", str(each)).endswith(est.dtype)]
    require_rows(X, "X")
    for name, given in (("X", X), ("y", y)):
        require_unmasked(given, name)
    if columns.hold_times(X):
        features.real_array(X, get_backend(HOST), "X")
    try:
        with scope:
            return validate_data(est, X, y, accept_sparse=["csr", "csc"], dtype=dtypes, **how)
    except (ValueError, TypeError, ArithmeticError) as reason:
        place = _odd_place(X, str(reason))
        if place is None and isinstance(reason, ArithmeticError):
            place = (
                f"`y` must hold numbers that float64 holds; got one that raises {reason}. Scale it, or drop such rows."
            )
        if place is None:
            raise
        raise (TypeError if isinstance(reason, TypeError) else ValueError)(place) from reason


def _odd_place(X: Any, reason: str) -> str | None:
    """What scikit-learn refuses in `X`, by the name of its column; None where it says so itself."""
    names = columns.column_names(X)
    if names is not None and reason.startswith("Input X contains"):
        row, column = np.argwhere(~np.isfinite(features.as_array(X, "X").astype(np.float64)))[0]
        return f"{reason}\nThe first is at row {row}, column {names[column]!r}."
    asked = names is not None or "could not convert" in reason or "too large to convert" in reason
    odd = columns.odd(X, "X", mixed_alone=True) if asked else None
    return None if odd is None else f"`X` must hold real numbers; got {odd.got}. {odd.remedy}"


def _numpys(X: Any) -> HostArray:
    """An array of another library as NumPy takes it by itself, which it does not from a GPU, for example."""
    try:
        return np.asarray(X)
    except (TypeError, RuntimeError) as reason:
        remedy = f"Pass {way_to_host(X, 'X')}, or call sklearn.set_config(array_api_dispatch=True)."
        got = f"one of {library_of(X)}: {reason}".rstrip(".")
        checks.reject("X", "be an array that NumPy can take", got, remedy, TypeError)


def require_unmasked(x: Any, name: str) -> None:
    """Raise for a masked array, whose masked values scikit-learn's checks take for data."""
    if isinstance(x, np.ma.MaskedArray):
        host_array(x, name)


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
    if features.compressed(y):
        return y.toarray()
    return y if library_of(y) in (None, HOST) else backend_of(y).to_host(y)


def real_targets(est: Any, X: Any, y: Any, reset: bool) -> tuple[Any, HostArray]:
    """X and real targets (n, K)."""
    X, y = checked(est, X, on_host(y), multi_output=True, y_numeric=True, reset=reset)
    if y.dtype.kind not in "biuf":
        remedy = "Convert it with y.astype(float); for labels use MLPClassifier."
        checks.reject("y", "hold real numbers", f"dtype {y.dtype}", remedy, TypeError)
    if y.ndim == 2 and y.shape[1] == 1:
        y = column_or_1d(y, warn=True)
    return X, y if y.dtype.kind == "f" else y.astype(np.float64)


def explained(loss: losses.Loss, y: Any, predicted: Any, sample_weight: Any) -> float:
    """What of real targets is explained by predictions (n,) or (n, K), as `Network.score` has it."""
    host, y, predicted, w = get_backend(HOST), *map(on_host, (y, predicted, sample_weight))
    P = np.asarray(predicted, np.float64).reshape(len(predicted), -1)
    how = {"missing": None, "sample_weight": w}
    given = samples.of_rows(P, targets.on_host(y, host), loss, P.shape[1], host, **how)
    Y, weights = given.target.Y.astype(np.float64), given.weights
    return scoring.r2_or_d2(
        loss, lambda a, b: Y[a:b], lambda a, b: None if weights is None else weights[a:b], len(P), [(0, len(P), P)]
    )


def plain_labels(y: Any, name: str = "y") -> Any:
    """Labels on the host in a dtype that holds them exactly, which scikit-learn takes; None as it is."""
    if y is None:
        return None
    found = targets.on_host(on_host(y), get_backend(HOST), name)
    column = found[:, 0] if found.ndim == 2 and found.shape[1] == 1 else found
    if column.ndim == 1 and column.dtype.kind not in "fc" and not labels.are_labels(column):
        labels.reject_labels(column, name)
    return found


def classes_and_rows(est: Any, X: Any, y: Any, reset: bool) -> tuple[Any, HostArray]:
    """X and labels (n,), or several labels a row, (n, K)."""
    X, y = checked(est, X, plain_labels(y), multi_output=True, reset=reset)
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
    require_unmasked(sample_weight, "sample_weight")
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
    """Of those rows (all, if None) of inputs, where they lie; sparse ones keep their zeros, and so their mean."""
    if features.compressed(X):
        part = X if rows is None else X[rows]
        largest = abs(part).max(axis=0).toarray()
        largest = np.where(largest > 0, largest, 1.0)  # whose squares may overflow, or vanish
        shares = part.multiply(1.0 / largest)
        squares = np.asarray(shares.multiply(shares).mean(axis=0)).reshape(1, -1)
        return Standard(np.zeros_like(squares), np.where(squares > 0, largest * np.sqrt(squares), 1.0))
    home = _home(X, backend)
    return Standard(*(home.to_host(each) for each in features.center_and_scale(home, X, rows)))


def _home(X: Any, backend: Backend) -> Backend:
    """Where X lies: on the backend or on the host."""
    return backend if library_of(X) == backend.name else get_backend(HOST)


def require_held(Y: HostArray, by: Standard, dtype: str) -> None:
    """Raise where predictions in the units of these targets would be infinite, or zero, in the working dtype."""
    largest, limits = float(np.abs(Y).max(initial=0.0)), np.finfo(dtype)
    if largest <= float(limits.max) and float(limits.tiny) <= by.scale.min():
        return
    got = f"values up to {largest:.3g}, whose smallest standard deviation is {by.scale.min():.3g}"
    remedy = "Scale them, or pass dtype='float64', which holds numbers from 1e-307 to 1e308."
    checks.reject("y", f"fit in {dtype}", got, remedy)


def in_units(by: Any, X: Any) -> Any:
    """Rows in units of their columns' standard deviations, where they lie; sparse ones are scaled alone."""
    mean, scale = by
    if not features.compressed(X):
        return (X - mean) / scale
    if mean.any():  # what is centred is sparse no more
        return (X.toarray() - mean) / scale
    return X.multiply(1.0 / scale).tocsr().astype(X.dtype, copy=False)


def prepared(X: Any, by: Standard | None, backend: Backend, dtype: str, dense: bool) -> Any:
    """The rows X to train on, on the backend: in units of their standard deviations, if there are any.

    Sparse rows stay on the host, from where they go to the backend batch by batch, unless they must be `dense`, or are
    centred. What is standardised is a copy, which is written block by block.
    """
    if features.compressed(X):
        if by is None or not by.mean.any():
            X = X.tocsr().astype(dtype, copy=False)
            X = X if by is None else in_units(by, X)
            return features.dense(X, backend) if dense else X
        X = X.tocsr()
    if by is None:
        return backend.asarray(X, dtype)
    home = _home(X, backend)
    units, working = [home.asarray(each, dtype) for each in by], home.dtype(dtype)

    def block(first: int, last: int) -> Any:
        rows = X[first:last].toarray() if features.compressed(X) else X[first:last, :]
        return in_units(units, home.xp.astype(rows, working, copy=False))

    n = X.shape[0]
    blocks = ((first, [block(first, last)]) for first, last in features.spans(n, BLOCK // max(X.shape[1], 1)))
    return backend.asarray(scoring.gathered(blocks, n, home)[0])
