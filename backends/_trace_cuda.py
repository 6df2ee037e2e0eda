"""From a recorded step to CUDA kernels: one for each group of operations between two products.

What shaped it:

- A small step on a GPU takes as long as its kernels are many. So a group is one kernel: values of elements, sums and
  maxima of rows by threads that exchange them, sums of columns in the pass that computes their terms, and totals.
- Threads of different blocks cannot wait for each other. What needs all rows after what needs whole rows is a kernel of
  its own, unless the group is so small that one block does it all.
- A sum has the same order at every run, whatever the device: no atomic additions.
- A store reads and writes the same element in the same thread. Whatever else would be read and written in one kernel is
  refused by the `Writer`.
- Sizes and numbers are arguments, and every name is given in its order in the text. So equal groups have equal
  kernels, in other networks too, and these are compiled once.
- What changes from step to step is read from a row of words on the device. The first kernel copies this step's row from
  the table of all steps, and the last one keeps the loss and counts on.
"""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

import numpy as np

from ._trace import Memory, Node, Operation, Program, Unrecordable
from ._trace_groups import Group, grouped
from ._trace_writer import Buffer, Writer

BLOCK, MOST_THREADS, WARP = 256, 1024, 32
MOST_BLOCKS = 4096
ONE_BLOCK = 1 << 13  # elements that one block may work on, to save other kernels
PARTS = 256  # of a total that is too large for one block
MOST_ELEMENTS = 1 << 30  # that have 32-bit numbers
INFIX = {
    np.add: "+", np.subtract: "-", np.multiply: "*", np.divide: "/",
    np.greater: ">", np.greater_equal: ">=", np.less: "<", np.less_equal: "<=", np.equal: "==", np.not_equal: "!=",
    np.bitwise_and: "&", np.bitwise_or: "|", np.bitwise_xor: "^", np.left_shift: "<<", np.right_shift: ">>",
}  # fmt: skip
WRAPS = (np.add, np.subtract, np.multiply, np.left_shift)  # integers, modulo 2^32
CALLS = {
    np.maximum: "dlx_maximum", np.minimum: "dlx_minimum", np.sqrt: "sqrt", np.absolute: "fabs", np.negative: "-",
    np.exp: "exp", np.expm1: "expm1", np.log: "log", np.log1p: "log1p", np.tanh: "tanh",
}  # fmt: skip
DEVICE = r"""template <class T> __device__ T dlx_maximum(T a, T b) { return a > b || a != a ? a : b; }
template <class T> __device__ T dlx_minimum(T a, T b) { return a < b || a != a ? a : b; }
"""
FETCH = """for (int word = blockIdx.x * blockDim.x + threadIdx.x; word < {words}; word += gridDim.x * blockDim.x)
    place[word] = row[word];
"""


class Kernel(NamedTuple):
    """A kernel, the names of its arrays, its sizes and numbers, and how many blocks of how many threads it has."""

    name: str
    source: str
    arrays: list[str]
    sizes: list[int]
    numbers: list[tuple[float, str]]
    blocks: int
    threads: int


class Product(NamedTuple):
    """A product of two arrays by name, and the array of the result. `aside` may run beside what follows."""

    operands: tuple[str, str]
    flipped: tuple[bool, bool]
    out: str
    aside: bool


class Source(NamedTuple):
    """The kernels and products in their order, of which those before `join` may run beside others; and the arrays."""

    calls: list[Kernel | Product]
    join: int
    memories: dict[str, Memory]
    buffers: dict[str, Buffer]


class Piece(NamedTuple):
    """A part of a kernel, which is right for any number of blocks: by how many it is best done, and on how much."""

    name: str
    text: str
    blocks: int
    threads: int
    elements: int


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
            if pieces and sum(each.elements for each in (*pieces, piece)) > ONE_BLOCK:
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
    written: list[Memory] = []
    read: list[str] = []
    for place, (group, call) in enumerate(made):
        names = call.arrays if isinstance(call, Kernel) else (*call.operands, *(() if call.aside else (call.out,)))
        touched = [memories[name] for name in names if name in memories]
        if any(memory.overlaps(other) for memory in touched for other in written):
            for name in read:
                if name in writer.buffers:
                    writer.buffers[name].last = max(writer.buffers[name].last, group)
            return place
        if isinstance(call, Product) and call.aside:
            written.append(memories[call.out])
            read += call.operands
    for name in read:
        if name in writer.buffers:
            writer.buffers[name].last = len(made)
    return len(made)


