"""The parts of the source of a recorded step: names, numbers, formulas, calls, and where every value lies.

What shaped it:

- Sizes and numbers have names, and their values are arguments, so that another width or rate compiles nothing.
- A value lies in an array from the end of the loop that makes it until its memory is overwritten. What has been
  overwritten, or is about to be in the same loop, is refused: a recorded step is right, or it is none.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from dlx.backend import Array

from ._numpy_loops import CALLS, INFIX
from ._trace import Memory, Node, Operation, Unrecordable
from ._trace_recording import COMPARISONS


class Buffer:
    """An array of a step's own: alive from one group to another."""

    def __init__(self, shape: tuple[int, ...], dtype: Any, group: int) -> None:
        self.shape, self.dtype, self.first, self.last = shape, dtype, group, group


class Call(NamedTuple):
    """A call of an inner loop of NumPy's: of the operation, with these arrays, the result's last.

    The kind "copy" comes before a product whose second factor is transposed, and has its arrays: there that factor may
    be copied.
    """

    operation: Operation
    arrays: tuple[str, ...]


class Writer:
    """What has been written so far."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.names: dict[Memory, str] = {}
        self.buffers: dict[str, Buffer] = {}
        self.calls: list[Call] = []
        self.sizes: dict[int, str] = {}
        self.numbers: dict[tuple[Any, ...], str] = {}
        self.inputs: dict[str, str] = {}
        self.homes: dict[Node, tuple[str, Memory | None]] = {}  # the arrays in which values lie
        self.written: list[Memory] = []
        self.pending: list[tuple[Memory, bool]] = []  # what the present loop writes, and whether by a store
        self.reads: list[tuple[int, Memory]] = []  # by group
        self.scalars: dict[Node, str] = {}
        self.group = 0
        self.count = 0

    def name(self) -> str:
        """A new name of a number."""
        self.count += 1
        return f"v{self.count}"

    def size(self, n: int) -> str:
        """The name of a size."""
        return self.sizes.setdefault(n, f"n{len(self.sizes)}")

    def of(self, memory: Memory) -> str:
        """The name of a memory."""
        return self.names.setdefault(memory, f"m{len(self.names)}")

    def buffer(self, node: Node) -> str:
        """The name of a new buffer for the value."""
        name = f"t{len(self.buffers)}"
        self.buffers[name] = Buffer(node.shape, node.dtype, self.group)
        self.homes[node] = (name, None)
        return name

    def touch(self, name: str) -> str:
        """The name of an array that the present group needs."""
        if name in self.buffers:
            self.buffers[name].last = self.group
        return name

    def read(self, memory: Memory) -> None:
        """Raise if the memory is overwritten while it is read. A store to all of it comes after the reads."""
        if any(other.overlaps(memory) and not (other is memory and stores) for other, stores in self.pending):
            raise Unrecordable("a value whose source is overwritten")
        self.reads.append((self.group, memory))

    def stores(self, memory: Memory) -> None:
        """Note that the present loop stores to memory. What it reads of it must be the very same elements."""
        if any(k == self.group and each is not memory and each.overlaps(memory) for k, each in self.reads):
            raise Unrecordable("a value whose source is overwritten")
        self.pending.append((memory, True))

    def wrote(self, memory: Memory) -> None:
        """Note a write to memory."""
        self.written.append(memory)
        self.forget(memory)

    def forget(self, memory: Memory) -> None:
        """Note that values no longer lie in memory."""
        lost = [node for node, (_, home) in self.homes.items() if home is not None and home.overlaps(memory)]
        for node in lost:
            del self.homes[node]

    def lies(self, node: Node) -> str | None:
        """The array in which the value lies; None if it has to be computed."""
        if node.kind == "load":
            if sum(node.data.overlaps(memory) for memory in self.written) != node.op:
                raise Unrecordable("a value whose source has been overwritten")
            self.read(node.data)
            return self.of(node.data)
        if node not in self.homes:
            return None
        name, memory = self.homes[node]
        if memory is not None:
            self.read(memory)
        return self.touch(name)

    def call(self, operation: Operation) -> None:
        """A call of NumPy's inner loop."""
        arrays = []
        for arg in operation.value.args:
            array = self.lies(arg)
            assert array is not None
            arrays.append(array)
        memory = operation.memory
        out = self.buffer(operation.value) if memory is None else self.of(memory)
        if operation.kind in ("total", "rows"):  # they are added to what is there
            shape = operation.value.shape
            self.lines += zeros(out, [self.size(n) for n in shape])
        calls = [Call(operation, (*arrays, out))]
        if operation.flipped[1]:
            calls.insert(0, calls[0]._replace(operation=operation._replace(kind="copy")))
        for each in calls:
            self.lines.append(f"call(calls, {len(self.calls)}, scratch)")
            self.calls.append(each)
        if memory is not None:
            self.wrote(memory)

    def literal(self, node: Node, dtype: Any) -> str:
        """A number without a dtype, in this one."""
        if dtype is None:
            raise Unrecordable("numbers among themselves")
        if node.kind == "input":
            column, kind = node.data
            text = f"np.{dtype.name}({'reals' if kind == 'f' else 'whole'}[u, {column}])"
            return self.inputs.setdefault(text, f"x{len(self.inputs)}")
        if node.kind == "each":
            text = f"np.{dtype.name}({self.double(node)})"
            return self.inputs.setdefault(text, f"x{len(self.inputs)}")
        if dtype.kind in "iu":
            return f"np.{dtype.name}({node.data!r})"
        # A float that is the same at every size has a name of its own, so that the source does not depend on it.
        key = float(node.data), str(float(node.data)), dtype.name
        return self.numbers.setdefault(key, f"c{len(self.numbers)}")

    def double(self, node: Node) -> str:
        """What is computed from numbers alone, in double precision as Python does it."""
        if node.kind == "input":
            return f"reals[u, {node.data[0]}]"
        if node.kind == "number":
            return self.literal(node, np.dtype(np.float64))
        terms = [self.double(arg) for arg in node.args]
        return f"({f' {INFIX[node.op]} '.join(terms)})" if node.op in INFIX else f"(-{terms[0]})"

    def formula(self, node: Node, terms: list[str]) -> str:
        """The text of an elementwise operation."""
        if node.op == "cast":
            return f"np.{node.dtype.name}({terms[0]})"
        if node.op == "where":
            return f"({terms[1]} if {terms[0]} else {terms[2]})"
        if node.op in INFIX:
            text = f" {INFIX[node.op]} ".join(terms)
            return f"np.{node.dtype.name}({text})" if node.dtype.kind in "iu" else text
        return f"{CALLS[node.op]}({', '.join(terms)})"

    def terms_of(self, node: Node, value: Any) -> list[str]:
        """The texts of the arguments of an elementwise operation; `value` gives those that are no plain numbers."""
        common = node.dtype
        if node.op in COMPARISONS or node.op == "where":
            chosen = node.args[1:] if node.op == "where" else node.args
            common = np.result_type(*(arg.dtype for arg in chosen if arg.dtype is not None))
        return [self.literal(arg, common) if arg.dtype is None else value(arg) for arg in node.args]

    def scalar(self, node: Node) -> str:
        """The name of a value that is a single number, computed between two groups."""
        if node not in self.scalars:
            home = self.lies(node)
            if home is not None:
                text = f"{home}[{', '.join('0' for _ in node.shape) or '0'}]"
            elif node.kind == "each":
                text = self.formula(node, self.terms_of(node, self.scalar))
            else:
                raise Unrecordable("a number of another kind")
            name = self.name()
            self.lines.append(f"{name} = {text}")
            self.scalars[node] = name
        return self.scalars[node]


def zeros(name: str, sizes: list[str]) -> list[str]:
    """The lines that write zeros to an array."""
    if len(sizes) < 2:
        return [f"{name}[0] = 0"]
    return [f"for i in range({sizes[0]}):", f"    for j in range({sizes[1]}):", f"        {name}[i, j] = 0"]


def laid_out(buffers: dict[str, Buffer], block_of: Callable[[int], Array]) -> dict[str, Array]:
    """Arrays for the buffers, in blocks of bytes. Those that are not alive at the same time share memory."""
    arrays: dict[str, Array] = {}
    free: list[Array] = []
    taken: list[tuple[int, Array]] = []
    for name, buffer in sorted(buffers.items(), key=lambda item: item[1].first):
        free += [block for last, block in taken if last < buffer.first]
        taken = [(last, block) for last, block in taken if last >= buffer.first]
        dtype = np.dtype(buffer.dtype)
        size = math.prod(buffer.shape) * dtype.itemsize
        place = min((k for k, block in enumerate(free) if block.size >= size), key=lambda k: free[k].size, default=None)
        block = block_of(size) if place is None else free.pop(place)
        taken.append((buffer.last, block))
        arrays[name] = block[:size].view(dtype).reshape(buffer.shape or 1)
    return arrays
