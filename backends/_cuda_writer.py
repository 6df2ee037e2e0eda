"""CUDA C++ for the values of a recorded step: names, numbers, formulas, and kernels around them.

What shaped it:

- Sizes and numbers are arguments, and every name is given in its order in the text. So equal groups have equal
  kernels, in other networks too, and these are compiled once.
- Integers are those of NumPy: modulo their size.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np

from ._trace import Node, Operation, Unrecordable
from ._trace_writer import Buffer, Writer

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
BLOCK, MOST_THREADS, WARP = 256, 1024, 32
MOST_NUMBER = 2**31 - 1
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


class Piece(NamedTuple):
    """A part of a kernel, which is right for any number of blocks: by how many it is best done, and on how much."""

    name: str
    text: str
    blocks: int
    threads: int
    elements: int


class CudaWriter(Writer):
    """Writes CUDA C++."""

    def literal(self, node: Node, dtype: Any) -> str:
        """A number without a dtype, in this one."""
        if dtype is None:
            raise Unrecordable("numbers among themselves")
        if node.kind == "input":
            word, kept = node.data
            return f"({c_type(dtype)})*({c_type(kept)} const*)(row + {self.size(word)})"
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

    def scratch(self, shape: tuple[int, ...], dtype: Any) -> str:
        """A buffer of no value, for the present group."""
        name = f"t{len(self.buffers)}"
        self.buffers[name] = Buffer(shape, dtype, self.group)
        return name

    def kernel(self, pieces: list[Piece], first: bool, words: int, output: Any) -> Kernel:
        """The pieces as one kernel, done by one block if there are several. Names get the numbers of their order."""
        text = "__syncthreads();\n".join(piece.text for piece in pieces if piece.text)
        special = {"row": "const int*", "outputs": f"{c_type(output)}*", "counter": "int*"}
        if first:
            special = special | {"table": "const int*", "place": "int*"}
            width = self.size(words)
            text = f"const int* row = table + (long long)counter[0] * {width};\n{FETCH.format(words=width)}{text}"
            del special["row"]
        special = {name: kind for name, kind in special.items() if re.search(rf"\b{name}\b", text)}
        found: dict[str, dict[str, str]] = {kind: {} for kind in "ancv"}

        def renamed(match: re.Match[str]) -> str:
            kind = "a" if match[1] in "mt" else match[1]
            return found[kind].setdefault(match[0], f"{kind}{len(found[kind])}")

        body = re.sub(r"\b([mtncv])\d+(?=\b|_of|_all)", renamed, text).replace("\n", "\n    ").rstrip()
        sizes = {name: size for size, name in self.sizes.items()}
        if any(abs(sizes[old]) > MOST_NUMBER for old in found["n"]):
            raise Unrecordable("a size that is no 32-bit number")
        numbers = {name: (number, dtype) for (number, _, dtype), name in self.numbers.items()}
        dtypes = {name: memory.array.dtype for memory, name in self.names.items()}
        dtypes |= {name: buffer.dtype for name, buffer in self.buffers.items()}
        parameters = [f"{kind} {name}" for name, kind in special.items()]
        parameters += [f"{c_type(dtypes[old])}* {new}" for old, new in found["a"].items()]
        parameters += [f"int {new}" for new in found["n"].values()]
        parameters += [f"{c_type(np.dtype(numbers[old][1]))} {new}" for old, new in found["c"].items()]
        name = "_".join(["dlx", *dict.fromkeys(piece.name for piece in pieces)])
        threads, working = max(piece.threads for piece in pieces), [piece for piece in pieces if piece.elements]
        # A block may be large, and its threads share the registers of a multiprocessor, which the compiler is told.
        bounds = f"__launch_bounds__({MOST_THREADS}) " if "shfl" in body else ""
        head = f'extern "C" {bounds}__global__ void {name}({", ".join(parameters)})'
        shared = f"__shared__ long long shared[{WARP * (WARP + 1)}];\n    " if "shared" in body else ""
        source = f"{DEVICE}{head} {{\n    {shared}{body}\n}}\n"
        return Kernel(
            name,
            source,
            [*special, *found["a"]],
            [sizes[old] for old in found["n"]],
            [numbers[old] for old in found["c"]],
            working[0].blocks if len(working) == 1 else 1,
            threads,
        )


def c_type(dtype: Any) -> str:
    """CUDA's name of a dtype."""
    if dtype.kind == "f":
        return {4: "float", 8: "double"}[dtype.itemsize]
    if dtype.kind == "b":
        return "bool"
    size = {1: "char", 2: "short", 4: "int", 8: "long long"}[dtype.itemsize]
    return f"{'unsigned' if dtype.kind == 'u' else 'signed'} {size}"
