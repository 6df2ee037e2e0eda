"""Sparse matrices of SciPy. Only their own methods are used, so that SciPy need not be installed."""

from __future__ import annotations

from typing import Any

import numpy as np

from dlx import checks
from dlx.host import HostArray


def compressed(X: Any) -> bool:
    """Whether `X` is a sparse matrix or a sparse array of SciPy."""
    return hasattr(X, "tocsr") and any(parent.__module__.partition(".")[0] == "scipy" for parent in type(X).__mro__)


def as_csr(X: Any, name: str) -> Any:
    """`X` in CSR format with sorted and distinct columns in each row, checked; `X` itself if it has this format."""
    if X.dtype.kind not in "biuf":
        got, remedy = f"dtype {X.dtype}", "Encode its columns as numbers first."
        checks.reject(name, "hold real numbers", got, remedy, TypeError)
    if X.ndim != 2:
        remedy = f"One sample is {name}.reshape(1, -1)."
        checks.reject(name, "have shape (n, d0): rows are samples", X.shape, remedy)
    if hasattr(X, "check_format"):
        try:
            X.check_format(full_check=True)
        except ValueError as reason:  # a product with it would read beyond its memory
            got, remedy = f"one of which it says: {reason}", "Build it anew, from rows and columns within its shape."
            checks.reject(name, "be a matrix that SciPy calls valid", got, remedy)
    X = (X.astype(np.float32) if X.dtype == np.float16 else X).tocsr()  # SciPy has no products in float16
    if not X.has_canonical_format:
        X = X.copy()
        X.sum_duplicates()
    return X


def as_dtype(X: Any, dtype: str, name: str) -> Any:
    """`X`, a result of `as_csr`, in this dtype. Raises where a value is not finite in it."""
    converted = X.astype(dtype, copy=False)
    bad = np.flatnonzero(~np.isfinite(converted.data))
    if bad.size:
        row, column = int(np.searchsorted(X.indptr, bad[0], side="right")) - 1, int(X.indices[bad[0]])
        got = f"{converted.data[bad[0]]} at row {row}, column {column}"
        checks.reject(name, f"be finite in {converted.dtype}", got, "Fill or drop such values, or scale the column.")
    return converted


def canonical_parts(X: Any) -> tuple[HostArray, HostArray, HostArray]:
    """The starts of rows, the columns and the values of `X`, all for values other than 0.

    Equal matrices give equal parts, whatever their format and index dtype, and whether or not they store zeros.
    """
    X = as_csr(X, "X")
    if not X.data.all():
        X = X.copy()
        X.eliminate_zeros()
    return X.indptr.astype(np.int64), X.indices.astype(np.int64), X.data
