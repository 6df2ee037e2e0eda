"""NumPy, on the host."""

from __future__ import annotations

import importlib
import importlib.metadata
import math
import os
import sys
import types
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Self

import numpy as np

from dlx.backend import Array, Backend, Function, HostArray, Loop, Namespace, host_array, namespace_of, warn

from . import _numpy_explained, _numpy_loops, _numpy_trace, no_device

VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_CORETYPE")
ROWS_AT_ONCE = 1024  # of a block in `sum_rows`
REPAYS_CLIP = 2048  # elements: `clip` takes 1 us more for a call, and a third of the time for an element (NumPy 2.4)
SAVED = 1.5e-9  # seconds that compiled loops save for each element, compared with blocks
IMPORTING, COMPILING, READING = 0.25, 0.5, 0.1  # seconds: to import numba, to compile four loops, to read them


def maximum(x: Array, bound: Array | float) -> Array:
    """np.maximum. For a large array and a number it uses `clip`, whose loop is vectorised; that of `maximum` is not."""
    if type(bound) is float and type(x) is np.ndarray and x.size > REPAYS_CLIP:
        return x.clip(bound, math.inf)
    return np.maximum(x, bound)


def _sum(x: Any, /, *, axis: Any = None, dtype: Any = None, keepdims: Any = False) -> Any:
    """np.sum of an array."""
    return np.add.reduce(x, axis=axis, dtype=dtype, keepdims=keepdims)


def _max(x: Any, /, *, axis: Any = None, keepdims: Any = False) -> Any:
    """np.max of an array."""
    return np.maximum.reduce(x, axis=axis, keepdims=keepdims)


def _argmax(x: Any, /, *, axis: Any = None, keepdims: bool = False) -> Any:
    """np.argmax of an array."""
    return x.argmax(axis=axis, keepdims=keepdims)


def _take(x: Any, indices: Any, /, *, axis: int | None = None) -> Any:
    """np.take of an array. It would first copy all of one that is not contiguous, as the columns of a table are not."""
    if axis == 0 and type(x) is np.ndarray and not x.flags.c_contiguous:
        return np.ascontiguousarray(x[indices])
    return x.take(indices, axis=axis)


def _astype(x: Any, dtype: Any, /, *, copy: bool = True) -> Any:
    """np.astype of an array."""
    return x.astype(dtype, copy=copy)


# NumPy's functions with these names also take other objects than arrays, which costs 1 us for each call: a tenth of an
# update of a small network.
STRAIGHT = {"sum": _sum, "max": _max, "argmax": _argmax, "take": _take, "astype": _astype}


def _namespace() -> Namespace:
    """The namespace of array_api_compat for NumPy, with the faster functions above."""
    compat = namespace_of(np.empty(0))
    namespace = types.ModuleType(compat.__name__)
    vars(namespace).update(vars(compat) | STRAIGHT | {"maximum": maximum})
    return namespace


NAMESPACE = _namespace()


