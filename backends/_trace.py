"""A training step as a list of operations on arrays.

What shaped it:

- Arrays that outlive a step are `Memory`: parameters, gradients, the optimizer's state, samples. Some are views of
  others, so that a write is known by the addresses that it touches. Everything else is a value, which never changes:
  an operation in place gives a recording another one.
- Equal operations on equal values are one value, as a step often asks for the same exponential twice.
- What changes from step to step are numbers, and one matrix of row numbers, in which each step has its row.
- Elementwise values are computed where they are needed, perhaps twice. The list has the rest, in the order in which it
  was asked for: products, sums and transcendental functions, which need whole arrays, and writes to memory.

`_trace_recording` writes the list, and `_trace_source` makes a function of it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from dlx.backend import Array

DTYPES = "?bBhHiIlLqQfd"  # what numba has, too


def address(array: Array) -> int:
    """Where an array begins, in the memory of the host or of a CUDA device."""
    interface = getattr(array, "__cuda_array_interface__", None) or array.__array_interface__
    return int(interface["data"][0])


class Unrecordable(TypeError):
    """The step has an operation that cannot be recorded."""


class Loops(NamedTuple):
    """What can be part of a loop over rows, instead of an operation on whole arrays.

    Transcendental `functions`; sums of rows of fewer numbers than `row`; and the `totals` of values that are no arrays.
    """

    functions: bool
    row: float
    totals: bool


class Memory:
    """An array that exists before the step and after it. `extent` are the addresses between which it lies."""

    def __init__(self, array: Array) -> None:
        self.array, self.shape = array, array.shape
        span = [(size - 1) * stride for size, stride in zip(array.shape, array.strides, strict=True)]
        start = address(array) + sum(each for each in span if each < 0)
        end = address(array) + sum(each for each in span if each > 0) + array.itemsize
        self.extent = (start, end) if array.size else (0, 0)

    def overlaps(self, other: Memory) -> bool:
        """Whether the two have an address in common."""
        return max(self.extent[0], other.extent[0]) < min(self.extent[1], other.extent[1])


class Node(NamedTuple):
    """A value: `kind` says how it comes about.

    "number" (`data`), "input" (`data` is its column among a step's numbers), "load" (of the memory `data` as it is
    after `op` writes that touched it), "gather" (the batch's rows of the memory `data`), "each" (elementwise, by the
    ufunc or word `op`), "row" (the sum or maximum of each row), and what a whole array is computed for: "call" (a
    transcendental ufunc), "product", "dots" (of equal rows), "columns", "blocks" (the columns of `op` rows at a time),
    "rows" and "total" (sums). Numbers have no dtype: they take that of the arrays beside them.
    """

    number: int
    kind: str
    op: Any
    args: tuple[Node, ...]
    shape: tuple[int, ...]
    dtype: Any
    data: Any

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return self is other


class Operation(NamedTuple):
    """What has to be done, in this order: "store" (`value` to `memory`), "make" (an array of `value`), or the `kind` of
    the node `value`, written to `memory` if that is not None. `flipped` says which factors of a product are transposed.
    """

    kind: str
    value: Node
    memory: Memory | None = None
    flipped: tuple[bool, bool] = (False, False)


class Program:
    """The list of operations of one step, for what runs such `loops`."""

    def __init__(self, loops: Loops) -> None:
        self.loops = loops
        self.operations: list[Operation] = []
        self.writes: list[Memory] = []
        self.memories: dict[Any, Memory] = {}
        self.current: dict[Memory, Node] = {}
        self.nodes: dict[Any, Node] = {}
        self.output: Node | None = None

    def node(
        self, kind: str, op: Any, args: tuple[Node, ...], shape: tuple[int, ...], dtype: Any, data: Any = None
    ) -> Node:
        """The value, which is the same for equal arguments."""
        known = str(data) if type(data) is float else data  # 0.0 is not -0.0
        key = kind, op, tuple(arg.number for arg in args), shape, dtype, type(data), known
        if key not in self.nodes:
            self.nodes[key] = Node(len(self.nodes), kind, op, args, shape, dtype, data)
        return self.nodes[key]

    def number(self, x: float) -> Node:
        """A number, which takes the dtype of the arrays beside it."""
        return self.node("number", None, (), (), None, x)

    def cast(self, value: Node, dtype: Any) -> Node:
        """The value in another dtype."""
        if value.dtype is not None and value.dtype == dtype:  # None equals float64
            return value
        return self.node("each", "cast", (value,), value.shape, dtype)

    def memory(self, array: Array) -> Memory:
        """The memory of an array; the same for the same view."""
        key = address(array), array.shape, array.strides, array.dtype
        if array.dtype.char not in DTYPES or not array.dtype.isnative or key[0] % array.dtype.alignment:
            raise Unrecordable(str(array.dtype))
        return self.memories.setdefault(key, Memory(array))

    def load(self, memory: Memory) -> Node:
        """What lies in memory now."""
        version = sum(memory.overlaps(written) for written in self.writes)
        return self.node("load", version, (), memory.array.shape, memory.array.dtype, memory)

    def wrote(self, memory: Memory) -> None:
        """Note that the memory has been written."""
        self.writes.append(memory)
        self.current = {each: node for each, node in self.current.items() if not each.overlaps(memory)}

    def store(self, memory: Memory, value: Node) -> None:
        """Write a value to memory."""
        self.operations.append(Operation("store", value, memory))
        self.wrote(memory)
        self.current[memory] = value

    def array(self, value: Node) -> Node:
        """The value, which becomes an array."""
        if value.kind in ("each", "gather"):
            self.operations.append(Operation("make", value))
        elif value.kind in ("number", "input"):
            raise Unrecordable("an array of a number")
        return value

    def whole(
        self,
        kind: str,
        op: Any,
        args: tuple[Node, ...],
        shape: tuple[int, ...],
        out: Memory | None = None,
        flipped: tuple[bool, bool] = (False, False),
    ) -> Node:
        """The value of an operation on whole arrays, which is written to the memory `out`, if given."""
        dtype = args[0].dtype
        if dtype.kind != "f" or any(arg.dtype != dtype for arg in args):
            raise Unrecordable("whole arrays of other dtypes")
        known = len(self.nodes)
        if kind != "total" or not self.loops.totals:
            args = tuple(map(self.array, args))
        if out is not None:
            value = self.node(kind, op, args, shape, dtype, (out, len(self.writes)))
            if (out.array.shape, out.array.dtype) != (shape, dtype):
                raise Unrecordable("an output of another shape")
            self.operations.append(Operation(kind, value, out, flipped))
            self.wrote(out)
            return value
        value = self.node(kind, op, args, shape, dtype, flipped)
        if len(self.nodes) > known:
            self.operations.append(Operation(kind, value, None, flipped))
        return value
