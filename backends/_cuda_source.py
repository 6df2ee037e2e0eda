"""From a recorded step to CUDA kernels: one for each group of operations between two products.

What shaped it:

- A small step on a GPU takes as long as its kernels are many. So a group is one kernel: values of elements, sums and
  maxima of rows by threads that exchange them, sums of columns in the pass that computes their terms, and totals.
- Threads of different blocks cannot wait for each other. What needs all rows after what needs whole rows is a kernel of
  its own, unless the group is so small that one block does it all.
- What changes from step to step is read from a row of words on the device. The first kernel copies this step's row from
  the table of all steps, and the last one keeps the loss and counts on.
- A gradient by weights is only read at the end of a step. So its product may run beside what follows, and what it reads
  is kept until then.
"""

from __future__ import annotations

from typing import NamedTuple

from ._cuda_pieces import pieces_of, tick
from ._cuda_values import ONE_BLOCK
from ._cuda_writer import BLOCK, CudaWriter, Kernel, Piece, Product
from ._trace import Memory, Program, Unrecordable
from ._trace_groups import grouped
from ._trace_writer import Buffer

MOST_PIECES = 16  # of a kernel: more take long to compile


class Source(NamedTuple):
    """The kernels and products in their order, of which those before `join` may run beside others; and the arrays."""

    calls: list[Kernel | Product]
    join: int
    memories: dict[str, Memory]
    buffers: dict[str, Buffer]


def source_of(program: Program, words: int) -> Source:
    """All calls of a step whose inputs are rows of so many words."""
    output, writer, groups = program.output, CudaWriter(), grouped(program)
    if output is None or output.shape != ():
        raise Unrecordable("a loss that is no number")
    calls: list[tuple[int, Kernel | Product]] = []  # with the numbers of their groups
    pieces: list[Piece] = []

    def finish() -> None:
        if pieces:
            calls.append((writer.group, writer.kernel(pieces, not calls, words, output.dtype)))
            pieces.clear()

    for writer.group, group in enumerate(groups):
        if group.space is None and group.operations[0].kind == "product":
            if not calls and not pieces:
                pieces.append(Piece("fetch", "", 1, BLOCK, 0))
            finish()
            calls.append((writer.group, writer.product(group.operations[0])))
            continue
        for piece in pieces_of(writer, group):
            crowded = sum(each.elements for each in (*pieces, piece)) > ONE_BLOCK or len(pieces) == MOST_PIECES
            if pieces and crowded:
                finish()
            pieces.append(piece)
    if not calls:  # whatever reads this step's row must do so before it counts on
        finish()
    pieces.append(tick(writer, output))
    finish()
    join = _joined(writer, calls)
    memories = {name: memory for memory, name in writer.names.items()}
    return Source([call for _, call in calls], join, memories, writer.buffers)


def _joined(writer: CudaWriter, made: list[tuple[int, Kernel | Product]]) -> int:
    """Before which call the products that are aside must be done. What they read is kept until then."""
    memories = {name: memory for memory, name in writer.names.items()}
    busy: list[Memory] = []  # which they write or read
    kept: list[str] = []
    place, group = len(made), len(made)
    for k, (number, call) in enumerate(made):
        aside = isinstance(call, Product) and call.aside
        names = call.arrays if isinstance(call, Kernel) else [*call.operands, call.out]
        touched = [memories[name] for name in names if name in memories]
        if not aside and any(memory.overlaps(other) for memory in touched for other in busy):
            place, group = k, number
            break
        if aside:
            busy += touched
            kept += names
    for name in kept:
        if name in writer.buffers:
            writer.buffers[name].last = max(writer.buffers[name].last, group)
    return place
