"""The values of one CUDA kernel's loop over elements (i, j), and what all loops share."""

from __future__ import annotations

import math

from ._cuda_writer import MOST_THREADS, WARP, CudaWriter, c_type
from ._trace import Memory, Node, Operation, Unrecordable
from ._trace_values import Values

ONE_BLOCK = 1 << 13  # elements that one block may work on, to save other kernels
MOST_ELEMENTS = 1 << 30  # that have 32-bit numbers


class Elements(Values):
    """The names of values in a loop over elements (i, j): of numbers before it, and of elements in it.

    With `by_rows`, values of a row i are known before the loop over its elements.
    """

    writer: CudaWriter

    def __init__(self, writer: CudaWriter, kind: str, rows: int, by_rows: bool = False) -> None:
        super().__init__(writer, kind, rows)
        self.by_rows = by_rows
        self.top: list[str] = []
        self.row: list[str] = []
        self.element: list[str] = []
        self.elements: dict[Node, str] = {}

    def index(self, shape: tuple[int, ...]) -> str:
        """Where the element of an array of this shape is."""
        if math.prod(shape) == 1:
            return "[0]"
        if len(shape) == 1 or shape[0] == 1:
            return "[j]"
        return "[i]" if shape[1] == 1 else f"[i * {self.writer.size(shape[1])} + j]"

    def value(self, node: Node) -> str:
        """The name of the value."""
        found = self.known.get(node) or self.elements.get(node)
        if found:
            return found
        single = len(node.shape) == 0 or node.shape == (1,)
        text, name = self.single(node) if single else self.text(node), self.writer.name()
        if single:
            lines, names = self.top, self.known
        elif self.by_rows and self.is_row(node):
            lines, names = self.row, self.known
        else:
            lines, names = self.element, self.elements
        lines.append(f"const {c_type(node.dtype)} {name} = {text};")
        names[node] = name
        return name

    def text(self, node: Node) -> str:
        """How the value is computed or where it lies."""
        if node.kind == "load":
            contiguous(node.data)
        return super().text(node)

    def single(self, node: Node) -> str:
        """How a number that is the same for all is computed, or where it lies."""
        home = self.writer.lies(node)
        if home is not None:
            return f"{home}[0]"
        if node.kind != "each":
            raise Unrecordable("a number of another kind")
        return self.writer.formula(node, self.writer.terms_of(node, self.value))

    def gathered(self, node: Node) -> str:
        """An element of the batch's rows, where it lies."""
        memory, (word, kept) = node.data, node.op
        down, right = (self.writer.size(stride // node.dtype.itemsize) for stride in memory.array.strides)
        column = "" if node.shape[1] == 1 else f" + (long long)j * {right}"
        number = f"(({c_type(kept)} const*)(row + {self.writer.size(word)}))[i]"
        return f"{self.writer.of(memory)}[(long long){number} * {down}{column}]"

    def written(self, operation: Operation) -> tuple[str, str]:
        """The array and the place to which a value is written, by "store" or "make"."""
        kind, value, memory, _ = operation
        if kind == "store":
            assert memory is not None
            self.writer.stores(memory)
            return self.writer.of(contiguous(memory)), self.index(value.shape)
        name = self.writer.buffer(value)
        del self.writer.homes[value]  # what is made here is not read here
        return name, self.index(value.shape)


def contiguous(memory: Memory) -> Memory:
    """The memory, whose elements lie row by row without gaps, as loops take them to."""
    if not memory.array.flags.c_contiguous:
        raise Unrecordable("an array that is not contiguous")
    return memory


def wrote(writer: CudaWriter, operations: list[Operation]) -> None:
    """Note what a loop has written to memory."""
    for kind, _, memory, _ in operations:
        if memory is not None:
            writer.wrote(memory)
            writer.pending.remove((memory, kind == "store"))


def done(writer: CudaWriter, operations: list[Operation], homes: dict[Node, str]) -> None:
    """Note where later pieces find what a piece has written, which it does not read itself."""
    for kind, value, memory, _ in operations:
        if memory is not None:
            for node in [
                node for node, (_, home) in writer.homes.items() if home is not None and home.overlaps(memory)
            ]:
                del writer.homes[node]
        if kind == "store":
            assert memory is not None
            writer.homes[value] = (writer.of(memory), memory)
    writer.homes.update({node: (name, None) for node, name in homes.items()})


def indented(lines: list[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def block(lines: list[str]) -> str:
    return "\n".join(["{", *indented(lines), "}", ""])


def few(elements: int) -> int:
    """Threads of a block for so many elements: a power of two of whole warps."""
    return min(MOST_THREADS, max(WARP, 1 << max(elements - 1, 0).bit_length()))


def checked(elements: int) -> int:
    if elements >= MOST_ELEMENTS:
        raise Unrecordable("an array of more elements than have 32-bit numbers")
    return elements


def term(operation: Operation) -> Node:
    """The value of which there is a loop."""
    return operation.value.args[0] if operation.kind in ("row", "columns") else operation.value
