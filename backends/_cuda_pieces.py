"""The loops of CUDA kernels: over elements, whole rows, columns, and all of an array.

What shaped it:

- A piece is right for any number of blocks and threads, so that pieces can follow each other in one block.
- A sum has the same order at every run, whatever the device: no atomic additions.
- A store reads and writes the same element in the same thread. Whatever else would be read and written in one kernel is
  refused by the `Writer`.
"""

from __future__ import annotations

from typing import Any

from ._cuda_rows import rows
from ._cuda_values import ONE_BLOCK, Elements, block, checked, contiguous, done, few, indented, term, wrote
from ._cuda_writer import BLOCK, MOST_THREADS, WARP, CudaWriter, Piece, c_type
from ._trace import Node, Operation, Unrecordable
from ._trace_groups import Group

KINDS = ("store", "make", "row", "columns", "total")
MOST_BLOCKS = 4096
BLOCKS = 64  # at least, of a kernel that has enough to do
ROWS = 32  # that a thread adds up, before more blocks share them out
PARTS = 256  # of a total that is too large for one block


def pieces_of(writer: CudaWriter, group: Group) -> list[Piece]:
    """The parts of a group in their order."""
    for operation in group.operations:
        if operation.kind not in KINDS:
            raise Unrecordable(f"an operation of the kind {operation.kind}")
    if group.space is None:
        return total(writer, group.operations[0])
    whole_rows = [each for each in group.operations if each.kind != "columns"]
    by_rows = any(each.kind == "row" for each in whole_rows)
    for memory in (each.memory for each in group.operations if each.kind == "columns"):
        assert memory is not None
        writer.pending.append((memory, False))
    pieces = [rows(writer, group, whole_rows)] if by_rows else []
    rest = group.operations if not by_rows else [each for each in group.operations if each.kind == "columns"]
    widths = dict.fromkeys(_width(each) for each in rest)
    for width in widths:
        some = [each for each in rest if _width(each) == width]
        summed = any(each.kind == "columns" for each in some)
        pieces += columns(writer, group, some, width) if summed else [each_element(writer, group, some, width)]
    return pieces


def _width(operation: Operation) -> int:
    return int(term(operation).shape[-1])


