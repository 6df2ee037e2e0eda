"""A recorded step as a list of calls of NumPy's functions, each with an array for its result.

What shaped it:

- The result is that of the plain step to the last bit, so every call is the one that the plain step makes, of arrays
  that lie in memory as its own do. What differs is where results are written, and that equal values are computed once.
- A call of NumPy's costs as much as some hundred elements. An array beside one of the same layout, and a number as an
  array without axes, cost the least; shapes that have to be broadcast cost four times as much.
- A product of small matrices takes as long to start as to compute. `dot` makes the same call of the BLAS as `matmul`
  and starts sooner; whether it has the same bits is looked at for each shape.
- A result takes the place of an operand that is not needed any more. What lies in memory that is overwritten, and is
  still needed, is copied before.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np

from dlx.backend import HostArray

from ._trace import Memory, Node, Operation, Program, Unrecordable
from ._trace_order import Order, Task, is_constant, lying
from ._trace_recording import COMPARISONS
from ._trace_writer import Buffer

FEW_COLUMNS = 10  # up to so many, a call for each column is faster than NumPy's reduction of many short rows
MOST_NARROW = 3  # columns: so many calls are faster than one whose operands have to be broadcast
SMALL_PRODUCT = 1 << 20  # multiplications: 30 us
LONG = 2048  # elements: `clip` is vectorised, but has a slow start; the plain step's maximum is that from here on
assign = np.ndarray.__setitem__


Place = Memory | Buffer


class Part(NamedTuple):
    """The part with this index of the array in a place, or if that is None the transposed matrix."""

    place: Place
    index: Any

    def of(self, array: HostArray) -> HostArray:
        """The view of the array in the place."""
        return array.T if self.index is None else array[self.index]


def column(place: Place, k: int) -> Part:
    """The column of this number, or the only one. One number becomes an array without axes, which costs less."""
    rows, columns = place.shape
    return Part(place, (slice(None) if rows > 1 else 0, min(k, columns - 1), ...))


class Full(NamedTuple):
    """A number as a vector, of which as many elements are taken as the call has."""

    number: HostArray


class Call(NamedTuple):
    """A call: `given` are its arguments, in which places stand for arrays; it writes to `out`."""

    function: Any
    given: tuple[Any, ...]
    out: Place
    elementwise: bool

    def bound(self, argument: Callable[[Any], Any]) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """The function and its arguments, with arrays in the places."""
        given = tuple(map(argument, self.given))
        if self.function in (np.maximum, np.minimum):  # NumPy deprecates that their output is not named
            return partial(self.function, out=given[-1]), given[:-1]
        return self.function, given

    @property
    def places(self) -> list[Place]:
        """All that it reads or writes."""
        given = [x.place if isinstance(x, Part) else x for x in self.given]
        return [x for x in given if isinstance(x, Place)]


class Calls:
    """The calls of a step, where its values lie, and the numbers that each step is given."""

    def __init__(self, program: Program) -> None:
        self.calls: list[Call] = []
        self.places: dict[Node, Place] = {}
        self.writes: list[Memory] = []
        self.gathered: dict[Node, Buffer] = {}
        self.inputs: dict[Any, list[tuple[int, str]]] = defaultdict(list)  # columns of a step's numbers, by dtypes
        self.vectors: dict[Any, HostArray] = {}  # where a step finds them
        self.most = sum(node.kind == "input" for node in program.nodes.values())
        tasks = Order(program).tasks
        self.left = Counter(node for task in tasks for node in task.reads)  # reads that are still to come
        assert program.output is not None
        self.left[program.output] += 1
        self.places |= {node: node.data for node in self.left if node.kind == "load"}
        for task in tasks:
            self._do(task)
        self.output = self.place(program.output)

    def place(self, node: Node) -> Place:
        """Where a value lies."""
        if node.kind == "gather" and node not in self.places:
            self.places[node] = self.gathered[node] = Buffer(node.shape, node.dtype, 0)
        if node not in self.places:
            raise Unrecordable(f"a value by {node.kind} as an array")
        return self.places[node]

    def operand(self, node: Node, dtype: Any) -> Any:
        """What a call is given for a value: its place, or for a number an array without axes in this dtype."""
        if is_constant(node):
            return np.asarray(node.args[0].data, node.dtype)
        if node.dtype is not None:
            return self.place(node)
        if dtype is None:
            raise Unrecordable("numbers among themselves")
        if node.kind == "number":
            return np.asarray(node.data, dtype)
        vector = self.vectors.setdefault(dtype, np.zeros(self.most, dtype))
        columns = self.inputs[dtype]
        if node.data not in columns:
            columns.append(node.data)
        k = columns.index(node.data)
        return vector[k : k + 1].reshape(())

    def _do(self, task: Task) -> None:
        value, memory, operation = task
        self.left.subtract(task.reads)
        if memory is not None:
            self._save(memory, value)
        if operation is None:
            assert memory is not None
            self._call(assign, (memory, ..., self.operand(value, memory.array.dtype)), memory, True)
        elif value.kind == "each":
            memory = self._each(value, memory)
        else:
            self._whole(operation)
        if memory is not None and self.left[value] > 0:
            self.places[value] = memory

    def _save(self, memory: Memory, value: Node) -> None:
        """Copy what lies in memory that is overwritten and is still needed."""
        lie = [node for node, at in self.places.items() if isinstance(at, Memory) and at.overlaps(memory)]
        loads = [node for node in lie if node.kind == "load"]
        later = {*loads} - {*lying(loads, memory, self.writes)}
        for node in lie:
            if self.left[node] > 0 and node is not value and node not in later:
                place, copy = self.places[node], Buffer(node.shape, node.dtype, 0)
                self.places[node] = copy
                self._call(assign, (copy, ..., place), copy, True)
        self.writes.append(memory)

    def _out(self, node: Node, operands: list[Any], memory: Memory | None) -> Place:
        """Where an elementwise value is written to: memory, the place of an operand, or a new one."""
        if memory is not None:
            return memory
        for arg, operand in zip(node.args, operands, strict=True):
            dies = isinstance(operand, Buffer) and self.left[arg] == 0
            if dies and (arg.shape, arg.dtype) == (node.shape, node.dtype):
                self.places[node] = operand
                break
        else:
            self.places[node] = Buffer(node.shape, node.dtype, 0)
        return self.places[node]

    def _each(self, node: Node, memory: Memory | None) -> Memory | None:
        """An elementwise value. Returns the memory to which it is written."""
        op, common = node.op, node.dtype
        if op in COMPARISONS or op == "where":
            chosen = node.args[1:] if op == "where" else node.args
            common = np.result_type(*(arg.dtype for arg in chosen if arg.dtype is not None))
        operands = [self.operand(arg, common) for arg in node.args]
        for operand in operands:
            if isinstance(operand, Memory) and not operand.array.flags.c_contiguous:
                raise Unrecordable("a result that NumPy lays out in another order")
        if op == "where":
            self._where(node, operands, memory)
            return memory
        if op != "cast" and not isinstance(op, np.ufunc):
            raise Unrecordable(f"an elementwise operation {op}")
        out = self._out(node, operands, memory)
        if op == "cast":
            self._call(assign, (out, ..., *operands), out, True)
        elif op in (np.maximum, np.minimum) and node.args[1].kind == "number" and node.dtype.kind == "f":
            self._bounded(op, node, operands, out)
        elif self._is_narrow(node, operands):
            for k in range(node.shape[1]):
                parts = [column(x, k) if isinstance(x, Place) else x for x in (*operands, out)]
                self._call(op, tuple(parts), out, False)
        else:
            self._call(op, (*operands, out), out, True)
        return memory

    def _is_narrow(self, node: Node, operands: list[Any]) -> bool:
        """Whether shapes have to be broadcast, and a call for each column is faster."""
        shapes = {x.shape for x in operands if isinstance(x, Place)}
        matrices = {len(shape) for shape in (node.shape, *shapes)} == {2}
        return matrices and node.shape[1] <= MOST_NARROW and len(shapes) > 1

    def _bounded(self, op: Any, node: Node, operands: list[Any], out: Place) -> None:
        """A maximum or minimum with a number. NumPy's loop is slow for an operand that does not move in memory."""
        x, bound = operands
        if not isinstance(x, Memory | Buffer) or node.shape == ():
            self._call(op, (*operands, out), out, True)
        elif math.prod(node.shape) > LONG:
            bounds = (bound, math.inf) if op is np.maximum else (-math.inf, bound)
            self._call(np.ndarray.clip, (x, *bounds, out), out, True)
        else:
            self._call(op, (x, Full(bound), out), out, True)

    def _where(self, node: Node, operands: list[Any], memory: Memory | None) -> None:
        """A choice between two values. What is not chosen is written first, and what is chosen over it."""
        condition, yes, no = operands
        out: Place | None = None
        if memory is None and isinstance(no, Buffer) and no is not yes and self.left[node.args[2]] == 0:
            out = no if (node.args[2].shape, node.args[2].dtype) == (node.shape, node.dtype) else None
        out = out or Buffer(node.shape, node.dtype, 0)
        if out is not no:
            self._call(assign, (out, ..., no), out, True)
        alike = node.args[0].shape == node.shape and node.args[1].shape in (node.shape, ())
        if alike:
            self._call(np.putmask, (out, condition, yes), out, True)
        else:
            self._call(np.copyto, (out, yes, "same_kind", condition), out, True)
        self.places[node] = out
        if memory is not None:
            self._call(assign, (memory, ..., out), memory, True)

    def _whole(self, operation: Operation) -> None:
        """An operation on whole arrays."""
        kind, value, memory, flipped = operation
        out: Place = memory if memory is not None else Buffer(value.shape, value.dtype, 0)
        given: list[Any] = [self.place(arg) for arg in value.args]
        if memory is None:
            self.places[value] = out
        x = given[0]
        if kind == "call":
            if isinstance(x, Memory) and not x.array.flags.c_contiguous:
                raise Unrecordable("a result that NumPy lays out in another order")
            if isinstance(x, Buffer) and self.left[value.args[0]] == 0:
                self.places[value] = out = x
            self._call(value.op, (x, out), out, True)
        elif kind == "product":
            factors = [Part(each, None) if flip else each for each, flip in zip(given, flipped, strict=True)]
            self._call(_product(value, given, flipped), (*factors, out), out, False)
        elif kind == "dots":
            self._call(np.vecdot, (x, x, out), out, False)
        elif kind == "row":
            self._row(value, x, out)
        elif kind == "blocks":
            for k in range(value.shape[0]):
                rows, row = Part(x, slice(k * value.op, (k + 1) * value.op)), Part(out, slice(k, k + 1))
                self._call(np.add.reduce, (rows, -2, None, row, True), out, False)
        elif kind not in ("rows", "columns", "total"):
            raise Unrecordable(f"an operation {kind}")
        else:
            axes = {"rows": -1, "columns": -2}.get(kind, -2 if len(value.shape) == 2 else (-2, -1))
            axes = -1 if len(value.args[0].shape) == 1 else axes
            self._call(np.add.reduce, (x, axes, None, out, value.shape != ()), out, False)

    def _row(self, value: Node, x: Place, out: Place) -> None:
        """The sum or maximum of each row. NumPy adds up few numbers one after the other."""
        K = value.args[0].shape[1]
        if K > FEW_COLUMNS:
            self._call(value.op.reduce, (x, -1, None, out, True), out, False)
            return
        result, first = column(out, 0), column(x, 0)
        if K == 1:
            self._call(assign, (out, ..., x), out, False)
        for k in range(1, K):
            self._call(value.op, (first, column(x, k), result), out, False)
            first = result

    def _call(self, function: Any, given: tuple[Any, ...], out: Place, elementwise: bool) -> None:
        self.calls.append(Call(function, given, out, elementwise))


def _product(value: Node, given: list[Place], flipped: tuple[bool, bool]) -> Any:
    """The function that multiplies two matrices: for small ones `dot`, which calls the same BLAS, but starts sooner."""
    (n, p), (a, b) = value.shape, given
    k = a.shape[0] if flipped[0] else a.shape[1]
    contiguous = all(x.array.flags.c_contiguous for x in given if isinstance(x, Memory))
    small = min(n, k, p) > 1 and n * k * p < SMALL_PRODUCT and a is not b
    same = small and contiguous and is_product(n, k, p, flipped, value.dtype)
    return np.ndarray.dot if same else np.matmul


@lru_cache(1024)
def is_product(n: int, k: int, p: int, flipped: tuple[bool, bool], dtype: Any) -> bool:
    """Whether `dot` gives the bits of `matmul` for matrices of these shapes, flipped or not."""
    numbers = np.random.default_rng(0)
    a, b = (numbers.standard_normal(shape).astype(dtype) for shape in ((n, k), (k, p)))
    a, b = (np.asfortranarray(x) if flip else x for x, flip in zip((a, b), flipped, strict=True))
    return bool(np.all(a.dot(b) == np.matmul(a, b)))
