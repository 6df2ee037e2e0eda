"""The data of the estimators: checks by scikit-learn's own rules, the split for validation, and standardisation."""

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
from dlx.host import HostArray, require_rows, way_to_host

ELEMENTS_IN_CACHE = 1 << 18  # of a block of rows that is standardised at once


def dispatches() -> bool:
    """Whether scikit-learn computes with arrays of other libraries where they lie (its option array_api_dispatch)."""
    return bool(get_config()["array_api_dispatch"])


def checked(est: Any, X: Any, y: Any = "no_validation", **how: Any) -> Any:
    """X, or X and y, checked by scikit-learn: dense, CSR or CSC, floats, finite. `est` remembers the columns' names."""
    dtypes: list[Any] = [np.float64, np.float32]
    scope: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
    if library_of(X) not in (None, HOST) and not dispatches():
        X = _as_numpy(X)
    elif library_of(X) not in (None, HOST):
        backend = backend_of(X)
        X = backend.asarray(features.real_array(X, backend, "X"))  # detached from the gradients of PyTorch
        scope = backend.scope()  # so that copies stay on the device
        offered = backend.xp.__array_namespace_info__().dtypes(kind="real floating", device=backend.device)
        dtypes = [offered[name] for name in ("float64", "float32") if name in offered]
    if est.dtype is not None:
        dtypes = [dtype for dtype in dtypes if getattr(dtype, "__name__", str(dtype)).endswith(est.dtype)]
    require_rows(X, "X")
    for name, array in (("X", X), ("y", y)):
        require_unmasked(array, name)
    if columns.hold_times(X):
        features.real_array(X, get_backend(HOST), "X")
    try:
        with scope:
            return validate_data(est, X, y, accept_sparse=["csr", "csc"], dtype=dtypes, **how)
    except (ValueError, TypeError, ArithmeticError) as reason:
        text = _better_text(X, str(reason))
        if text is None and isinstance(reason, ArithmeticError):
            text = (
                f"`y` must hold numbers that float64 holds; got one that raises {reason}. Scale it, or drop such rows."
            )
        if text is None:
            raise
        raise (TypeError if isinstance(reason, TypeError) else ValueError)(text) from reason


def _better_text(X: Any, reason: str) -> str | None:
    """An error text that names the bad column of `X`; None if scikit-learn's own text is as good."""
    names = columns.column_names(X)
    if names is not None and reason.startswith("Input X contains"):
        row, column = np.argwhere(~np.isfinite(features.as_array(X, "X").astype(np.float64)))[0]
        return f"{reason}\nThe first is at row {row}, column {names[column]!r}."
    about_columns = names is not None or "could not convert" in reason or "too large to convert" in reason
    odd = columns.odd(X, "X", mixed_alone=True) if about_columns else None
    return None if odd is None else f"`X` must hold real numbers; got {odd.got}. {odd.remedy}"


def _as_numpy(X: Any) -> HostArray:
    """An array of another library as a NumPy array. Raises if NumPy cannot read it, for example from a GPU."""
    try:
        return np.asarray(X)
    except (TypeError, RuntimeError) as reason:
        remedy = f"Pass {way_to_host(X, 'X')}, or call sklearn.set_config(array_api_dispatch=True)."
        got = f"one of {library_of(X)}: {reason}".rstrip(".")
        checks.reject("X", "be an array that NumPy can take", got, remedy, TypeError)


def require_unmasked(x: Any, name: str) -> None:
    """Raise for a masked array, because scikit-learn's checks take its masked values for data."""
    if isinstance(x, np.ma.MaskedArray):
        host_array(x, name)


def require_same_place(X: Any, W: Any, name: str) -> None:
    """Raise unless X lies where the weights W lie, which array_api_dispatch demands of a prediction."""
    actual, expected = backend_of(X if library_of(X) else np.empty(0)), backend_of(W)
    if actual != expected:
        raise ValueError(
            f"Inputs passed to {name} must use the same namespace and the same device as those passed to fit(); "
            f"got {actual.selector}, and {expected.selector} before. Move X there."
        )


def dense_on_host(y: Any) -> Any:
    """Targets or weights, dense and on the host, where scikit-learn checks them."""
    if features.compressed(y):
        return y.toarray()
    return y if library_of(y) in (None, HOST) else backend_of(y).to_host(y)


