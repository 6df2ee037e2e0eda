"""NumPy's own inner loops, called by address: what a ufunc runs once it has looked at its arguments.

What shaped it:

- A compiled function has no Python objects, but the bits of a product, a sum or an exponential shall be NumPy's, and
  its BLAS and vectorised functions are the fastest at hand. A ufunc's inner loops stand in its C structure, whose
  layout is public (numpy/ufuncobject.h) and has not changed since NumPy 1.0.
- An inner loop takes the addresses of its arrays, the sizes of its loops, and the strides. They are written to a table
  once, as all arrays stay where they are.
- Nothing here is taken on trust: before the first use, `work` compares loops with the functions themselves.
"""

from __future__ import annotations

import ctypes
import functools
import sys
import timeit
from collections.abc import Sequence
from typing import Any

import numpy as np

from dlx.backend import HostArray

WIDTH = 22  # of a table's row: function, data, repeats, 3 addresses, their 3 increments, 4 sizes, 9 strides
SAMPLE = 37  # elements
NOTHING = [0] * WIDTH  # the row of no call
SMALL = 1_000_000  # multiplications of a product: those of OpenBLAS's kernels for small ones
MOST_COPIED = 1 << 14  # elements of a factor: more of them leave the cache
LONG = 20_000  # elements: NumPy 2.1 adds so many up in pieces, which no inner loop does


class _UFunc(ctypes.Structure):
    """The beginning of PyUFuncObject."""

    _fields_ = (
        ("head", ctypes.c_byte * object.__basicsize__),
        *((name, ctypes.c_int) for name in ("nin", "nout", "nargs", "identity")),
        ("functions", ctypes.POINTER(ctypes.c_void_p)),
        ("data", ctypes.POINTER(ctypes.c_void_p)),
    )


@functools.cache
def address(ufunc: Any, dtype: Any) -> tuple[int, int]:
    """The address of the ufunc's inner loop for arrays that all have this dtype, and of its data."""
    types = f"{dtype.char * ufunc.nin}->{dtype.char * ufunc.nout}"
    structure = _UFunc.from_address(id(ufunc))
    known = ufunc.nin, ufunc.nout, ufunc.nin + ufunc.nout
    if sys.implementation.name != "cpython" or (structure.nin, structure.nout, structure.nargs) != known:
        raise ValueError("NumPy's ufuncs have another layout")
    number = ufunc.types.index(types)
    function = structure.functions[number]
    if not function:
        raise ValueError(f"numpy.{ufunc.__name__} has no such loop")
    return function, (structure.data[number] or 0) if structure.data else 0


def row(
    ufunc: Any,
    arrays: Sequence[HostArray],
    sizes: Sequence[int],
    strides: Sequence[int],
    repeats: int = 1,
    increments: Sequence[int] = (),
) -> list[int]:
    """A call as a row of the table. Each repeat moves the arrays by the increments, which are in bytes."""

    def filled(numbers: Sequence[int], n: int) -> list[int]:
        return [*numbers, *[0] * (n - len(numbers))]

    places = [array.__array_interface__["data"][0] for array in arrays]
    parts = filled(places, 3), filled(increments, 3), filled(sizes, 4), filled(strides, 9)
    return [*address(ufunc, arrays[0].dtype), repeats, *(number for part in parts for number in part)]


def elementwise(ufunc: Any, x: HostArray, out: HostArray) -> list[int]:
    """The call of ``ufunc(x, out=out)``, of contiguous arrays."""
    return row(ufunc, (x, out), (x.size,), (x.itemsize, out.itemsize))


def product(a: HostArray, b: HostArray, out: HostArray) -> list[int]:
    """The call of ``np.matmul(a, b, out=out)``."""
    sizes, strides = (1, *a.shape, b.shape[1]), (0, 0, 0, *a.strides, *b.strides, *out.strides)
    return row(np.matmul, (a, b, out), sizes, strides)