def each_element(writer: CudaWriter, group: Group, operations: list[Operation], width: int) -> Piece:
    """Values of elements, each in a thread of its own."""
    assert group.space is not None
    kind, n = group.space
    values, homes = Elements(writer, kind, n), {}
    stores: dict[str, str] = {}  # the last one of each array
    for operation in operations:
        text = values.value(operation.value)
        name, index = values.written(operation)
        stores[name] = f"{name}{index} = {text};"
        if operation.kind == "make":
            homes[operation.value] = name
    elements, place = checked(n if kind == "vector" else n * width), _place(writer, kind, n, width)
    loop = _loop(place, [*values.element, *stores.values()])
    wrote(writer, operations)
    done(writer, operations, homes)
    blocks = min(MOST_BLOCKS, -(-elements // BLOCK)) or 1
    return Piece("each", block([*values.top, *loop]), blocks, BLOCK, elements)


def _place(writer: CudaWriter, kind: str, n: int, width: int) -> tuple[str, list[str]]:
    """How many elements there are, and the lines that say which row and column the element `at` has."""
    if kind == "vector":
        return writer.size(n), ["const int j = at;"]
    if width == 1:
        return writer.size(n), ["const int i = at, j = 0;"]
    columns = writer.size(width)
    return f"{writer.size(n)} * {columns}", [f"const int i = at / {columns}, j = at - i * {columns};"]


def _loop(place: tuple[str, list[str]], lines: list[str]) -> list[str]:
    """A loop in which every thread of all blocks has elements of its own."""
    size, where = place
    stride = "gridDim.x * blockDim.x"
    head = f"for (int at = blockIdx.x * blockDim.x + threadIdx.x; at < {size}; at += {stride}) {{"
    return [head, *indented([*where, *lines]), "}"]


def _summed(name: str, dtype: Any, width: int, write: str) -> list[str]:
    """The lines that add up `name` over the threads of a block which have the same remainder `c` by `width`.

    A warp adds up its own by exchanges, and then each column's sums of all warps. `write` keeps `{name}_all`, the sum.
    """
    kind, shared, whole = c_type(dtype), f"{name}_of", f"{name}_all"
    return [
        f"for (int half = 16; half >= {width}; half /= 2) {name} += __shfl_xor_sync(0xffffffff, {name}, half);",
        f"{kind}* const {shared} = ({kind}*)shared;",
        "__syncthreads();",
        f"if (threadIdx.x % 32 < {width}) {shared}[threadIdx.x % 32 * 33 + threadIdx.x / 32] = {name};",
        "__syncthreads();",
        f"for (int c = threadIdx.x / 32; c < {width}; c += blockDim.x / 32) {{",
        f"    {kind} {whole} = threadIdx.x % 32 < blockDim.x / 32 ? {shared}[c * 33 + threadIdx.x % 32] : 0;",
        f"    for (int half = 16; half; half /= 2) {whole} += __shfl_xor_sync(0xffffffff, {whole}, half);",
        f"    if (threadIdx.x % 32 == 0) {write.format(sum=whole)};",
        "}",
    ]


def columns(writer: CudaWriter, group: Group, operations: list[Operation], width: int) -> list[Piece]:
    """Values of elements with sums of their columns: a block has some columns, and its threads share out the rows.

    Where rows are many and columns are few, several blocks share out the rows, and their sums are added up after them.
    """
    assert group.space is not None
    kind, n = group.space
    values, homes, stores = Elements(writer, kind, n), {}, []
    sums: list[tuple[str, Any, str]] = []
    for operation in operations:
        text = values.value(term(operation))
        if operation.kind == "columns":
            assert operation.memory is not None
            name = writer.name()
            sums.append((name, operation.value.dtype, writer.of(contiguous(operation.memory))))
            values.element.append(f"{name} += {text};")
            continue
        name, index = values.written(operation)
        stores.append(f"if (live) {name}{index} = {text};")
        if operation.kind == "make":
            homes[operation.value] = name
    wrote(writer, operations)
    done(writer, operations, homes)
    at_once = _columns_at_once(width)
    rows_at_once, tiles = MOST_THREADS // at_once, -(-width // at_once)
    parts = 1 if n <= ROWS * rows_at_once else max(1, min(-(-n // (ROWS * rows_at_once)), 2 * BLOCKS // tiles, PARTS))
    body, size = [*values.element, *stores], checked(n * width)
    if parts == 1:
        return [_column_sums(writer, values.top, body, sums, at_once, n, width, size)]
    partial = [(name, dtype, writer.scratch((parts, width), dtype)) for name, dtype, _ in sums]
    first = _column_sums(writer, values.top, body, partial, at_once, n, width, size, parts)
    names = [(writer.name(), dtype, out) for _, dtype, out in sums]
    wide = writer.size(width)
    added = [f"{name} += {some}[i * {wide} + j];" for (name, *_), (*_, some) in zip(names, partial, strict=True)]
    return [first, _column_sums(writer, [], added, names, at_once, parts, width, parts * width)]


def _columns_at_once(width: int) -> int:
    """How many columns a block has: those of narrow matrices at once, and no more than let enough blocks work."""
    at_once = 1
    while at_once < min(width, WARP) and (at_once < 8 or width <= WARP or width > 2 * BLOCKS * at_once):
        at_once *= 2
    return at_once


def _column_sums(
    writer: CudaWriter,
    top: list[str],
    body: list[str],
    sums: list[tuple[str, Any, str]],
    at_once: int,
    n: int,
    width: int,
    elements: int,
    parts: int = 1,
) -> Piece:
    """The loops over columns and rows around `body`, which adds to the `sums`: their names, dtypes and arrays."""
    rows, wide = writer.size(n), writer.size(width)
    part, tile, row = "", "blockIdx.x", "0"
    stride = f"blockDim.x / {at_once}"
    if parts > 1:
        many = writer.size(parts)
        tile, mine = f"blockIdx.x / {many}", f"blockIdx.x % {many}"
        part, row = f"{mine} * {wide} + ", f"{mine} * ({stride})"
        stride = f"{many} * ({stride})"
    lines = [
        *top,
        *(f"{c_type(dtype)} {name} = 0;" for name, dtype, _ in sums),
        f"for (int first = {tile} * {at_once}; first < {wide}; first += gridDim.x * {at_once}) {{",
        f"    const bool live = first + threadIdx.x % {at_once} < {wide};",
        f"    const int j = live ? first + threadIdx.x % {at_once} : 0;",
        f"    for (int i = {row} + threadIdx.x / {at_once}; i < {rows}; i += {stride}) {{",
        *indented(indented(body)),
        "    }",
    ]
    for name, dtype, out in sums:
        write = f"if (first + c < {wide}) {out}[{part}first + c] = {{sum}}"
        lines += indented([*_summed(name, dtype, at_once, write), f"{name} = 0;"])
    return Piece("columns", block([*lines, "}"]), -(-width // at_once) * parts, few(n * at_once), elements)


def total(writer: CudaWriter, operation: Operation) -> list[Piece]:
    """The sum of all elements, in two pieces if they are too many for one block."""
    value, added = operation.value, operation.value.args[0]
    kind, (n, width) = ("vector", (*added.shape, 1)) if len(added.shape) == 1 else ("matrix", added.shape)
    elements = checked(n * width)
    place = _place(writer, kind, n, width)
    values = Elements(writer, kind, n)
    text = values.value(added)
    memory = operation.memory
    out = writer.buffer(value) if memory is None else writer.of(contiguous(memory))
    if memory is not None:
        writer.wrote(memory)
    if elements <= 4 * ONE_BLOCK:
        lines = _totalled(writer, values, place, text, value.dtype, out)
        return [Piece("total", block(lines), 1, few(elements), elements)]
    parts = writer.scratch((PARTS,), value.dtype)
    lines = _totalled(writer, values, place, text, value.dtype, parts)
    rest = Elements(writer, "vector", PARTS)
    rest.element.append(f"const {c_type(value.dtype)} part = {parts}[j];")
    lines_of_rest = _totalled(writer, rest, _place(writer, "vector", PARTS, 1), "part", value.dtype, out)
    return [
        Piece("total", block(lines), PARTS, BLOCK, elements),
        Piece("total", block(lines_of_rest), 1, PARTS, PARTS),
    ]


def _totalled(
    writer: CudaWriter, values: Elements, place: tuple[str, list[str]], text: str, dtype: Any, out: str
) -> list[str]:
    """The sum of each block's elements."""
    name = writer.name()
    lines = [*values.top, f"{c_type(dtype)} {name} = 0;", *_loop(place, [*values.element, f"{name} += {text};"])]
    return [*lines, *_summed(name, dtype, 1, f"{out}[blockIdx.x] = {{sum}}")]


def tick(writer: CudaWriter, output: Node) -> Piece:
    """The end of a step: one thread keeps its output, and counts on."""
    values = Elements(writer, "vector", 0)
    name = values.value(output)
    lines = [*values.top, f"outputs[counter[0]] = {name};", "counter[0] += 1;"]
    text = "if (blockIdx.x == 0 && threadIdx.x == 0) " + block(lines)
    return Piece("tick", text, 1, WARP, 0)
