"""A recorded step on NumPy as one function for many steps, which numba compiles.

What shaped it:

- Every array lies where it lay when the step was recorded: other arrays are another recording. Nothing is allocated in
  a step; arrays of a step's own that are not alive at the same time share memory.
- Sizes, numbers and addresses are arguments, so that the text of the function is the same for many networks. Its
  machine code is cached on disk by this text, as that of `_numpy_loops` is.
- The function holds no lock of Python's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from dlx.backend import HostArray, InPlace, each_of

from . import _numpy_inner, _numpy_loops
from ._table import leaves_of
from ._trace import Program, Unrecordable
from ._trace_recording import NUMPY, Number, Recording, RowNumbers
from ._trace_source import Source, source_of
from ._trace_writer import Call, laid_out

ALIGNED = 64  # bytes
NAME = "steps"
PREAMBLE = '''"""Many training steps; written by dlx."""
import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic


@intrinsic
def invoke(context, function, places, sizes, strides, data):
    """Call the function at this address."""
    def code(context, builder, signature, arguments):
        pointer = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer] * 4).as_pointer()
        function, *others = [builder.inttoptr(x, t) for x, t in zip(arguments, [kind] + [pointer] * 4)]
        builder.call(function, others)
        return context.get_dummy_value()
    return types.void(*[types.intp] * 5), code


@numba.njit(error_model="numpy", nogil=True, inline="never")
def call(calls, k, scratch):
    """Make a call of the table. Inner loops may change what they are given, so that they are given a copy."""
    for repeat in range(calls[k, 2]):
        for j in range(3):
            scratch[j] = calls[k, 3 + j] + repeat * calls[k, 6 + j]
        for j in range(13):
            scratch[3 + j] = calls[k, 9 + j]
        at = scratch.ctypes.data
        invoke(calls[k, 0], at, at + 24, at + 56, calls[k, 1])


@numba.njit(error_model="numpy", nogil=True, cache=True)
def steps(first, last, calls, scratch, reals, whole, rows, losses, sizes, numbers'''


class Tables:
    """What the steps of one call are given: real numbers, whole ones, and row numbers, with a row for each step."""

    def __init__(self, inputs: Any) -> None:
        self.reals: list[HostArray] = []
        self.whole: list[HostArray] = []
        self.rows: HostArray | None = None
        for x in leaves_of(inputs):
            self._add(x)

    def _add(self, x: HostArray) -> None:
        if x.ndim == 2 and x.dtype.kind == "i" and self.rows is None:
            self.rows = x
        elif x.ndim == 1 and x.dtype.kind in "fi":
            (self.reals if x.dtype.kind == "f" else self.whole).append(x)
        else:
            raise Unrecordable("inputs of another kind")

    def arrays(self) -> tuple[HostArray, HostArray, HostArray]:
        """All of it as three matrices."""
        steps = len(self.rows if self.rows is not None else [*self.reals, *self.whole][0])
        reals = np.stack(self.reals, axis=1, dtype=np.float64) if self.reals else np.zeros((steps, 0))
        whole = np.stack(self.whole, axis=1, dtype=np.int64) if self.whole else np.zeros((steps, 0), np.int64)
        rows = np.zeros((steps, 0), np.int32) if self.rows is None else np.ascontiguousarray(self.rows)
        if {len(reals), len(whole), len(rows)} != {steps}:  # the compiled function would write beyond its losses
            raise IndexError("the inputs of a training have different numbers of steps")
        return reals, whole, rows


def record(step: Any, carry: Any, constants: Any, inputs: Any) -> Program:
    """The program of one step, which may be an `InPlace`."""
    program = Program(NUMPY)
    columns = {"f": 0, "i": 0}

    def memory(x: Any) -> Recording:
        if type(x) is not np.ndarray:
            raise Unrecordable(type(x).__name__)
        return Recording(program, None, program.memory(x))

    def one(x: HostArray) -> Any:
        if x.ndim == 2:
            return RowNumbers(x.shape[1:])
        kind = x.dtype.kind
        node = program.node("input", None, (), (), None, (columns[kind], kind))
        columns[kind] += 1
        return Number(program, node)

    function, kept = (step.run, (step.kept,)) if isinstance(step, InPlace) else (step, ())
    at = each_of(memory, carry)
    after, output = function(*each_of(memory, kept), at, each_of(memory, constants), each_of(one, inputs))
    if not isinstance(output, Recording):
        raise Unrecordable("a loss that is no recording")
    program.output = output.value
    kept_and_new = zip(leaves_of(at), leaves_of(after), strict=True)
    changed = [(array, new) for array, new in kept_and_new if new is not array]  # none by a step in place
    if not all(isinstance(new, Recording) for _, new in changed):
        raise Unrecordable("a parameter or a slot that is no recording")
    for (array, _), value in zip(changed, [new.value for _, new in changed], strict=True):
        array.assign(value)
    return program


class Recorded:
    """A step of these very arrays, as a function of the numbers that change from step to step."""

    def __init__(self, step: Any, carry: Any, constants: Any, inputs: Any) -> None:
        program = record(step, carry, constants, inputs)
        assert program.output is not None
        self.dtype = program.output.dtype
        written = source_of(program)
        arrays = {name: memory.array for name, memory in written.memories.items()} | laid_out(written.buffers, block)
        spare = block(max((_copied_bytes(call, arrays) for call in written.calls), default=0))
        self.alive = arrays, spare, program.memories, constants  # as long as their addresses are in the table of calls
        self.calls = np.asarray([_row(call, arrays, spare) for call in written.calls], np.int64)
        self.sizes = np.asarray(written.sizes, np.int64)
        self.numbers = np.asarray([number for number, _ in written.numbers], np.float64)
        text = "\n".join(written.lines)
        self.arrays = {name: array for name, array in arrays.items() if re.search(rf"\b{name}\[", text)}
        rows = Tables(inputs).rows
        self.source = _source(written, self.arrays, "int32" if rows is None else rows.dtype.name)
        self.compiled: Callable[..., None] | None = None

    def tables(self, inputs: Any) -> tuple[HostArray, HostArray, HostArray]:
        """What the steps of one call are given."""
        return Tables(inputs).arrays()

    def compile(self, tables: tuple[HostArray, HostArray, HostArray]) -> None:
        """Compile the function, or read it from the cache."""
        arguments = self._arguments(0, 0, tables, np.zeros(0, self.dtype))
        self.compiled = _numpy_loops.prepared(NAME, self.source, arguments)
        self.compiled(*arguments)  # no steps: what is not cached is compiled now

    def run(self, tables: Any, first: int, last: int) -> HostArray:
        """Make these steps, and return their losses."""
        losses = np.empty(len(tables[0]), self.dtype)
        if last > len(losses):
            raise IndexError("there are fewer inputs than steps")
        assert self.compiled is not None
        self.compiled(*self._arguments(first, last, tables, losses))
        return losses[first:last]

    def _arguments(self, first: int, last: int, tables: Any, losses: HostArray) -> tuple[Any, ...]:
        scratch = np.empty(16, np.int64)
        fixed = self.calls, scratch, *tables, losses, self.sizes, self.numbers
        return first, last, *fixed, *self.arrays.values()


def _source(written: Source, arrays: dict[str, HostArray], rows: str) -> str:
    """The text of a module with the function. It names the types for which it is compiled, and so its file does."""
    types = " ".join([rows, *map(_type, arrays.values())])
    sizes = [f"n{k} = sizes[{k}]" for k in range(len(written.sizes))]
    numbers = [f"c{k} = np.{dtype}(numbers[{k}])" for k, (_, dtype) in enumerate(written.numbers)]
    head = "".join(f", {name}" for name in arrays)
    lines = [f"# {types}", *sizes, *numbers, "for u in range(first, last):", *(f"    {line}" for line in written.lines)]
    return f"{PREAMBLE}{head}):\n" + "".join(f"    {line}\n" for line in lines)


def _type(x: HostArray) -> str:
    """What numba tells arrays apart by."""
    layout = "C" if x.flags.c_contiguous else "F" if x.flags.f_contiguous else "A"
    return f"{x.dtype.name}-{x.ndim}{layout}{'' if x.flags.writeable else '-read-only'}"


def block(size: int) -> HostArray:
    """So many bytes, which start at a multiple of `ALIGNED`."""
    block = np.empty(size + ALIGNED, np.uint8)
    first = -block.__array_interface__["data"][0] % ALIGNED
    return block[first : first + size]


def _factors(call: Call, arrays: dict[str, HostArray]) -> list[HostArray]:
    """The two factors of a product."""
    given = [arrays[name] for name in call.arrays[:2]]
    return [x.T if flipped else x for x, flipped in zip(given, call.operation.flipped, strict=True)]


def _copied_bytes(call: Call, arrays: dict[str, HostArray]) -> int:
    """The bytes of a product's second factor if it is transposed, and a copy of it makes the product faster."""
    if call.operation.kind not in ("copy", "product"):
        return 0
    a, b = _factors(call, arrays)
    fits = a.flags.c_contiguous and b.flags.f_contiguous and not b.flags.c_contiguous
    return b.nbytes if fits and _numpy_inner.repays_copy(*a.shape, b.shape[1], a.dtype) else 0


def _row(call: Call, arrays: dict[str, HostArray], spare: HostArray) -> list[int]:
    """The row of a call in the table of calls. Copies of factors lie in `spare`, one after the other."""
    kind, value, *_ = call.operation
    given = [arrays[name] for name in call.arrays]
    if kind in ("copy", "product"):
        a, b = _factors(call, arrays)
        size = _copied_bytes(call, arrays)
        copy = spare[:size].view(b.dtype).reshape(b.shape) if size else b
        if kind == "product":
            return _numpy_inner.product(a, copy, given[-1])
        return _numpy_inner.copy(b, copy) if size else _numpy_inner.NOTHING
    if kind == "dots":
        return _numpy_inner.dots(*given)
    if kind == "rows":
        return _numpy_inner.sums_of_rows(*given)
    if not given[0].flags.c_contiguous:
        raise Unrecordable("a function of an array that is not contiguous")
    if kind == "total":
        return _numpy_inner.total(*given)
    return _numpy_inner.elementwise(value.op, *given)