def rows_and_real_targets(est: Any, X: Any, y: Any, reset: bool) -> tuple[Any, HostArray]:
    """X and real targets (n,) or (n, K), checked."""
    X, y = checked(est, X, dense_on_host(y), multi_output=True, y_numeric=True, reset=reset)
    if y.dtype.kind not in "biuf":
        remedy = "Convert it with y.astype(float); for labels use MLPClassifier."
        checks.reject("y", "hold real numbers", f"dtype {y.dtype}", remedy, TypeError)
    if y.ndim == 2 and y.shape[1] == 1:
        y = column_or_1d(y, warn=True)
    return X, y if y.dtype.kind == "f" else y.astype(np.float64)


def regression_score(loss: losses.Loss, y: Any, predictions: Any, sample_weight: Any) -> float:
    """R², or D² for quantiles, of predictions (n,) or (n, K) of real targets, as `Network.score` computes it."""
    host, y, predictions, w = get_backend(HOST), *map(dense_on_host, (y, predictions, sample_weight))
    P = np.asarray(predictions, np.float64).reshape(len(predictions), -1)
    how = {"missing": None, "sample_weight": w}
    truth = samples.of_rows(P, targets.on_host(y, host), loss, P.shape[1], host, **how)
    Y, weights = truth.target.Y.astype(np.float64), truth.weights
    return scoring.r2_or_d2(
        loss, lambda a, b: Y[a:b], lambda a, b: None if weights is None else weights[a:b], len(P), [(0, len(P), P)]
    )


def plain_labels(y: Any, name: str = "y") -> Any:
    """Labels on the host in a dtype that holds them exactly and that scikit-learn takes; None if `y` is None."""
    if y is None:
        return None
    plain = targets.on_host(dense_on_host(y), get_backend(HOST), name)
    column = plain[:, 0] if plain.ndim == 2 and plain.shape[1] == 1 else plain
    if column.ndim == 1 and column.dtype.kind not in "fc" and not labels.are_labels(column):
        labels.reject_labels(column, name)
    return plain


def rows_and_labels(est: Any, X: Any, y: Any, reset: bool) -> tuple[Any, HostArray]:
    """X and labels (n,), or several labels a row (n, K), checked."""
    X, y = checked(est, X, plain_labels(y), multi_output=True, reset=reset)
    return X, column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y


def require_classes(est: Any, classes: Any) -> None:
    """Raise unless `classes` are passed in the first call of `partial_fit`, and are the same or None in later ones."""
    known = getattr(est, "classes_", None)
    if classes is None:
        if known is None:
            raise ValueError("classes must be passed on the first call to partial_fit.")
        return
    passed = plain_labels(classes, "classes")
    passed = np.arange(passed.shape[1]) if passed.ndim == 2 else labels.distinct(passed)[0]
    if known is None:
        est.classes_ = passed
    elif passed.tolist() != known.tolist():
        raise ValueError(f"`classes={classes!r}` is not the same as on last call to partial_fit, was: {est.classes_!r}")


def require_whole_validation(X_val: Any, y_val: Any, sample_weight_val: Any) -> None:
    """Raise if X_val or y_val is missing while another part of the user's own validation rows is passed."""
    if (X_val is None) != (y_val is None):
        checks.reject("X_val", "come with y_val", "one of them", "Pass both to fit.")
    if X_val is None and sample_weight_val is not None:
        checks.reject("sample_weight_val", "come with X_val and y_val", "it alone", "Pass all three to fit.")


def sample_weights(sample_weight: Any, X: Any) -> HostArray | None:
    """The weights (n,) of the rows in double precision, checked; None if there are none."""
    if sample_weight is None:
        return None
    require_unmasked(sample_weight, "sample_weight")
    rows = np.empty((X.shape[0], 1))  # in place of X, which may lie on a device, where weights are not needed yet
    weights = dense_on_host(sample_weight)
    checked_weights: HostArray = _check_sample_weight(weights, rows, dtype=np.float64, ensure_non_negative=True)
    return checked_weights


def validation_split(
    n: int, share: float, groups: HostArray | None, state: np.random.RandomState
) -> tuple[HostArray, HostArray]:
    """Row numbers to train on and to validate on, by scikit-learn's own split; class numbers keep their proportions.

    `groups` are the class numbers. If a class has too few rows for both sides, rows are drawn regardless of classes,
    and then at least one row of each class is put on the side to train on.
    """
    counts = np.zeros(0) if groups is None else np.unique(groups, return_counts=True)[1]
    held_out = int(np.ceil(share * n))
    too_few = bool(len(counts)) and (counts.min() < 2 or min(held_out, n - held_out) < len(counts))
    how = {"random_state": state, "test_size": share, "stratify": None if too_few else groups}
    rows, held_out_rows = train_test_split(np.arange(n), **how)
    if too_few and groups is not None:
        rows, held_out_rows = _with_one_of_each(groups, rows, held_out_rows)
    if len(held_out_rows) < 2:
        got = f"{len(held_out_rows)} of {n} rows"
        raise ValueError(f"The validation set is too small: {got}. Raise validation_fraction, or pass more.")
    return rows, held_out_rows