class NumpyBackend(Backend):
    """NumPy arrays in the memory of the host.

    With `compiles`, numba compiles the formulas and steps that repay it; numba must be installed. None leaves the
    choice to `fit`, which knows the amount of work; with False nothing is compiled. The numbers are the same to the
    last bit.
    """

    name = "numpy"
    in_place = True
    multiplies_sparse = True
    elements_at_once = 1 << 16  # so few stay in cache

    def __init__(
        self, xp: Namespace, device: Any = None, name: str | None = None, compiles: bool | None = None
    ) -> None:
        super().__init__(xp, device, name)
        self.compiles = compiles
        self.updates = math.inf if compiles else 0.0  # of a training, as far as they are known

    @classmethod
    def open(cls, device: str | None) -> Self:
        """The backend for the selectors "numpy" and "numpy:cpu"."""
        if device not in (None, "cpu"):
            no_device("numpy", device, ["cpu"])
        return cls(NAMESPACE)

    @classmethod
    def of(cls, array: Array) -> Self:
        """The backend of any array, as NumPy has one device."""
        return cls.open(None)

    def asarray(self, x: Any, dtype: str | None = None) -> Array:
        """As in `Backend`. NumPy's own arrays are checked too: they may be masked, byte-swapped or not aligned."""
        return super().asarray(host_array(x), dtype)

    def transpose(self, x: Array) -> Array:
        """A view by an attribute, which is faster than a function."""
        return x.mT if type(x) is np.ndarray else x.T

    def product(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """The product a b by NumPy, written directly to `out`, or for a sparse `a` by SciPy."""
        if type(a) is np.ndarray or not hasattr(a, "format"):
            return np.matmul(a, b, out=out)
        if a.format == "csr":
            return a @ b
        return _sparse_product(a, b, np.empty((a.shape[0], b.shape[1]), b.dtype) if out is None else out)

    def placed(self, x: Any) -> Array:
        """As in `Backend`. A sparse matrix stays sparse."""
        return x if hasattr(x, "indptr") else self.asarray(x)

    def sum_rows(self, x: Array, out: Array | None = None) -> Array:
        """The sum over rows. Many are summed in blocks, as NumPy adds row after row, and float32 would lose digits.

        The numbers of a single column NumPy adds up by halves.
        """
        n = x.shape[-2]
        if n > ROWS_AT_ONCE and x.shape[-1] > 1:  # reduceat would take forty times as long
            if type(x) is not np.ndarray:  # a recording
                return x.sum_blocks(ROWS_AT_ONCE, out)
            firsts = range(0, n, ROWS_AT_ONCE)
            blocks = [np.add.reduce(x[..., k : k + ROWS_AT_ONCE, :], axis=-2, keepdims=True) for k in firsts]
            x = np.concatenate(blocks, axis=-2)
        return np.add.reduce(x, axis=-2, keepdims=True, out=out)

    def sum_squares(self, x: Array) -> Array:
        """The sum of squares, row by row by the BLAS: a third of the time, and as exact, as no row is long."""
        return np.add.reduce(np.vecdot(x, x), axis=-1)

    def seems_finite(self, x: Array) -> bool:
        """As in `Backend`, by a number of Python's."""
        return math.isfinite(np.add.reduce(x, axis=None))

    def fuse(self, function: Function, name: str) -> Function:
        """The formula as one loop for large arrays: compiled, or over blocks that stay in cache."""
        fused: Function = _numpy_loops.fused(function, name, bool(self.compiles))
        return fused

    def expecting(self, elements: float, updates: int = 0) -> Self:
        """A backend that compiles formulas or steps, if numba is installed and the work repays it; else this one."""
        if self.updates == math.inf:  # as its maker has chosen
            return self
        saved = elements * SAVED - (0.0 if "numba" in sys.modules else IMPORTING)
        repays = saved > READING and (saved > COMPILING or _numpy_loops.any_cached())
        compiles = True if self.compiles is None and repays and _has_numba() else self.compiles
        if compiles is self.compiles and not updates:
            return self
        other = type(self)(self.xp, self.device, compiles=compiles)
        other.updates, other.tf32 = float(updates), self.tf32
        return other

    def loop(self, step: Callable[..., tuple[Any, Array]], key: Hashable = None) -> Loop:
        """As in `Backend`. Steps are recorded, and compiled or replayed, where there are enough of them."""
        has_numba = _has_numba if self.compiles is not False else lambda: False
        return _numpy_trace.loop(step, key, super().loop(step, key), self.updates, has_numba)

    def explain(self, step: Callable[..., tuple[Any, Array]], carry: Any, constants: Any, inputs: Any) -> str:
        """What becomes of a step of `loop` with these arguments, as a text: its operations, and their source."""
        return _numpy_explained.explained(step, carry, constants, inputs)

    def outputs_to_host(self, outputs: Sequence[Array]) -> HostArray:
        """All outputs as one vector, of single ones and of vectors."""
        if len(outputs) == 1:
            return outputs[0].reshape(-1)  # type: ignore[no-any-return]
        return np.concatenate([x.reshape(-1) for x in outputs])

    def describe(self) -> dict[str, str]:
        """As in `Backend`, with the BLAS and its threads, which decide the speed, and the compiler of loops."""
        config: Any = np.show_config(mode="dicts")
        built_with = config.get("Build Dependencies", {}).get("blas", {})
        name = f"{built_with.get('name', 'unknown')} {built_with.get('version', '')}".strip()
        return super().describe() | {"BLAS": name, "BLAS threads": _threads(), "compiled loops": _compiler()}

    def arithmetic(self) -> dict[str, str]:
        """The versions of NumPy and the BLAS, and the threads among which the BLAS splits a product."""
        return super().arithmetic() | blas()


def _has_numba() -> bool:
    """Whether numba can be imported; warns if it is installed and cannot."""
    try:
        importlib.import_module("numba")
    except Exception as reason:  # numba refuses releases of NumPy that are newer than itself
        if not (isinstance(reason, ModuleNotFoundError) and reason.name == "numba"):
            text = f"numba is installed but cannot be imported, so that training is slower: {reason}"
            warn(text)
        return False
    return True


def _sparse_product(a: Any, b: Array, out: Array) -> Array:
    """The product a b for a transposed CSR matrix `a`. It computes only the rows that are not zero."""
    touched, places = np.unique(a.indices, return_inverse=True)
    few = type(a)((a.data, places, a.indptr), shape=(len(touched), a.shape[1]))
    out[...] = 0
    out[touched] = few @ b
    return out


def _compiler() -> str:
    """What compiles loops, in words."""
    try:
        return f"by numba {importlib.metadata.version('numba')}, in fits that repay it"
    except importlib.metadata.PackageNotFoundError:
        return "none; run: pip install 'dlx-nn[fast]'"


def _pools() -> list[dict[str, Any]] | None:
    """The BLAS libraries that are loaded; None if threadpoolctl, which is optional, is not installed."""
    try:
        threadpoolctl: Any = importlib.import_module("threadpoolctl")
    except ImportError:
        return None
    return [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]


def blas() -> dict[str, str]:
    """NumPy's BLAS, its kernels and its threads. SciPy may have loaded another BLAS."""
    pools = _pools()
    if pools is None:
        return {"BLAS environment": _environment()}
    own = [pool for pool in pools if "numpy" in pool["filepath"]] or pools
    names = {f"{pool['internal_api']} {pool['version']} {pool.get('architecture')}" for pool in own}
    threads = {str(pool["num_threads"]) for pool in own}
    return {"BLAS": ", ".join(sorted(names)), "BLAS threads": ", ".join(sorted(threads))}


def _environment() -> str:
    """The environment variables that set the threads and the kernels of the BLAS."""
    variables = [f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ]
    return ", ".join(variables) or f"as it chooses, of {os.cpu_count()} CPUs"


def _threads() -> str:
    """The threads of each BLAS that is loaded, or without threadpoolctl the environment variables."""
    pools = _pools()
    if pools is None:
        return _environment()
    return ", ".join(f"{pool['num_threads']} ({pool['internal_api']} {pool.get('architecture')})" for pool in pools)


BACKEND = NumpyBackend
