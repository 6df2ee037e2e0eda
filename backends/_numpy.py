"""NumPy, on the host."""

from __future__ import annotations

import copy
import importlib
import importlib.metadata
import math
import os
import sys
import types
from typing import Any, Self

import numpy as np

from dlx.backend import Array, Backend, Function, Namespace, host_array, namespace_of, warn

from . import _numpy_loops, no_device

VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_CORETYPE")
ROWS_AT_ONCE = 1024
REPAYS_CLIP = 2048  # elements: 1 us a call more, a third of the time an element (NumPy 2.4)
SAVED = 1.5e-9  # seconds an element, by compiled loops in place of blocks
IMPORTING, COMPILING, READING = 0.25, 0.5, 0.1  # seconds: numba, four loops, and those from the cache on disk


def maximum(x: Array, bound: Array | float) -> Array:
    """NumPy's own, but of a large array and a number by `clip`: its loop is vectorised, that of `maximum` is not."""
    if type(bound) is float and type(x) is np.ndarray and x.size > REPAYS_CLIP:
        return x.clip(bound, math.inf)
    return np.maximum(x, bound)


def _sum(x: Any, /, *, axis: Any = None, dtype: Any = None, keepdims: Any = False) -> Any:
    return np.add.reduce(x, axis=axis, dtype=dtype, keepdims=keepdims)


def _max(x: Any, /, *, axis: Any = None, keepdims: Any = False) -> Any:
    return np.maximum.reduce(x, axis=axis, keepdims=keepdims)


def _take(x: Any, indices: Any, /, *, axis: int | None = None) -> Any:
    return x.take(indices, axis=axis)


def _astype(x: Any, dtype: Any, /, *, copy: bool = True) -> Any:
    return x.astype(dtype, copy=copy)


# what NumPy's functions of these names come to, without 1 us a call for what may not be an array: of small networks
# that is a tenth of an update
STRAIGHT = {"sum": _sum, "max": _max, "take": _take, "astype": _astype}


def _namespace() -> Namespace:
    compat = namespace_of(np.empty(0))
    found = types.ModuleType(compat.__name__)
    vars(found).update(vars(compat) | STRAIGHT | {"maximum": maximum})
    return found


NAMESPACE = _namespace()


