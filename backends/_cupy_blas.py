"""Matrix products of CuPy arrays by cuBLAS, through handles of dlx's own.

What shaped this file:

- CuPy tells its handle the stream before each product, and refuses to while the stream is being captured in a CUDA
  graph. cuBLAS itself allows a product there if the handle has its stream and its workspace already. So there is one
  handle for each stream, and a product on it sets nothing.
- A handle that chooses its workspace by itself may allocate memory within a capture. `use_workspace` gives it one.
- Whether float32 products may be TF32 is a setting of the handle. So a handle also has one setting for its whole life.
- Handles are not safe between threads: each thread has its own.
- A transposed view is multiplied as it is: cuBLAS reads matrices by columns, and the transposed matrix by rows.
"""

from __future__ import annotations

import ctypes
import functools
import math
import sys
import threading
from collections.abc import Callable
from typing import Any

import cupy

from dlx.backend import Array

HANDLES = 8  # for each thread; each has up to 32 MiB of device memory, which cuBLAS allocates
TF32 = 3  # CUBLAS_TF32_TENSOR_OP_MATH
_ADDRESS, _INT, _STRIDE, _SIZE = ctypes.c_void_p, ctypes.c_int, ctypes.c_longlong, ctypes.c_size_t
_OPERAND = [_ADDRESS, _INT]
_THREAD = threading.local()


class Handle:
    """A cuBLAS handle for the current stream of the current device."""

    def __init__(self, stream: int, tf32: bool) -> None:
        self.cublas, self.pointer = _library(), ctypes.c_void_p()
        _check("Create", self.cublas.cublasCreate_v2(ctypes.byref(self.pointer)))
        _check("SetStream", self.cublas.cublasSetStream_v2(self.pointer, ctypes.c_void_p(stream)))
        _check("SetMathMode", self.cublas.cublasSetMathMode(self.pointer, TF32 if tf32 else 0))

    def __del__(self) -> None:
        if self.pointer and not sys.is_finalizing():
            self.cublas.cublasDestroy_v2(self.pointer)


def product(a: Array, b: Array, out: Array | None, tf32: bool) -> Array:
    """The product a b of matrices, or of stacks of matrices that broadcast together, written to `out` if given."""
    kind = a.dtype.char
    if kind not in "fd" or b.dtype.char != kind or min(a.size, b.size) == 0 or min(a.ndim, b.ndim) < 2:
        return cupy.matmul(a, b, out=out)
    if out is not None and not out.flags.c_contiguous:
        out[...] = product(a, b, None, tf32)
        return out
    if a.shape[-1] != b.shape[-2]:
        return cupy.matmul(a, b, out=out)  # which raises
    stack = a.shape[:-2] if a.shape[:-2] == b.shape[:-2] else cupy.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    rows, inner = a.shape[-2:]
    columns = b.shape[-1]
    if out is None:
        out = cupy.empty((*stack, rows, columns), a.dtype)
    if len(stack) > 1:
        a, b = (cupy.broadcast_to(x, (*stack, *x.shape[-2:])).reshape(-1, *x.shape[-2:]) for x in (a, b))
        product(a, b, out.reshape(-1, rows, columns), tf32)
        return out
    (a, a_by_columns, a_step), (b, b_by_columns, b_step) = _operand(a), _operand(b)
    handle = _handle(tf32)
    # Row by row, the memory of C = A B is that of Cᵀ = Bᵀ Aᵀ column by column.
    leading = handle.pointer, b_by_columns, a_by_columns, columns, rows, inner
    one, zero = _numbers(kind)
    if not stack:
        operands = b.data.ptr, b_step, a.data.ptr, a_step, zero, out.data.ptr, columns
        _check("gemm", _function(kind, "gemm_v2")(*leading, one, *operands))
        return out
    a_stride, b_stride = _stride(a), _stride(b)
    stacks = b.data.ptr, b_step, b_stride, a.data.ptr, a_step, a_stride, zero, out.data.ptr, columns, rows * columns
    _check("gemm", _function(kind, "gemmStridedBatched")(*leading, one, *stacks, math.prod(stack)))
    return out


def use_workspace(workspace: Array, tf32: bool) -> None:
    """Let products on the current stream use this memory, which must live as long as a graph that contains them."""
    handle = _handle(tf32)
    status = handle.cublas.cublasSetWorkspace_v2(handle.pointer, _ADDRESS(workspace.data.ptr), _SIZE(workspace.nbytes))
    _check("SetWorkspace", status)


def _operand(x: Array) -> tuple[Array, int, int]:
    """A matrix as cuBLAS can read it: whether it lies by columns, and the elements from one row or column to the next.

    It is copied if neither its rows nor its columns are contiguous.
    """
    rows, columns = x.shape[-2:]
    down, right = (stride // x.itemsize for stride in x.strides[-2:])
    if (right == 1 or columns == 1) and (rows == 1 or down >= columns):
        return x, 0, columns if rows == 1 else down
    if (down == 1 or rows == 1) and (columns == 1 or right >= rows):
        return x, 1, rows if columns == 1 else right
    return cupy.ascontiguousarray(x), 0, columns


def _stride(x: Array) -> int:
    """The elements from one matrix of a stack to the next; 0 if there is only one."""
    return x.strides[0] // x.itemsize if x.ndim > 2 and x.shape[0] > 1 else 0


def _handle(tf32: bool) -> Handle:
    """This thread's handle for the current stream of the current device. The one unused for longest is dropped."""
    handles: dict[tuple[int, int, bool], Handle] = vars(_THREAD).setdefault("handles", {})
    key = cupy.cuda.runtime.getDevice(), cupy.cuda.get_current_stream().ptr, tf32
    handle = handles.pop(key, None) or Handle(key[1], tf32)
    handles[key] = handle
    if len(handles) > HANDLES:
        del handles[next(iter(handles))]
    return handle


@functools.cache
def _library() -> ctypes.CDLL:
    """The cuBLAS that CuPy has loaded."""
    major = cupy.cuda.runtime.runtimeGetVersion() // 1000
    cupy.cuda.device.get_cublas_handle()  # loads it
    return ctypes.CDLL(f"cublas64_{major}.dll" if sys.platform == "win32" else f"libcublas.so.{major}")


@functools.cache
def _function(kind: str, name: str) -> Callable[..., int]:
    """The product of cuBLAS for float32 "f" or float64 "d"."""
    function: Any = getattr(_library(), f"cublas{'S' if kind == 'f' else 'D'}{name}")
    number = ctypes.POINTER(ctypes.c_float if kind == "f" else ctypes.c_double)
    operand = [*_OPERAND, _STRIDE] if name == "gemmStridedBatched" else _OPERAND
    function.argtypes = [_ADDRESS, *[_INT] * 5, number, *operand, *operand, number, *operand]
    if name == "gemmStridedBatched":
        function.argtypes = [*function.argtypes, _INT]
    return function  # type: ignore[no-any-return]


@functools.cache
def _numbers(kind: str) -> tuple[Any, Any]:
    """Pointers to 1 and 0, the factors of the product and of what `out` held before."""
    number = ctypes.c_float if kind == "f" else ctypes.c_double
    return ctypes.pointer(number(1)), ctypes.pointer(number(0))


def _check(name: str, status: int) -> None:
    if status:
        raise RuntimeError(f"cublas{name} failed with status {status}")