class CudaWriter(Writer):
    """Writes CUDA C++."""

    def literal(self, node: Node, dtype: Any) -> str:
        """A number without a dtype, in this one."""
        if dtype is None:
            raise Unrecordable("numbers among themselves")
        if node.kind == "input":
            word, kept = node.data
            return f"({c_type(dtype)})*({c_type(kept)} const*)(row + {word})"
        if dtype.kind in "iu":
            return f"({c_type(dtype)})({int(node.data)})"
        return self.number(float(node.data), dtype)

    def number(self, number: float, dtype: Any) -> str:
        """The name of a number, which is an argument of the kernel."""
        return self.numbers.setdefault((number, str(number), dtype.name), f"c{len(self.numbers)}")

    def formula(self, node: Node, terms: list[str]) -> str:
        """The text of an elementwise operation."""
        kind = c_type(node.dtype)
        if node.op == "cast":
            return f"({kind})({terms[0]})"
        if node.op == "where":
            return f"({terms[0]} ? {terms[1]} : {terms[2]})"
        if node.op not in INFIX:
            return f"{CALLS[node.op]}({', '.join(terms)})"
        if node.dtype.kind in "iu" and node.op in WRAPS:
            unsigned = c_type(np.dtype(f"u{node.dtype.itemsize}"))
            terms = [f"({unsigned})({term})" for term in terms]
        text = f" {INFIX[node.op]} ".join(terms)
        return f"({kind})({text})" if node.dtype.kind in "iu" else text

    def product(self, operation: Operation) -> Product:
        """A product, which may run beside others if its result goes to memory."""
        first, second = map(self.lies, operation.value.args)
        assert first is not None
        assert second is not None
        memory = operation.memory
        out = self.buffer(operation.value) if memory is None else self.of(memory)
        if memory is not None:
            self.wrote(memory)
        return Product((first, second), operation.flipped, out, memory is not None)

    def scratch(self, size: int, dtype: Any) -> str:
        """A buffer of no value, for the present group."""
        name = f"t{len(self.buffers)}"
        self.buffers[name] = Buffer((size,), dtype, self.group)
        return name

    def kernel(self, pieces: list[Piece], first: bool, words: int, output: Any) -> Kernel:
        """The pieces as one kernel, done by one block if there are several. Names get the numbers of their order."""
        text = "__syncthreads();\n".join(piece.text for piece in pieces if piece.text)
        special = {"row": "const int*", "outputs": f"{c_type(output)}*", "counter": "int*"}
        if first:
            special = special | {"table": "const int*", "place": "int*"}
            text = f"const int* row = table + (long long)counter[0] * {words};\n{FETCH.format(words=words)}{text}"
            del special["row"]
        special = {name: kind for name, kind in special.items() if re.search(rf"\b{name}\b", text)}
        found: dict[str, dict[str, str]] = {kind: {} for kind in "anv"} | {"c": {}}

        def renamed(match: re.Match[str]) -> str:
            kind = "a" if match[1] in "mt" else match[1]
            return found[kind].setdefault(match[0], f"{kind}{len(found[kind])}")

        body = re.sub(r"\b([mtncv])\d+(?=\b|_of)", renamed, text).replace("\n", "\n    ").rstrip()
        sizes = {name: size for size, name in self.sizes.items()}
        numbers = {name: (number, dtype) for (number, _, dtype), name in self.numbers.items()}
        dtypes = {name: memory.array.dtype for memory, name in self.names.items()}
        dtypes |= {name: buffer.dtype for name, buffer in self.buffers.items()}
        parameters = [f"{kind} {name}" for name, kind in special.items()]
        parameters += [f"{c_type(dtypes[old])}* {new}" for old, new in found["a"].items()]
        parameters += [f"int {new}" for new in found["n"].values()]
        parameters += [f"{c_type(np.dtype(numbers[old][1]))} {new}" for old, new in found["c"].items()]
        name = "_".join(["dlx", *dict.fromkeys(piece.name for piece in pieces)])
        source = f'{DEVICE}extern "C" __global__ void {name}({", ".join(parameters)}) {{\n    {body}\n}}\n'
        working = [piece for piece in pieces if piece.elements]
        return Kernel(
            name,
            source,
            [*special, *found["a"]],
            [sizes[old] for old in found["n"]],
            [numbers[old] for old in found["c"]],
            working[0].blocks if len(working) == 1 else 1,
            max(piece.threads for piece in pieces),
        )


