"""Training on NumPy with the step recorded once: many updates are one call of a function that numba has compiled.

What shaped it:

- The result is that of the plain step to the last bit, so that it makes no difference when the plain steps end and the
  compiled ones begin: a training may be resumed anywhere, and no one has to know which path was taken.
- What a compiled step saves is what Python takes, about the same for all networks. Compiling takes seconds, reading what
  was compiled a fifth of one. So the number of updates decides, which is known before.
- Every array lies where it lay when the step was recorded. Other arrays are another recording; a training that brings
  new ones for every step (`stream`, sparse rows) runs plainly.
- The function comes back at least every half second, for Ctrl-C and checkpoints, and holds no lock of Python's.
- What cannot be recorded or compiled runs plainly, and is not tried again.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from dlx.backend import Array, HostArray, Loop, each_of, warn

from . import _numpy_inner, _numpy_loops
from ._trace import Memory, Number, Program, Recording, RowNumbers, Unrecordable
from ._trace_source import Buffer, Call, Source, Writer

SECONDS_AT_ONCE = 0.25  # in the compiled function
SAVED = 5e-5  # seconds that a compiled step saves: what Python takes for the calls of a plain one
IMPORTING, COMPILING, READING, RECORDING = 0.25, 2.0, 0.2, 0.02  # seconds: of numba, of a step
MOST_KINDS = 4  # of arrays in a fit: full batches and the ragged one; more only if every batch brings its own
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


_IN_MEMORY: set[str] = set()  # the sources that have been compiled or read in this process


class Tables:
    """What the steps of one call are given: real numbers, whole ones, and row numbers, with a row for each step."""

    def __init__(self, inputs: Any) -> None:
        self.reals: list[HostArray] = []
        self.whole: list[HostArray] = []
        self.rows: HostArray | None = None
        self.kind: list[Any] = []
        each_of(self._add, inputs)

    def _add(self, x: HostArray) -> None:
        if x.ndim == 2 and x.dtype.kind == "i" and self.rows is None:
            self.rows = x
        elif x.ndim == 1 and x.dtype.kind in "fi":
            (self.reals if x.dtype.kind == "f" else self.whole).append(x)
        else:
            raise Unrecordable("inputs of another kind")
        self.kind.append((x.dtype.kind, x.shape[1:]))

    def arrays(self) -> tuple[HostArray, HostArray, HostArray]:
        """All of it as three matrices."""
        steps = len(self.rows if self.rows is not None else [*self.reals, *self.whole][0])
        reals = np.stack(self.reals, axis=1, dtype=np.float64) if self.reals else np.zeros((steps, 0))
        whole = np.stack(self.whole, axis=1, dtype=np.int64) if self.whole else np.zeros((steps, 0), np.int64)
        rows = np.zeros((steps, 0), np.int32) if self.rows is None else np.ascontiguousarray(self.rows)
        return reals, whole, rows


def record(step: Any, carry: Any, constants: Any, inputs: Any) -> Program:
    """The program of one step: a partial function whose first argument are the arrays that it keeps."""
    program = Program()
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

    kept, at = each_of(memory, step.args[0]), each_of(memory, carry)
    after, output = step.func(kept, at, each_of(memory, constants), each_of(one, inputs))
    if after is not at or not isinstance(output, Recording):
        raise Unrecordable("a step that is not in place")
    program.output = output.value
    return program


class Recorded:
    """A step of these very arrays, as a function of the numbers that change from step to step."""

    def __init__(self, step: Any, carry: Any, constants: Any, inputs: Any) -> None:
        self.constants = constants  # they must live as long as their addresses are in use
        program = record(step, carry, constants, inputs)
        assert program.output is not None
        self.dtype = program.output.dtype
        written = Writer(program).source()
        arrays = {name: memory.array for name, memory in written.memories.items()} | _laid_out(written.buffers)
        self.memories: list[Memory] = list(program.memories.values())
        self.calls = np.asarray([_row(call, arrays) for call in written.calls], np.int64)
        self.sizes = np.asarray(written.sizes, np.int64)
        self.numbers = np.asarray([number for number, _ in written.numbers], np.float64)
        text = "\n".join(written.lines)
        self.arrays = {name: array for name, array in arrays.items() if re.search(rf"\b{name}\[", text)}
        self.source = _source(written, list(self.arrays))
        self.compiled: Callable[..., None] | None = None

    def compile(self, tables: tuple[HostArray, HostArray, HostArray]) -> None:
        """Compile the function, or read it from the cache."""
        arguments = self._arguments(0, 0, tables, np.zeros(0, self.dtype))
        self.compiled = _numpy_loops.prepared(NAME, self.source, arguments)
        self.compiled(*arguments)  # no steps: what is not cached is compiled now

    def run(self, tables: tuple[HostArray, HostArray, HostArray], first: int, last: int) -> HostArray:
        """Make these steps, and return their losses."""
        losses = np.empty(len(tables[0]), self.dtype)
        assert self.compiled is not None
        self.compiled(*self._arguments(first, last, tables, losses))
        return losses[first:last]

    def _arguments(self, first: int, last: int, tables: Any, losses: HostArray) -> tuple[Any, ...]:
        scratch = np.empty(16, np.int64)
        fixed = self.calls, scratch, *tables, losses, self.sizes, self.numbers
        return first, last, *fixed, *self.arrays.values()


def _source(written: Source, names: list[str]) -> str:
    """The text of a module with the function."""
    sizes = [f"n{k} = sizes[{k}]" for k in range(len(written.sizes))]
    numbers = [f"c{k} = np.{dtype}(numbers[{k}])" for k, (_, dtype) in enumerate(written.numbers)]
    head = "".join(f", {name}" for name in names)
    lines = [*sizes, *numbers, "for u in range(first, last):", *(f"    {line}" for line in written.lines)]
    return f"{PREAMBLE}{head}):\n" + "".join(f"    {line}\n" for line in lines)


def _laid_out(buffers: dict[str, Buffer]) -> dict[str, HostArray]:
    """Arrays for the buffers. Those that are not alive at the same time share memory."""
    arrays: dict[str, HostArray] = {}
    free: list[HostArray] = []
    taken: list[tuple[int, HostArray]] = []
    for name, buffer in sorted(buffers.items(), key=lambda item: item[1].first):
        free += [block for last, block in taken if last < buffer.first]
        taken = [(last, block) for last, block in taken if last >= buffer.first]
        dtype = np.dtype(buffer.dtype)
        size = int(np.prod(buffer.shape, dtype=np.int64)) * dtype.itemsize
        place = min((k for k, block in enumerate(free) if block.size >= size), key=lambda k: free[k].size, default=None)
        block = _block(size) if place is None else free.pop(place)
        taken.append((buffer.last, block))
        arrays[name] = block[:size].view(dtype).reshape(buffer.shape or 1)
    return arrays


def _block(size: int) -> HostArray:
    """So many bytes, which start at a multiple of `ALIGNED`."""
    block = np.empty(size + ALIGNED, np.uint8)
    first = -block.__array_interface__["data"][0] % ALIGNED
    return block[first : first + size]


def _row(call: Call, arrays: dict[str, HostArray]) -> list[int]:
    """The row of a call in the table of calls."""
    kind, value, _, flipped = call.operation
    given = [arrays[name] for name in call.arrays]
    if kind == "product":
        a, b = (x.T if flip else x for x, flip in zip(given, flipped, strict=False))
        return _numpy_inner.product(a, b, given[-1])
    if kind == "dots":
        return _numpy_inner.dots(*given)
    if kind == "rows":
        return _numpy_inner.sums_of_rows(*given)
    if not given[0].flags.c_contiguous:
        raise Unrecordable("a function of an array that is not contiguous")
    if kind == "total":
        return _numpy_inner.total(*given)
    return _numpy_inner.elementwise(value.op[0], *given)


class Recordings:
    """The recorded steps of one training, by what tells their arrays apart. `worth` are the seconds that they save."""

    def __init__(self, step: Any, worth: float, has_numba: Callable[[], bool]) -> None:
        self.step, self.worth, self.has_numba = step, worth, has_numba
        self.known: dict[Any, Recorded | None] = {}
        self.alive: list[Any] = []  # what has these identities

    def get(self, carry: Any, constants: Any, inputs: Any) -> Recorded | None:
        """The recorded step of these arrays, ready to run; None if they are to be trained on plainly."""
        if self.worth < RECORDING:
            return None
        key = _identities(carry, constants, inputs)
        if key not in self.known:
            if len(self.known) >= MOST_KINDS:
                return None
            self.alive.append((carry, constants))
            self.known[key] = self._new(carry, constants, inputs)
        return self.known[key]

    def _new(self, carry: Any, constants: Any, inputs: Any) -> Recorded | None:
        try:
            new = Recorded(self.step, carry, constants, inputs)
            if not _numpy_inner.work(new.dtype):
                return None
        except Exception:  # Unrecordable, or any error of an operation that recordings do not have
            return None
        first = not any(self.known.values())
        if new.source not in _IN_MEMORY and not (first and self._repays(new.source) and self.has_numba()):
            return None
        try:
            new.compile(Tables(inputs).arrays())
        except Exception as reason:
            warn(f"the training step cannot be compiled by numba, so that training is slower: {reason}")
            return None
        _IN_MEMORY.add(new.source)
        return new

    def _repays(self, source: str) -> bool:
        """Whether the steps save more than it takes to compile them, or to read them from the cache."""
        importing = 0.0 if "numba" in sys.modules else IMPORTING
        return self.worth > importing + (READING if _numpy_loops.is_cached(NAME, source) else COMPILING)


def loop(step: Any, plain: Loop, steps: float, has_numba: Callable[[], bool]) -> Loop:
    """The loop of a step that is made in place, about so many times in all; `plain` where it is not to be compiled."""
    interpreted = os.environ.get("NUMBA_DISABLE_JIT", "0") != "0"
    if not isinstance(step, partial) or steps * SAVED < RECORDING or interpreted:
        return plain
    recordings = Recordings(step, steps * SAVED, has_numba)
    at_once = 1

    def run(
        carry: Any, constants: Any, inputs: Any, steps: int, first: int = 0, most: int | None = None
    ) -> Iterator[tuple[Any, Array]]:
        nonlocal at_once
        recorded = recordings.get(carry, constants, inputs)
        if recorded is None:
            yield from plain(carry, constants, inputs, steps, first, most)
            return
        tables = Tables(inputs).arrays()
        while first < steps:
            last = min(first + min(at_once, most or at_once), steps)
            started = time.perf_counter()
            losses = recorded.run(tables, first, last)
            at_once = at_once * 2 if time.perf_counter() - started < SECONDS_AT_ONCE else max(1, at_once // 2)
            first = last
            yield carry, losses

    return run


def _identities(*parts: Any) -> Any:
    """What tells one recording from another: the arrays, and of the inputs their kinds."""
    *fixed, inputs = parts
    identities: list[Any] = []
    each_of(lambda x: identities.append(id(x)), tuple(fixed))
    each_of(lambda x: identities.append((x.dtype.char, x.shape[1:])), inputs)
    return tuple(identities)
