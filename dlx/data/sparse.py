"""SciPy's matrices, which hold what is not zero alone: by their own methods, so that SciPy need not be there."""

from __future__ import annotations

from typing import Any

import numpy as np

from dlx import checks

HostArray = np.ndarray[Any, Any]


def compressed(X: Any) -> bool:
    """Whether `X` is a matrix or array of SciPy's that holds what is not zero alone."""
    return hasattr(X, "tocsr") and any(each.__module__.partition(".")[0] == "scipy" for each in type(X).__mro__)


def as_csr(X: Any, name: str) -> Any:
    """The same matrix in CSR format, where each row's columns are sorted and distinct; itself, if it is such a one."""
    if X.dtype.kind not in "biuf":
        got, remedy = f"dtype {X.dtype}", "Encode its columns as numbers first."
        checks.reject(name, "hold real numbers", got, remedy, TypeError)
    if X.ndim != 2:
        remedy = f"One sample is {name}.reshape(1, -1)."
        checks.reject(name, "have shape (n, d0): rows are samples", X.shape, remedy)
    if hasattr(X, "check_format"):
        try:
            X.check_format(full_check=True)
        except ValueError as reason:  # whoever multiplied it would read beyond its memory
            got, remedy = f"one of which it says: {reason}", "Build it anew, from rows and columns within its shape."
            checks.reject(name, "be a matrix that SciPy calls valid", got, remedy)
    X = (X.astype(np.float32) if X.dtype == np.float16 else X).tocsr()  # of halves SciPy has no products
    if not X.has_canonical_format:
        X = X.copy()
        X.sum_duplicates()
    return X


def as_dtype(X: Any, dtype: str, name: str) -> Any:
    """The matrix `X`, as `as_csr` gives it, in that dtype, in which its values must be finite."""
    found = X.astype(dtype, copy=False)
    bad = np.flatnonzero(~np.isfinite(found.data))
    if bad.size:
        row, column = int(np.searchsorted(X.indptr, bad[0], side="right")) - 1, int(X.indices[bad[0]])
        got = f"{found.data[bad[0]]} at row {row}, column {column}"
        checks.reject(name, f"be finite in {found.dtype}", got, "Fill or drop such values, or scale the column.")
    return found


def parts(X: Any) -> tuple[HostArray, HostArray, HostArray]:
    """What tells `X` from other matrices of its shape and dtype: where each row begins, columns, values other than 0.

    The same matrix gives the same, whatever its format and index dtype, and whatever zeros it holds.
    """
    X = as_csr(X, "X")
    if not X.data.all():
        X = X.copy()
        X.eliminate_zeros()
    return X.indptr.astype(np.int64), X.indices.astype(np.int64), X.data