def c_type(dtype: Any) -> str:
    """CUDA's name of a dtype."""
    if dtype.kind == "f":
        return {4: "float", 8: "double"}[dtype.itemsize]
    if dtype.kind == "b":
        return "bool"
    size = {1: "char", 2: "short", 4: "int", 8: "long long"}[dtype.itemsize]
    return f"{'unsigned' if dtype.kind == 'u' else 'signed'} {size}"


class Values:
    """The names of values in a loop over elements (i, j): of numbers before it, and of elements in it.

    With `by_rows`, values of a row i are known before the loop over its elements.
    """

    def __init__(self, writer: CudaWriter, kind: str, rows: int, by_rows: bool = False) -> None:
        self.writer, self.kind, self.rows, self.by_rows = writer, kind, rows, by_rows
        self.top: list[str] = []
        self.row: list[str] = []
        self.element: list[str] = []
        self.known: dict[Node, str] = {}
        self.elements: dict[Node, str] = {}

    def is_row(self, node: Node) -> bool:
        """Whether the value is one number for the row."""
        return self.kind == "matrix" and (len(node.shape) < 2 or node.shape[1] == 1)

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
        if not single and (
            len(node.shape) != (2 if self.kind == "matrix" else 1) or node.shape[0] not in (1, self.rows)
        ):
            raise Unrecordable("rows of another number")
        text, name = self.text(node), self.writer.name()
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
        home = self.writer.lies(node)
        if home is not None:
            return f"{home}{self.index(node.shape)}"
        if node.kind == "gather":
            memory, (word, kept) = node.data, node.op
            down, right = (self.writer.size(stride // node.dtype.itemsize) for stride in memory.array.strides)
            column = "" if node.shape[1] == 1 else f" + (long long)j * {right}"
            return f"{self.writer.of(memory)}[(long long)(({c_type(kept)} const*)(row + {word}))[i] * {down}{column}]"
        if node.kind != "each":
            raise Unrecordable(f"a value by {node.kind} in a loop")
        return self.writer.formula(node, self.writer.terms_of(node, self.value))

    def written(self, operation: Operation) -> tuple[str, str]:
        """The array and the place to which a value is written, by "store" or "make"."""
        kind, value, memory, _ = operation
        if kind == "store":
            assert memory is not None
            self.writer.pending.append((memory, True))
            return self.writer.of(memory), self.index(value.shape)
        name = self.writer.buffer(value)
        del self.writer.homes[value]  # what is made here is not read here
        return name, self.index(value.shape)


def pieces_of(writer: CudaWriter, group: Group) -> list[Piece]:
    """The parts of a group in their order."""
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
        pieces.append((columns if summed else each_element)(writer, group, some, width))
    return pieces


def _width(operation: Operation) -> int:
    node = operation.value.args[0] if operation.kind == "columns" else operation.value
    return int(node.shape[-1])


def done(writer: CudaWriter, operations: list[Operation], homes: dict[Node, str]) -> None:
    """Note what a piece has written, for later pieces."""
    for kind, value, memory, _ in operations:
        if memory is not None:
            writer.wrote(memory)
            writer.pending.remove((memory, kind == "store"))
            if kind == "store":
                writer.homes[value] = (writer.of(memory), memory)
    writer.homes.update({node: (name, None) for node, name in homes.items()})


def _indented(lines: list[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def _block(lines: list[str]) -> str:
    return "\n".join(["{", *_indented(lines), "}", ""])


def _few(elements: int) -> int:
    """Threads of a block for so many elements: a power of two of whole warps."""
    return min(MOST_THREADS, max(WARP, 1 << max(elements - 1, 0).bit_length()))


def _checked(elements: int) -> int:
    if elements >= MOST_ELEMENTS:
        raise Unrecordable("an array of more elements than have 32-bit numbers")
    return elements


def each_element(writer: CudaWriter, group: Group, operations: list[Operation], width: int) -> Piece:
    """Values of elements, each in a thread of its own."""
    assert group.space is not None
    kind, n = group.space
    values, homes = Values(writer, kind, n), {}
    stores: dict[str, str] = {}  # the last one of each array
    for operation in operations:
        text = values.value(operation.value)
        name, index = values.written(operation)
        stores[name] = f"{name}{index} = {text};"
        if operation.kind == "make":
            homes[operation.value] = name
    elements, place = _checked(n if kind == "vector" else n * width), _place(writer, kind, n, width)
    loop = _loop(place, [*values.element, *stores.values()])
    done(writer, operations, homes)
    blocks = min(MOST_BLOCKS, -(-elements // BLOCK)) or 1
    return Piece("each", _block([*values.top, *loop]), blocks, BLOCK, elements)


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
    return [head, *_indented([*where, *lines]), "}"]


def _tree(name: str, dtype: Any, width: str) -> list[str]:
    """The lines that add up `name` over the threads of a block which have the same remainder by `width`.

    The sums are then with the first `width` threads, as `name`.
    """
    shared = f"{name}_of"
    return [
        f"__shared__ {c_type(dtype)} {shared}[{MOST_THREADS}];",
        "__syncthreads();",
        f"{shared}[threadIdx.x] = {name};",
        f"for (int half = blockDim.x / 2; half >= {width}; half /= 2) {{",
        "    __syncthreads();",
        f"    if (threadIdx.x < half) {shared}[threadIdx.x] += {shared}[threadIdx.x + half];",
        "}",
        f"{name} = {shared}[threadIdx.x];",
    ]


def columns(writer: CudaWriter, group: Group, operations: list[Operation], width: int) -> Piece:
    """Values of elements with sums of their columns: a block has some columns, and its threads share out the rows."""
    assert group.space is not None
    kind, n = group.space
    values, stores, sums, homes = Values(writer, kind, n), [], [], {}
    for operation in operations:
        if operation.kind == "columns":
            assert operation.memory is not None
            text, total = values.value(operation.value.args[0]), writer.name()
            sums.append((total, operation.value.dtype, writer.of(operation.memory)))
            values.top.append(f"{c_type(operation.value.dtype)} {total} = 0;")
            values.element.append(f"{total} += {text};")
            continue
        text = values.value(operation.value)
        name, index = values.written(operation)
        stores.append(f"if (live) {name}{index} = {text};")
        if operation.kind == "make":
            homes[operation.value] = name
    done(writer, operations, homes)
    elements, at_once = _checked(n * width), 1
    while at_once < min(width, WARP if n * width > ONE_BLOCK * 8 else 8):
        at_once *= 2
    rows, wide = writer.size(n), writer.size(width)
    body = [
        f"const bool live = first + threadIdx.x % {at_once} < {wide};",
        f"const int j = live ? first + threadIdx.x % {at_once} : 0;",
        f"for (int i = threadIdx.x / {at_once}; i < {rows}; i += blockDim.x / {at_once}) {{",
        *_indented([*values.element, *stores]),
        "}",
    ]
    for name, dtype, out in sums:
        body += [*_tree(name, dtype, str(at_once)), f"if (threadIdx.x < {at_once} && live) {out}[j] = {name};"]
        body.append(f"{name} = 0;")
    head = f"for (int first = blockIdx.x * {at_once}; first < {wide}; first += gridDim.x * {at_once}) {{"
    lines = [*values.top, head, *_indented(body), "}"]
    return Piece("columns", _block(lines), -(-width // at_once), _few(n * at_once), elements)


def total(writer: CudaWriter, operation: Operation) -> list[Piece]:
    """The sum of all elements, in two pieces if they are too many for one block."""
    value, term = operation.value, operation.value.args[0]
    kind, n, width = ("vector", term.shape[0], 1) if len(term.shape) == 1 else ("matrix", *term.shape)
    elements = _checked(n * width)
    place = _place(writer, kind, n, width)
    values = Values(writer, kind, n)
    text = values.value(term)
    memory = operation.memory
    out = writer.buffer(value) if memory is None else writer.of(memory)
    if memory is not None:
        writer.wrote(memory)
    if elements <= 4 * ONE_BLOCK:
        lines = _totalled(writer, values, place, text, value.dtype, out)
        return [Piece("total", _block(lines), 1, _few(elements), elements)]
    parts = writer.scratch(PARTS, value.dtype)
    lines = _totalled(writer, values, place, text, value.dtype, parts)
    rest = Values(writer, "vector", PARTS)
    rest.element.append(f"const {c_type(value.dtype)} part = {parts}[j];")
    lines_of_rest = _totalled(writer, rest, _place(writer, "vector", PARTS, 1), "part", value.dtype, out)
    return [
        Piece("total", _block(lines), PARTS, BLOCK, elements),
        Piece("total", _block(lines_of_rest), 1, PARTS, PARTS),
    ]


def _totalled(
    writer: CudaWriter, values: Values, place: tuple[str, list[str]], text: str, dtype: Any, out: str
) -> list[str]:
    """The sum of each block's elements."""
    name = writer.name()
    lines = [*values.top, f"{c_type(dtype)} {name} = 0;", *_loop(place, [*values.element, f"{name} += {text};"])]
    return [*lines, *_tree(name, dtype, "1"), f"if (threadIdx.x == 0) {out}[blockIdx.x] = {name};"]


def tick(writer: CudaWriter, output: Node) -> Piece:
    """The end of a step: one thread keeps its output, and counts on."""
    values = Values(writer, "vector", 0)
    name = values.value(output)
    lines = [*values.top, f"outputs[counter[0]] = {name};", "counter[0] += 1;"]
    text = "if (blockIdx.x == 0 && threadIdx.x == 0) " + _block(lines)
    return Piece("tick", text, 1, WARP, 0)


def rows(writer: CudaWriter, group: Group, operations: list[Operation]) -> Piece:
    """Values, sums and maxima of whole rows, each of which some neighbouring threads of a warp share."""
    assert group.space is not None
    n, written = group.space[1], Rows(writer, group)
    for operation in operations:
        written.add(operation)
    written.close()
    done(writer, operations, written.homes)
    widest = max(int(_term(each).shape[-1]) for each in operations)
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
    lines = [*written.top, head, *_indented(body), "}"]
    elements = _checked(n * widest)
    threads = _few(n * lanes) if elements <= ONE_BLOCK else BLOCK
    return Piece("rows", _block(lines), -(-n * lanes // threads), threads, elements)


def _term(operation: Operation) -> Node:
    """The value of which there is a loop."""
    return operation.value.args[0] if operation.kind == "row" else operation.value


class Rows(Values):
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
        self.after: list[str] = []
        self.results: dict[Node, str] = {}  # of rows, known when the loop is closed

    def close(self) -> None:
        """End the loop."""
        self.body += self.row
        loop = [*self.element, *self.stores]
        if loop and self.width is None:
            self.body += loop
        elif loop:
            head = f"for (int j = lane; j < {self.writer.size(self.width or 0)}; j += LANES) {{"
            self.body += [head, *_indented(loop), "}"]
        self.body += self.after
        self.known |= self.results
        self.row, self.element, self.elements = [], [], {}
        self.open(None)

    def add(self, operation: Operation) -> None:
        """An operation of the group."""
        value, node = operation.value, _term(operation)
        width = None if self.is_row(node) else int(node.shape[-1])
        if width != self.width or self.needs(node, set()):
            self.close()
            self.open(width)
        text = self.value(node)
        guard = "live && lane == 0" if width is None else "live"
        if operation.kind != "row":
            name, index = self.written(operation)
            self.stores.append(f"if ({guard}) {name}{index} = {text};")
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

    def needs(self, node: Node, seen: set[Node]) -> bool:
        """Whether the value needs a row's result that is known when the loop is closed."""
        if node in seen or node in self.writer.homes:
            return False
        seen.add(node)
        return node in self.results or any(self.needs(arg, seen) for arg in node.args if node not in self.known)
