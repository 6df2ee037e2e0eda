"""A recorded step on plain NumPy: its calls, one after the other, into arrays that are there.

What shaped it:

- A step is a list of functions with their arguments, and nothing else: Python takes longer to look for anything than
  NumPy to add some hundred numbers. What changes from step to step is written to arrays that the calls are given.
- Nothing as large as a batch is allocated in a step. Arrays that are not alive at the same time share memory.
- Elementwise calls of large arrays that follow each other are made block by block, so that what one of them writes is
  still in cache when the next one reads it. An array that only they need is as small as a block.
- Nothing has to be compiled, so that it repays soon.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from dlx.backend import HostArray

from ._numpy_calls import Call, Calls, Full, Part, Place
from ._numpy_steps import Tables, block, record
from ._trace import Memory, Unrecordable
from ._trace_writer import Buffer, laid_out

BLOCK = 1 << 16  # elements: some such float32 arrays fit in a cache of 1 MB, and a call is short against its work
FITS_IN_CACHE = 1 << 18  # elements: up to here, the calls of blocks cost what the cache saves


class Run:
    """Calls that follow each other. Those of large arrays are made block by block: `rows` at once, 0 where all are."""

    def __init__(self, call: Call, time: int) -> None:
        self.calls: list[Call] = []
        self.first = self.last = time
        self.small: set[Place] = set()  # the arrays that are as large as a block
        self.shape, self.rows = call.out.shape, 0
        size = math.prod(self.shape)
        if call.elementwise and size >= FITS_IN_CACHE:
            self.rows = max(1, BLOCK * self.shape[0] // size)

    def add(self, call: Call, time: int) -> None:
        """Append the call."""
        self.calls.append(call)
        self.last = time

    def joins(self, call: Call) -> bool:
        """Whether the call can be made in the same blocks. Memory that is written must be the same view everywhere."""
        if not (self.rows and call.elementwise and call.out.shape == self.shape):
            return False
        pairs = [(place, call.out) for other in self.calls for place in other.places]
        pairs += [(other.out, place) for other in self.calls for place in call.places]
        return not any(_conflict(x, y) for x, y in pairs)

    @property
    def blocks(self) -> list[tuple[int, int]]:
        """The first row of each block, and the one after its last."""
        if not self.rows:
            return [(0, 0)]
        n = self.shape[0]
        return [(first, min(first + self.rows, n)) for first in range(0, n, self.rows)]


def _conflict(x: Place, y: Place) -> bool:
    """Whether two places are different views of the same memory."""
    return x is not y and isinstance(x, Memory) and isinstance(y, Memory) and x.overlaps(y)


class Numbers(NamedTuple):
    """What so many steps are given: row numbers, and for each number the array and the place to which it is written."""

    steps: int
    rows: HostArray | None
    columns: list[tuple[HostArray, int, list[float]]]


class Replayed:
    """A step of these very arrays, as a list of calls."""

    def __init__(self, step: Any, carry: Any, constants: Any, inputs: Any) -> None:
        program = record(step, carry, constants, inputs)
        assert program.output is not None
        if program.output.shape != ():
            raise Unrecordable("a loss that is no number")
        self.dtype = program.output.dtype
        found = Calls(program)
        arrays, runs = _arranged(found)
        self.calls = [made for run in runs for made in _bound(run, arrays)]
        self.gathers = [(_take(node.data.array), arrays[buffer]) for node, buffer in found.gathered.items()]
        self.most_rows = min((len(node.data.array) for node in found.gathered), default=0)
        self.inputs, self.vectors = found.inputs, found.vectors
        self.output = arrays[found.output]
        self.tables(inputs)

    def tables(self, inputs: Any) -> Numbers:
        """What the steps of one call are given."""
        tables = Tables(inputs)
        kinds = {"f": tables.reals, "i": tables.whole}
        columns = [
            (self.vectors[dtype], k, kinds[kind][column].tolist())
            for dtype, wanted in self.inputs.items()
            for k, (column, kind) in enumerate(wanted)
        ]
        lengths = {len(x) for x in (*tables.reals, *tables.whole, *([] if tables.rows is None else [tables.rows]))}
        if len(lengths) != 1:
            raise IndexError("the inputs of a training have different numbers of steps")
        rows = tables.rows
        if rows is not None and rows.size and not 0 <= rows.min() <= rows.max() < self.most_rows:
            raise IndexError("there are fewer rows than a batch asks for")
        return Numbers(lengths.pop(), rows, columns)

    def run(self, tables: Any, first: int, last: int) -> HostArray:
        """Make these steps, and return their losses."""
        if last > tables.steps:
            raise IndexError("there are fewer inputs than steps")
        losses = np.empty(last - first, self.dtype)
        rows = None if tables.rows is None else tables.rows[first:last].astype(np.intp)  # as `take` would for each step
        columns, output, gathers, calls = tables.columns, self.output, self.gathers, self.calls
        for k in range(first, last):
            for vector, place, column in columns:
                vector[place] = column[k]
            if rows is not None:
                numbers = rows[k - first]
                for take, out in gathers:
                    take(numbers, 0, out, "clip")  # which writes to `out` directly; they are in range
            for function, given in calls:
                function(*given)
            losses[k - first] = output
        return losses


def _take(x: HostArray) -> Callable[..., Any]:
    """The function that copies rows. NumPy's own would first copy all of an array that is not contiguous."""
    if x.flags.c_contiguous:
        return x.take

    def take(numbers: HostArray, axis: int, out: HostArray, mode: str) -> None:
        out[...] = x[numbers]

    return take