def _with_one_of_each(groups: HostArray, rows: HostArray, held_out_rows: HostArray) -> tuple[HostArray, HostArray]:
    """The split with a row of each class to train on, exchanged for a row of a class that has more of them there."""
    rows, held_out_rows = rows.copy(), held_out_rows.copy()
    for group in np.setdiff1d(groups[held_out_rows], groups[rows]):
        numbers, counts = np.unique(groups[rows], return_counts=True)
        spare = np.flatnonzero(np.isin(groups[rows], numbers[counts > 1]))
        wanted = np.flatnonzero(groups[held_out_rows] == group)[0]
        if len(spare):
            rows[spare[-1]], held_out_rows[wanted] = held_out_rows[wanted], rows[spare[-1]]
    return rows, held_out_rows


class Standard(NamedTuple):
    """The mean and the scale (1, d) of columns, on the host; (x - mean) / scale is standardised. Pickles name it."""

    mean: HostArray
    scale: HostArray


def standard_of_inputs(X: Any, rows: HostArray | None, backend: Backend) -> Standard:
    """The standard of the columns of X, over `rows` or over all if that is None, computed where X lies.

    The means of sparse columns are taken as 0, so that zeros stay zeros.
    """
    if features.compressed(X):
        part = X if rows is None else X[rows]
        largest = abs(part).max(axis=0).toarray()
        largest = np.where(largest > 0, largest, 1.0)  # divided by it, as squares may overflow or vanish
        shares = part.multiply(1.0 / largest)
        squares = np.asarray(shares.multiply(shares).mean(axis=0)).reshape(1, -1)
        return Standard(np.zeros_like(squares), np.where(squares > 0, largest * np.sqrt(squares), 1.0))
    home = _home(X, backend)
    return Standard(*(home.to_host(x) for x in features.center_and_scale(home, X, rows)))


def _home(X: Any, backend: Backend) -> Backend:
    """The backend where X lies: the one that is passed, or that of the host."""
    return backend if library_of(X) == backend.name else get_backend(HOST)


def require_scale_fits(Y: HostArray, standard: Standard, dtype: str) -> None:
    """Raise if predictions in the units of these targets would be infinite, or zero, in the working dtype."""
    largest, limits = float(np.abs(Y).max(initial=0.0)), np.finfo(dtype)
    if largest <= float(limits.max) and float(limits.tiny) <= standard.scale.min():
        return
    got = f"values up to {largest:.3g}, whose smallest standard deviation is {standard.scale.min():.3g}"
    remedy = "Scale them, or pass dtype='float64', which holds numbers from 1e-307 to 1e308."
    checks.reject("y", f"fit in {dtype}", got, remedy)


def standardized(standard: Any, X: Any) -> Any:
    """(X - mean) / scale, where X lies, for a pair (mean, scale); sparse rows stay sparse if all means are 0."""
    mean, scale = standard
    if not features.compressed(X):
        return (X - mean) / scale
    if mean.any():  # centred rows are dense
        return (X.toarray() - mean) / scale
    return X.multiply(1.0 / scale).tocsr().astype(X.dtype, copy=False)


def training_rows(X: Any, standard: Standard | None, backend: Backend, dtype: str, dense: bool) -> Any:
    """The rows X to train on, on the backend, standardised if there is a standard.

    Sparse rows stay on the host, from where they go to the backend batch by batch, unless they are centred or must be
    `dense`. Standardised rows are a copy, which is written block by block.
    """
    if features.compressed(X):
        if standard is None or not standard.mean.any():
            X = X.tocsr().astype(dtype, copy=False)
            X = X if standard is None else standardized(standard, X)
            return features.dense(X, backend) if dense else X
        X = X.tocsr()
    if standard is None:
        return backend.asarray(X, dtype)
    home = _home(X, backend)
    constants, working = [home.asarray(x, dtype) for x in standard], home.dtype(dtype)

    def block(first: int, last: int) -> Any:
        rows = X[first:last].toarray() if features.compressed(X) else X[first:last, :]
        return standardized(constants, home.xp.astype(rows, working, copy=False))

    n = X.shape[0]
    blocks = (
        (first, [block(first, last)]) for first, last in features.spans(n, ELEMENTS_IN_CACHE // max(X.shape[1], 1))
    )
    return backend.asarray(scoring.gathered(blocks, n, home)[0])