class NumpyBackend(Backend):
    """NumPy arrays in the host's memory.

    Where `compiles`, the formulas that repay it are compiled by numba, which must be installed; None leaves that to
    `fit`, by the work at hand. The numbers are the same, to the last bit.
    """

    name = "numpy"
    in_place = True
    multiplies_sparse = True
    elements_at_once = 1 << 16  # which stay in cache

    def __init__(
        self, xp: Namespace, device: Any = None, name: str | None = None, compiles: bool | None = None
    ) -> None:
        super().__init__(xp, device, name)
        self.compiles = compiles

    @classmethod
    def open(cls, device: str | None) -> Self:
        """Of the selectors "numpy" and "numpy:cpu"."""
        if device not in (None, "cpu"):
            no_device("numpy", device, ["cpu"])
        return cls(NAMESPACE)

    @classmethod
    def of(cls, array: Array) -> Self:
        """NumPy has one device."""
        return cls.open(None)

    def asarray(self, x: Any, dtype: str | None = None) -> Array:
        """NumPy's own arrays too may be masked, of foreign byte order or not aligned."""
        return super().asarray(host_array(x), dtype)

    def transpose(self, x: Array) -> Array:
        """A view, without the cost of a function's call."""
        return x.mT if type(x) is np.ndarray else x.T

    def product(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """NumPy's own, straight into `out`; of a sparse matrix SciPy's own."""
        if type(a) is np.ndarray:
            return np.matmul(a, b, out=out)
        return _sparse_product(a, b, np.empty((a.shape[0], b.shape[1]), b.dtype) if out is None else out)

    def placed(self, x: Any) -> Array:
        """A sparse matrix stays one."""
        return x if hasattr(x, "indptr") else self.asarray(x)

    def sum_rows(self, x: Array, out: Array | None = None) -> Array:
        """In blocks where there are many: NumPy adds one row after the other, and float32 would drift."""
        n = x.shape[-2]
        if n > ROWS_AT_ONCE:  # not by reduceat, which takes forty times as long
            firsts = range(0, n, ROWS_AT_ONCE)
            blocks = [np.add.reduce(x[..., k : k + ROWS_AT_ONCE, :], axis=-2, keepdims=True) for k in firsts]
            x = np.concatenate(blocks, axis=-2)
        return np.add.reduce(x, axis=-2, keepdims=True, out=out)

    def sum_squares(self, x: Array) -> Array:
        """Row by row by the BLAS: a third of the time, and no less exact, for no row is long."""
        return np.add.reduce(np.vecdot(x, x), axis=-1)

    def fuse(self, function: Function, name: str) -> Function:
        """One loop, compiled or over blocks that stay in cache, where the arrays are large enough."""
        fused: Function = _numpy_loops.fused(function, name, bool(self.compiles))
        return fused

    def expecting(self, elements: float) -> Self:
        """One that compiles, if numba is installed and so much work repays it."""
        saved = elements * SAVED - (0.0 if "numba" in sys.modules else IMPORTING)
        if self.compiles is not None or saved < READING or (saved < COMPILING and not _numpy_loops.any_kept()):
            return self
        try:
            importlib.import_module("numba")
        except Exception as reason:  # numba refuses releases of NumPy that are newer than itself
            if not (isinstance(reason, ModuleNotFoundError) and reason.name == "numba"):
                text = f"numba is installed but cannot be imported, so that training is slower: {reason}"
                warn(text)
            return self
        found = copy.copy(self)
        found.compiles = True
        return found

    def describe(self) -> dict[str, str]:
        """Its BLAS decides its speed, and the threads of the BLAS."""
        found: Any = np.show_config(mode="dicts")
        blas = found.get("Build Dependencies", {}).get("blas", {})
        facts = super().describe() | {"BLAS": f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip()}
        return facts | {"BLAS threads": _threads(), "compiled loops": _compiler()}

    def arithmetic(self) -> dict[str, str]:
        """The products are the BLAS's, which splits them among its threads."""
        return super().arithmetic() | blas()


def _sparse_product(a: Any, b: Array, out: Array) -> Array:
    """a b for a transposed CSR matrix: only rows that are not zero are computed, and nothing is as large as `out`."""
    touched, places = np.unique(a.indices, return_inverse=True)
    few = type(a)((a.data, places, a.indptr), shape=(len(touched), a.shape[1]))
    out[...] = 0
    out[touched] = few @ b
    return out


def _compiler() -> str:
    try:
        return f"by numba {importlib.metadata.version('numba')}, in fits that repay it"
    except importlib.metadata.PackageNotFoundError:
        return "none; run: pip install 'dlx-nn[fast]'"


def _pools() -> list[dict[str, Any]] | None:
    """The BLAS libraries that are loaded; None where threadpoolctl, which is optional, is not there to say."""
    try:
        threadpoolctl: Any = importlib.import_module("threadpoolctl")
    except ImportError:
        return None
    return [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]


def blas() -> dict[str, str]:
    """NumPy's BLAS, its kernels and its threads: not that of SciPy, which may be loaded beside it."""
    pools = _pools()
    if pools is None:
        return {"BLAS environment": _environment()}
    own = [pool for pool in pools if "numpy" in pool["filepath"]] or pools
    named = {f"{pool['internal_api']} {pool['version']} {pool.get('architecture')}" for pool in own}
    threads = {str(pool["num_threads"]) for pool in own}
    return {"BLAS": ", ".join(sorted(named)), "BLAS threads": ", ".join(sorted(threads))}


def _environment() -> str:
    told = [f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ]
    return ", ".join(told) or f"as it chooses, of {os.cpu_count()} CPUs"


def _threads() -> str:
    pools = _pools()
    if pools is None:  # the environment is all there is to say
        return _environment()
    return ", ".join(f"{pool['num_threads']} ({pool['internal_api']} {pool.get('architecture')})" for pool in pools)


BACKEND = NumpyBackend
