"""What stands for the arrays of a training step while it is recorded.

What shaped it:

- The formulas are Python functions that call NumPy's. They are run once with `Recording` objects in place of arrays,
  whose operators and ufuncs write down what is asked of them. No formula is written a second time.
- An operation that is not known raises `Unrecordable`; the step then runs as it is. A wrong guess is never made: mixed
  dtypes, branches, and views of values that change are refused.
- Sums are NumPy's to the last bit. It adds up the few numbers of a row one after the other, as it does the rows of a
  matrix, which may become part of a loop; every other sum has an order of its own, and is left to NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ._trace import DTYPES, Loops, Memory, Node, Operation, Program, Unrecordable
from ._trace_words import FUNCTIONS, REWRITTEN, Words, alike, from_the_end, is_real, of_numbers

COMPARISONS = (np.greater, np.greater_equal, np.less, np.less_equal, np.equal, np.not_equal)
ARITHMETIC = (np.add, np.subtract, np.multiply, np.divide, np.maximum, np.minimum, np.sqrt, np.absolute, np.negative)
TRUTH = (np.bitwise_and, np.bitwise_or, np.bitwise_xor)
BITS = (*TRUTH, np.left_shift, np.right_shift)
OF_INTEGERS = (*COMPARISONS, *BITS, np.add, np.subtract, np.multiply)
TRANSCENDENTAL = (np.exp, np.expm1, np.log, np.log1p, np.tanh)
OF_USERS = (  # more of them, in functions of a user's own
    *(np.exp2, np.log2, np.log10, np.cbrt, np.sin, np.cos, np.tan, np.arcsin, np.arccos, np.arctan),
    *(np.sinh, np.cosh, np.arcsinh, np.arccosh, np.arctanh),
)
# NumPy adds up fewer than 8 numbers one after the other, and more in another order.
NUMPY = Loops(functions=False, row=8, totals=False)


class Recording(Words):
    """What stands for an array while a step is recorded: a value, or the memory of an array."""

    def __init__(self, program: Program, value: Node | None, memory: Memory | None = None) -> None:
        self.program, self._value, self.memory = program, value, memory
        like = memory.array if memory is not None else value
        assert like is not None
        self.shape, self.dtype, self.ndim = like.shape, like.dtype, len(like.shape)
        self.viewed = False

    @property
    def value(self) -> Node:
        """What it is now."""
        if self.memory is None:
            assert self._value is not None
            return self._value
        return self.program.current.get(self.memory) or self.program.load(self.memory)

    @property
    def operand(self) -> Node:
        """What it is now, as an array: memory is read where it lies."""
        return self.value if self.memory is None else self.program.load(self.memory)

    @property
    def T(self) -> Flipped:
        """The transposed matrix, which only products take."""
        self.viewed = True
        return Flipped(self)

    mT = T

    def assign(self, value: Node) -> Recording:
        """Change it in place."""
        if value.dtype != self.dtype and value.dtype.kind == self.dtype.kind == "f":
            value = self.program.cast(value, self.dtype)
        if (value.shape, value.dtype) != (self.shape, self.dtype) or (self.viewed and self.memory is None):
            raise Unrecordable("a change in place")
        if self.memory is None:
            self._value = value
        else:
            self.program.store(self.memory, value)
        return self

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        target = out[0] if out else None
        if target is not None and not isinstance(target, Recording):
            raise Unrecordable("an output that is no recording")
        if method == "reduce":
            return self._reduced(ufunc, target, **options)
        if method != "__call__" or options:
            raise Unrecordable(f"{ufunc.__name__}.{method}")
        if ufunc in REWRITTEN:
            result = REWRITTEN[ufunc](*inputs)
            return result if target is None else target.assign(result.value)
        if ufunc is np.positive and target is None:
            return Recording(self.program, self.value)
        if ufunc is np.matmul:
            a, b = inputs
            return self._product(a, b, target)
        if ufunc is np.vecdot:
            if inputs[0] is not inputs[1] or self.ndim != 2:
                raise Unrecordable("dots of different rows")
            return self._whole("dots", None, (self.operand,), self.shape[:1])
        result = self._each(ufunc, inputs)
        return Recording(self.program, result) if target is None else target.assign(result)

    def __array_function__(self, function: Any, types: Any, arguments: Any, options: Any) -> Any:
        known = KNOWN.get(function)
        if known is None:
            raise Unrecordable(function.__name__)
        return known(self, *arguments, **options)

    def __bool__(self) -> bool:
        raise Unrecordable("a branch")

    def __len__(self) -> int:
        raise Unrecordable("a length")

    def __getitem__(self, key: Any) -> Recording:
        if self.memory is None:
            raise Unrecordable("a slice of a value")
        return Recording(self.program, None, self.program.memory(self.memory.array[key]))

    def astype(self, dtype: Any, copy: bool = True) -> Recording:
        """The same values in another dtype."""
        dtype = np.dtype(dtype)
        if dtype.char not in DTYPES or not (dtype.kind == "f" or self.dtype.kind == dtype.kind == "i"):
            raise Unrecordable(f"a conversion to {dtype}")
        return Recording(self.program, self.program.cast(self.value, dtype))

    def take(self, indices: Any, axis: int | None = None) -> Recording:
        """The batch's rows."""
        if not isinstance(indices, RowNumbers) or axis != 0 or self.memory is None or self.ndim != 2:
            raise Unrecordable("rows that are not the batch's")
        if self.program.load(self.memory).op:
            raise Unrecordable("rows of what is written")
        shape = (indices.shape[0], self.shape[1])
        return Recording(self.program, self.program.node("gather", indices.place, (), shape, self.dtype, self.memory))

    def _product(self, a: Any, b: Any, out: Recording | None) -> Recording:
        """The product of two matrices, of which either may be transposed."""
        sides = [x if isinstance(x, Recording | Flipped) else self._wrapped(x) for x in (a, b)]
        if any(len(x.shape) != 2 for x in sides):
            raise Unrecordable("a product of other arrays than matrices")
        flipped = isinstance(sides[0], Flipped), isinstance(sides[1], Flipped)
        shape = (sides[0].shape[0], sides[1].shape[1])
        return self._whole("product", None, tuple(x.operand for x in sides), shape, out, flipped)

    def _whole(
        self,
        kind: str,
        op: Any,
        args: tuple[Node, ...],
        shape: tuple[int, ...],
        out: Recording | None = None,
        flipped: tuple[bool, bool] = (False, False),
    ) -> Recording:
        """An operation on whole arrays."""
        if out is not None and out.memory is None:
            raise Unrecordable("an output that is no memory")
        value = self.program.whole(kind, op, args, shape, None if out is None else out.memory, flipped)
        return Recording(self.program, value) if out is None else out

    def _reduced(
        self, ufunc: Any, out: Recording | None, axis: Any = 0, dtype: Any = None, keepdims: bool = False
    ) -> Recording:
        """A sum or a maximum."""
        axis = from_the_end(axis, self.ndim)
        if dtype is not None or self.dtype.kind != "f":
            raise Unrecordable(f"{ufunc.__name__}.reduce in another dtype")
        match ufunc.__name__, self.ndim, axis, keepdims:
            case "maximum", 2, -1, True if out is None:
                return self._row(ufunc)
            case "add", 2, -1, True if out is None:
                few = self.shape[1] < self.program.loops.row
                return self._row(ufunc) if few else self._whole("rows", None, (self.operand,), (self.shape[0], 1))
            case "add", 2, -2, True:
                return self._columns(out)
            case "add", 2, (-2, -1), _ if out is None:
                total = self._whole("total", None, (self.operand,), ())
                return total.shaped((1, 1)) if keepdims else total
            case "add", 1, -1, _ if out is None:
                return self._whole("total", None, (self.operand,), (1,) if keepdims else ())
        raise Unrecordable(f"{ufunc.__name__}.reduce over {axis}")

    def _row(self, ufunc: Any) -> Recording:
        """The sum or maximum of each row, (n, 1)."""
        program = self.program
        known, value = len(program.nodes), self.value
        result = program.node("row", ufunc, (value,), (self.shape[0], 1), self.dtype)
        if len(program.nodes) > known:
            program.operations.append(Operation("row", result))
        return Recording(program, result)

    def sum_blocks(self, rows: int, out: Recording | None) -> Recording:
        """The sum of each column, (1, K): first of so many rows at a time, then of these sums."""
        program, shape = self.program, (-(-self.shape[0] // rows), self.shape[1])
        known, value = len(program.nodes), self.value
        sums = program.node("blocks", rows, (value,), shape, self.dtype)
        if len(program.nodes) > known:
            program.operations.append(Operation("blocks", sums))
        return Recording(program, sums)._columns(out)

    def _columns(self, out: Recording | None) -> Recording:
        """The sum of each column, (1, K)."""
        program, shape = self.program, (1, self.shape[1])
        if out is None:
            out = Recording(program, None, program.memory(np.empty(shape, self.dtype)))
        if shape[1] == 1 and not program.loops.totals:
            return self._whole("total", None, (self.operand,), shape, out)
        if out.memory is None or (out.shape, out.dtype) != (shape, self.dtype):
            raise Unrecordable("an output that is no memory")
        value = program.node("columns", None, (self.value,), shape, self.dtype, len(program.writes))
        program.operations.append(Operation("columns", value, out.memory))
        program.wrote(out.memory)
        return out

    def _wrapped(self, x: Any) -> Recording:
        """An array that the step has made itself, from what never changes."""
        if type(x) is not np.ndarray or x.ndim == 0:
            raise Unrecordable(type(x).__name__)
        return Recording(self.program, None, self.program.memory(np.ascontiguousarray(x)))

    def _term(self, x: Any) -> Node:
        """An operand of an elementwise operation."""
        if isinstance(x, Recording):
            return x.value
        if isinstance(x, Number):
            return x.node
        if type(x) in (float, int):
            return self.program.number(x)
        if isinstance(x, np.floating):
            return self.program.cast(self.program.number(float(x)), x.dtype)
        return self._wrapped(x).value

    def _each(self, op: Any, inputs: Any) -> Node:
        """The value of an elementwise operation: `op` is a ufunc, or "where" with the condition first."""
        terms = tuple(map(self._term, inputs))
        if op == "where":
            chosen = alike(self.program, terms[1:])
            terms = terms[0], *chosen
        else:
            terms = chosen = terms if op in BITS else alike(self.program, terms)
        dtypes = {term.dtype for term in chosen if term.dtype is not None}
        common = np.result_type(*dtypes) if dtypes else None
        if common is None or (len(dtypes) > 1 and op not in COMPARISONS):
            raise Unrecordable("operands without a common dtype")
        weak = [term for term in chosen if term.dtype is None]
        if common.kind == "b" and op not in TRUTH:
            raise Unrecordable("an operation on truth values")
        if common.kind != "f" and (op not in OF_INTEGERS or any(is_real(term) for term in weak)):
            raise Unrecordable("an operation on integers")
        if len(dtypes) > 1 and any(dtype.kind != "i" for dtype in dtypes):
            raise Unrecordable("a comparison of other dtypes")
        sizes = {len(term.shape) for term in terms if math.prod(term.shape) != 1}
        if len(sizes) > 1:
            raise Unrecordable("vectors beside matrices")
        shape = np.broadcast_shapes(*(term.shape for term in terms))
        if (op in TRANSCENDENTAL and not self.program.loops.functions) or op in OF_USERS:
            if len(terms[0].shape) == 0:
                raise Unrecordable("a function of a number")
            return self.program.whole("call", op, terms, shape)
        known = op == "where" or op in ARITHMETIC or op in COMPARISONS or op in TRANSCENDENTAL
        if not (known or (op in BITS and common.kind in "ib")):
            raise Unrecordable(op.__name__)
        return self.program.node("each", op, terms, shape, np.dtype(bool) if op in COMPARISONS else common)


class Flipped:
    """A transposed recording."""

    def __init__(self, recording: Recording) -> None:
        self.recording, self.shape = recording, recording.shape[::-1]

    def __array_ufunc__(self, *arguments: Any, **options: Any) -> Any:
        """A product asks its first factor."""
        return self.recording.__array_ufunc__(*arguments, **options)

    @property
    def operand(self) -> Node:
        """What is transposed."""
        return self.recording.operand


class Number(np.lib.mixins.NDArrayOperatorsMixin):
    """A number that each step is given, or that is computed from such ones."""

    def __init__(self, program: Program, node: Node) -> None:
        self.program, self.node = program, node

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        owner = next((x for x in inputs if isinstance(x, Recording)), None)
        if owner is None:
            array = next((x for x in inputs if type(x) is np.ndarray), None)
            if array is None:
                return Number(self.program, of_numbers(self.program, ufunc, inputs))
            owner = Recording(self.program, None, self.program.memory(array))
        return owner.__array_ufunc__(ufunc, method, *inputs, **options)


class RowNumbers:
    """The numbers of the batch's rows, which each step is given; `place` says where, if that has to be known."""

    def __init__(self, shape: tuple[int, ...], place: Any = None) -> None:
        self.shape, self.place = shape, place


def _where(self: Recording, condition: Any, yes: Any, no: Any) -> Recording:
    if not isinstance(condition, Recording):
        raise Unrecordable("a condition that is no recording")
    return Recording(self.program, self._each("where", (condition, yes, no)))


def _expand_dims(self: Recording, x: Recording, axis: int) -> Recording:
    """A vector as a column: its formula with each array as a column."""

    def column(node: Node) -> Node:
        if node.shape == ():
            return node
        if node.kind == "load" and node.op == 0:
            array = node.data.array[:, None]
            return Recording(self.program, None, self.program.memory(np.ascontiguousarray(array))).value
        if node.kind != "each":
            raise Unrecordable("another shape")
        return self.program.node("each", node.op, tuple(map(column, node.args)), (*node.shape, 1), node.dtype)

    if axis not in (1, -1) or x.ndim != 1:
        raise Unrecordable("another shape")
    return Recording(self.program, column(x.value))


KNOWN: dict[Any, Callable[..., Any]] = {
    np.where: _where,
    np.expand_dims: _expand_dims,
    **FUNCTIONS,
}
