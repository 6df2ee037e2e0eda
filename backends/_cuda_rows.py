"""Whole rows in a CUDA kernel: their sums and maxima, and what is computed from them.

A row is shared by neighbouring threads of a warp, which exchange their results. All threads of a block make the same
rounds, as an exchange waits for all; those without a row of their own read another one, and write nothing.
"""

from __future__ import annotations

import math

import numpy as np

from ._cuda_values import ONE_BLOCK, Elements, block, checked, done, few, indented, term, wrote
from ._cuda_writer import BLOCK, WARP, CudaWriter, Piece, c_type
from ._trace import Node, Operation
from ._trace_groups import Group


def rows(writer: CudaWriter, group: Group, operations: list[Operation]) -> Piece:
    """Values, sums and maxima of whole rows, each of which some neighbouring threads of a warp share."""
    assert group.space is not None
    n, written = group.space[1], Rows(writer, group)
    for operation in operations:
        written.add(operation)
    written.close()
    done(writer, operations, written.homes)
    widest = max(int(term(each).shape[-1]) for each in operations)
    lanes = min(WARP, 1 << max(widest - 1, 0).bit_length())
    size = writer.size(n)
    body = [
        f"const int lane = threadIdx.x % {lanes};",
        f"const bool live = first + threadIdx.x / {lanes} < {size};",
        f"const int i = live ? first + threadIdx.x / {lanes} : 0;",
        *(line.replace("LANES", str(lanes)) for line in written.body),
    ]
    per_block = f"blockDim.x / {lanes}"
    head = f"for (int first = blockIdx.x * ({per_block}); first < {size}; first += gridDim.x * ({per_block})) {{"
    lines = [*written.top, head, *indented(body), "}"]
    elements = checked(n * widest)
    threads = few(n * lanes) if elements <= ONE_BLOCK else BLOCK
    return Piece("rows", block(lines), -(-n * lanes // threads), threads, elements)


class Rows(Elements):
    """Writes operations on whole rows as loops over their elements, one after the other."""

    def __init__(self, writer: CudaWriter, group: Group) -> None:
        assert group.space is not None
        super().__init__(writer, *group.space, by_rows=True)
        self.body: list[str] = []
        self.homes: dict[Node, str] = {}
        self.open(None)

    def open(self, width: int | None) -> None:
        """Begin a loop over so many elements of the row; None is no loop."""
        self.width = width
        self.stores: list[str] = []
        self.stored: list[Operation] = []
        self.after: list[str] = []
        self.results = {}

    def close(self) -> None:
        """End the loop."""
        self.body += self.row
        loop = [*self.element, *self.stores]
        if loop and self.width is None:
            self.body += loop
        elif loop:
            head = f"for (int j = lane; j < {self.writer.size(self.width or 0)}; j += LANES) {{"
            self.body += [head, *indented(loop), "}"]
        self.body += self.after
        wrote(self.writer, self.stored)  # a later loop that needs what was there is refused
        self.known |= self.results
        self.row, self.element, self.elements = [], [], {}
        self.open(None)

    def add(self, operation: Operation) -> None:
        """An operation of the group."""
        value, node = operation.value, term(operation)
        width = None if self.is_row(node) else int(node.shape[-1])
        if width != self.width or self.needs(node, set()):
            self.close()
            self.open(width)
        text = self.value(node)
        guard = "live && lane == 0" if width is None else "live"
        if operation.kind != "row":
            name, index = self.written(operation)
            self.stores.append(f"if ({guard}) {name}{index} = {text};")
            self.stored.append(operation)
            if operation.kind == "make":
                self.homes[value] = name
            return
        name, kept = self.writer.name(), self.writer.buffer(value)
        del self.writer.homes[value]
        self.homes[value] = kept
        self.results[value] = name
        self.reduced(value, text, name)
        self.after.append(f"if (live && lane == 0) {kept}[i] = {name};")

    def reduced(self, value: Node, text: str, name: str) -> None:
        """The sum or maximum of a row, for all threads that share it."""
        kind = c_type(value.dtype)
        if self.width is None:
            self.stores.append(f"const {kind} {name} = {text};")
            return
        adds = value.op is np.add
        with_ = "{0} + {1}" if adds else "dlx_maximum({0}, {1})"
        first = "0" if adds else self.writer.number(-math.inf, value.dtype)
        self.row.append(f"{kind} {name} = {first};")
        self.element.append(f"{name} = {with_.format(name, text)};")
        other = f"__shfl_xor_sync(0xffffffff, {name}, half, LANES)"
        line = f"{name} = {with_.format(name, other)};"
        self.after.append(f"for (int half = LANES / 2; half; half /= 2) {line}")