def copy(x: HostArray, out: HostArray) -> list[int]:
    """The calls that copy the matrix to `out`, row by row."""
    increments = x.strides[0], out.strides[0]
    return row(np.positive, (x, out), (x.shape[1],), (x.strides[1], out.strides[1]), x.shape[0], increments)


def dots(x: HostArray, out: HostArray) -> list[int]:
    """The call of ``np.vecdot(x, x, out=out)``."""
    strides = (x.strides[0], x.strides[0], out.strides[0], x.strides[1], x.strides[1])
    return row(np.vecdot, (x, x, out), x.shape, strides)


def total(x: HostArray, out: HostArray) -> list[int]:
    """The call that adds the sum of all elements of a contiguous array to the only one of `out`."""
    return row(np.add, (out, x, out), (x.size,), (0, x.itemsize, 0))


def sums_of_rows(x: HostArray, out: HostArray) -> list[int]:
    """The calls that add the sum of each row to `out`, (n, 1)."""
    increments = (out.strides[0], x.strides[0], out.strides[0])
    return row(np.add, (out, x, out), (x.shape[1],), (0, x.strides[1], 0), x.shape[0], increments)


@functools.cache
def repays_copy(m: int, k: int, n: int, dtype: Any) -> bool:
    """Whether ``a @ b.T``, of (m, k) and (n, k), is faster with a copy of ``b.T``, and to the same bits.

    OpenBLAS has kernels for small products, of which those for transposed matrices take twice as long.
    """
    if k * n > MOST_COPIED or m * k * n > SMALL:
        return False
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape, dtype) for shape in ((m, k), (n, k)))
    copied, out, other = np.empty((k, n), dtype), np.empty((m, n), dtype), np.empty((m, n), dtype)

    def with_copy() -> None:
        copied[...] = b.T
        np.matmul(a, copied, out=other)

    def without() -> None:
        np.matmul(a, b.T, out=out)

    seconds = [min(timeit.repeat(way, number=2, repeat=10)) for way in (with_copy, without)]
    return seconds[0] < seconds[1] and bool(np.all(out == other))


def run(table: HostArray) -> None:
    """Make the calls of a table, one after the other."""
    inner = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 4)
    for function, data, repeats, *numbers in table.tolist():
        for repeat in range(repeats):
            places = [place + repeat * step for place, step in zip(numbers[:3], numbers[3:6], strict=True)]
            parts = [np.asarray(part, np.int64) for part in (places, numbers[6:10], numbers[10:])]
            inner(function)(*(part.ctypes.data for part in parts), data)


@functools.cache
def work(dtype: Any) -> bool:
    """Whether the inner loops are found and give the bits of their functions."""
    x = np.linspace(0.1, 3.0, SAMPLE * SAMPLE, dtype=dtype).reshape(SAMPLE, SAMPLE)
    new = [np.zeros_like(x) for _ in range(7)]
    sums, squares = np.zeros((SAMPLE, 1), dtype), np.zeros(SAMPLE, dtype)
    long, total_of_x, total_of_long = np.resize(x, LONG) * x[0, 1], np.zeros(1, dtype), np.zeros(1, dtype)
    ufuncs = (np.exp, np.expm1, np.log, np.log1p, np.tanh)
    try:
        calls = [elementwise(ufunc, x, out) for ufunc, out in zip(ufuncs, new, strict=False)]
        calls += [product(x, x.T, new[5]), copy(x.T, new[6]), dots(x, squares), sums_of_rows(x, sums)]
        run(np.asarray([*calls, total(x, total_of_x), total(long, total_of_long)]))
    except (ValueError, IndexError):  # there is no such loop
        return False
    expected = [ufunc(x) for ufunc in ufuncs] + [x @ x.T, x.T]
    new += [squares, sums[:, 0], total_of_x, total_of_long]
    expected += [np.vecdot(x, x), np.add.reduce(x, axis=-1), np.add.reduce(x, axis=None), np.add.reduce(long, axis=-1)]
    return all(bool(np.all(found == right)) for found, right in zip(new, expected, strict=True))