def _arranged(found: Calls) -> tuple[dict[Place, HostArray], list[Run]]:
    """The arrays of all places, and the calls in runs."""
    runs: list[Run] = []
    users: dict[Buffer, list[tuple[int, Run]]] = defaultdict(list)  # the calls, and the runs that they belong to
    arrays: dict[Place, HostArray] = {}
    for time, call in enumerate(found.calls):
        if not (runs and runs[-1].joins(call)):
            runs.append(Run(call, time))
        runs[-1].add(call, time)
        for place in call.places:
            if isinstance(place, Memory):
                arrays[place] = place.array
            else:
                users[place].append((time, runs[-1]))
    outside = {found.output, *found.gathered.values()}
    for buffer, uses in users.items():
        (first, run), (last, end) = uses[0], uses[-1]
        if run is end and run.rows and buffer.shape == run.shape and buffer not in outside:
            run.small.add(buffer)
            buffer.shape = (run.rows, *run.shape[1:])
            buffer.first, buffer.last = first, last
        else:
            buffer.first, buffer.last = -1 if buffer in outside else run.first, end.last
    if isinstance(found.output, Buffer):
        found.output.last = len(found.calls)
    names = {f"t{k}": buffer for k, buffer in enumerate(users)}
    made = laid_out(names, block)
    return arrays | {buffer: made[name].reshape(buffer.shape) for name, buffer in names.items()}, runs


def _bound(run: Run, arrays: dict[Place, HostArray]) -> Iterator[tuple[Callable[..., Any], tuple[Any, ...]]]:
    """The calls of a run with their arrays."""
    for first, last in run.blocks:
        argument = partial(_argument, run, arrays, first, last)
        for call in run.calls:
            yield call.bound(argument)


def _argument(run: Run, arrays: dict[Place, HostArray], first: int, last: int, x: Any) -> Any:
    """What a call is given for `x`: if it is a place, the array or its rows from `first` to `last`."""
    if isinstance(x, Part):
        return x.of(arrays[x.place])
    if not isinstance(x, Place | Full):
        return x
    array = np.full(run.shape, x.number) if isinstance(x, Full) else arrays[x]
    if isinstance(x, Buffer) and x in run.small:
        return array[: last - first]
    return array[first:last] if run.rows and array.shape[:1] == run.shape[:1] else array
