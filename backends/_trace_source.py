"""From a recorded step to the source of one function for many steps, which numba compiles.

What shaped it:

- What needs a whole array is done by NumPy's own inner loops, called by address: products, sums of many numbers,
  exponentials. So their bits are NumPy's, whatever its BLAS, and they are as fast. The operations between them become
  loops over rows, and the result of the step is that of the plain one to the last bit.
- A value is computed again where it is needed, unless it was made an array anyway: that is cheaper than memory, as
  everything elementwise is cheap.
- A loop computes the terms of a row's sum or maximum first, closes, and opens again with the result.
- Memory is written at the end of a loop over columns, so that what is read in it is the old content. A value whose
  sources have been overwritten is refused.
- Sizes and numbers are arguments, so that another width or rate compiles nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ._trace import Memory, Node, Operation, Program, Unrecordable
from ._trace_groups import Group, grouped
from ._trace_values import Values
from ._trace_writer import Buffer, Call, Writer, zeros


class Source(NamedTuple):
    """The lines of one step; the arrays by name, with None for buffers; and the arguments in their order."""

    lines: list[str]
    memories: dict[str, Memory]
    buffers: dict[str, Buffer]
    calls: list[Call]
    sizes: list[int]
    numbers: list[tuple[float, str]]


def source_of(program: Program) -> Source:
    """The whole of it."""
    writer, groups = Writer(), grouped(program)
    for writer.group, group in enumerate(groups):
        if group.space is None:
            writer.call(group.operations[0])
        else:
            Rows(writer, group).write()
    writer.group = len(groups)
    assert program.output is not None
    if program.output.shape != ():
        raise Unrecordable("a loss that is no number")
    writer.lines.append(f"losses[u] = {writer.scalar(program.output)}")
    memories = {name: memory for memory, name in writer.names.items()}
    numbers = [(number, dtype) for number, _, dtype in writer.numbers]
    inputs = [f"{name} = {text}" for text, name in writer.inputs.items()]
    return Source([*inputs, *writer.lines], memories, writer.buffers, writer.calls, list(writer.sizes), numbers)


class Rows(Values):
    """Writes one group as a loop over rows, and loops over their columns in it; of a vector, as one loop."""

    def __init__(self, writer: Writer, group: Group) -> None:
        assert group.space is not None
        super().__init__(writer, *group.space)
        self.group = group
        self.body: list[str] = []
        self.before: list[str] = []  # before the loop over rows
        self.open_loop(None)

    def open_loop(self, columns: int | None) -> None:
        """Begin a loop over so many columns; None is no loop."""
        self.columns = columns
        self.inner: list[str] = []
        self.after: list[str] = []
        self.elements: dict[Node, str] = {}
        self.results = {}
        self.stores: dict[Memory, str] = {}
        self.writes: list[tuple[Memory, Node | None]] = []

    def close(self) -> None:
        """End the loop over columns."""
        inner = [*self.inner, *self.stores.values()]
        if self.columns is not None and inner:
            self.body += [f"for j in range({self.writer.size(self.columns)}):", *(f"    {line}" for line in inner)]
        else:
            self.body += inner
        self.body += self.after
        self.known |= self.results
        for memory, value in self.writes:
            self.writer.wrote(memory)
            self.writer.pending.remove((memory, value is not None))
            if value is not None:
                self.writer.homes[value] = (self.writer.of(memory), memory)
        self.open_loop(None)

    def write(self) -> None:
        """The whole group."""
        made = []
        for kind, _, memory, _ in self.group.operations:
            if memory is not None and kind == "columns":  # which is set to zero before the loop
                self.writer.pending.append((memory, False))
        for operation in self.group.operations:
            node = operation.value.args[0] if operation.kind in ("row", "columns", "blocks") else operation.value
            columns = None if self.is_row(node) else node.shape[-1]
            if self.columns != columns or self.needs(node, set()):
                self.close()
                self.open_loop(columns)
            made += self.add(operation, node)
        self.close()
        writer, n = self.writer, self.writer.size(self.rows)
        if self.kind == "matrix":
            self.before += [f"for i in range({n}):", *(f"    {line}" for line in self.body)]
        else:
            self.before += self.body
        writer.lines += self.before
        writer.homes |= dict(made)

    def add(self, operation: Operation, node: Node) -> list[tuple[Node, tuple[str, None]]]:
        """One operation of the group; what it has made, to be read by later groups."""
        writer, value, memory = self.writer, operation.value, operation.memory
        text = self.value(node)
        if operation.kind == "store":
            assert memory is not None
            self.stores[memory] = f"{writer.of(memory)}{self.index(value.shape)} = {text}"
            self.writes.append((memory, value))
            writer.stores(memory)
            return []
        if operation.kind == "columns":
            assert memory is not None
            name = writer.of(memory)
            self.before += zeros(name, ["1", writer.size(node.shape[1])])
            self.inner.append(f"{name}[0, j] += {text}")
            self.writes.append((memory, None))
            return []
        name = writer.buffer(value)
        del writer.homes[value]  # this group does not read it
        if operation.kind == "blocks":
            self.before += zeros(name, [writer.size(n) for n in value.shape])
            self.inner.append(f"{name}[i // {value.op}, j] += {text}")
        elif operation.kind == "make":
            self.inner.append(f"{name}{self.index(value.shape)} = {text}")
        else:
            result = writer.name()
            self.row(value, node, text, result)
            self.after.append(f"{name}[i, 0] = {result}")
            self.results[value] = result
        return [(value, (name, None))]

    def row(self, value: Node, node: Node, text: str, result: str) -> None:
        """A sum or a maximum of the row."""
        dtype = f"np.{node.dtype.name}"
        if self.columns is None:
            self.inner.append(f"{result} = {text}")
        elif value.op is np.add:
            self.body.append(f"{result} = {dtype}(0)")
            self.inner.append(f"{result} += {text}")
        else:
            self.body.append(f"{result} = {dtype}(-np.inf)")
            self.inner.append(f"{result} = {text} if {text} > {result} or {text} != {text} else {result}")

    def index(self, shape: tuple[int, ...]) -> str:
        """Where the element of an array of this shape is."""
        if len(shape) == 1:
            return "[j]"
        first = "0" if shape[0] == 1 else "i"
        return f"[{first}, {'0' if shape[1] == 1 else 'j'}]"

    def row_number(self) -> str:
        """The name of the number of the batch's row, which is read outside of the loop over columns.

        There the compiler cannot move it, as the loop may write to the row numbers for all it knows.
        """
        line = "r = rows[u, i]"
        if line not in self.body:
            self.body.insert(0, line)
        return "r"

    def value(self, node: Node) -> str:
        """The name of the value of the element or the row."""
        if len(node.shape) == 0 or node.shape == (1,):
            return self.writer.scalar(node)
        row = self.is_row(node)
        names = self.known if row else self.elements
        if node in self.known or node in names:
            return self.known.get(node) or names[node]
        text = self.text(node)
        name = self.writer.name()
        lines = self.inner if not row or self.columns is None else self.body
        lines.append(f"{name} = {text}")
        names[node] = name
        return name

    def gathered(self, node: Node) -> str:
        """An element of the batch's rows, where it lies."""
        return f"{self.writer.of(node.data)}[{self.row_number()}, {'0' if node.shape[1] == 1 else 'j'}]"
