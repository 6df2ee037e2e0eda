"""Functions and methods of NumPy's that say in other words what recordings know.

What shaped it:

- dlx's formulas speak the Array API; functions of a user's own speak NumPy. Here stands what they say most often, where
  other operations give the same bits. What is not here is not recorded.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ._trace import Node, Program, Unrecordable

OF_NUMBERS = (np.add, np.subtract, np.multiply, np.divide, np.negative)
POWERS = {2: np.square, 1: np.positive, 0.5: np.sqrt, -1: np.reciprocal}  # which NumPy, too, computes by these


class Words(np.lib.mixins.NDArrayOperatorsMixin):
    """The methods of recordings that are other operations of theirs."""

    program: Program
    shape: tuple[int, ...]
    dtype: Any

    def shaped(self, shape: tuple[int, ...]) -> Any:
        """A number as a matrix."""
        number: Any = self
        return type(number)(self.program, self.program.node("each", "cast", (number.value,), shape, self.dtype))

    def filled(self, number: Any, dtype: Any = None, **options: Any) -> Any:
        """An array like this one that holds one number."""
        if dtype not in (None, self.dtype) or type(number) not in (float, int):
            raise Unrecordable("one number in another dtype")
        value = self.program.node("each", "cast", (self.program.number(float(number)),), self.shape, self.dtype)
        made: Any = type(self)
        return made(self.program, value)

    def __array__(self, *arguments: Any, **options: Any) -> Any:
        raise Unrecordable("an array of NumPy's that has to be known")

    def __pow__(self, exponent: Any) -> Any:
        """One of some powers."""
        if exponent not in POWERS:
            raise Unrecordable("a power")
        return POWERS[exponent](self)

    def copy(self) -> Any:
        """The same values, which may be changed in place."""
        return np.positive(self)

    def sum(self, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        """The sum over an axis."""
        return np.add.reduce(self, axis=axis, dtype=dtype, out=out, keepdims=keepdims)

    def max(self, axis: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        """The maximum over an axis."""
        return np.maximum.reduce(self, axis=axis, out=out, keepdims=keepdims)

    def mean(self, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        """The mean over an axis."""
        total = self.sum(axis, dtype, out, keepdims)
        return total / (math.prod(self.shape) // math.prod(total.shape))

    def clip(self, low: Any = None, high: Any = None) -> Any:
        """The values, limited."""
        limited = self if low is None else np.maximum(self, low)
        return limited if high is None else np.minimum(limited, high)


def from_the_end(axis: Any, ndim: int) -> Any:
    """The axis or the axes, counted from the end."""
    if axis is None:
        axis = tuple(range(ndim))
    if isinstance(axis, tuple):
        axes = sorted(from_the_end(each, ndim) for each in axis)
        return axes[0] if len(axes) == 1 else tuple(axes)
    return axis - ndim if axis >= 0 else axis


def is_real(number: Node) -> bool:
    """Whether a number without a dtype is a float."""
    if number.kind == "each":  # of numbers
        return True
    return bool(np.dtype(number.data[1]).kind == "f") if number.kind == "input" else type(number.data) is float


def of_numbers(program: Program, ufunc: Any, numbers: tuple[Any, ...]) -> Node:
    """What Python computes from real numbers alone; it has no dtype, as they have none."""
    terms: list[Any] = [program.number(x) if type(x) in (float, int) else getattr(x, "node", None) for x in numbers]
    if ufunc not in OF_NUMBERS or any(term is None or (term.kind == "input" and not is_real(term)) for term in terms):
        raise Unrecordable(f"{ufunc.__name__} of numbers")
    return program.node("each", ufunc, tuple(terms), (), None)


def alike(program: Program, terms: tuple[Node, ...]) -> tuple[Node, ...]:
    """The operands in the dtype in which NumPy computes, where they are floats and truth values."""
    dtypes = {term.dtype for term in terms if term.dtype is not None}
    if any(dtype.kind not in "fb" for dtype in dtypes):
        return terms
    if not any(dtype.kind == "f" for dtype in dtypes):  # 1.0 beside truth values, or two numbers to choose from
        if not any(term.dtype is None and is_real(term) for term in terms):
            return terms
        dtypes = {np.dtype(np.float64)}
        terms = tuple(program.cast(term, np.dtype(np.float64)) for term in terms)
    common = np.result_type(*dtypes)
    return tuple(term if term.dtype is None else program.cast(term, common) for term in terms)


def _sign(x: Any) -> Any:
    return np.where(x == x, (x > 0).astype(x.dtype) - (x < 0).astype(x.dtype), x)


def _of_truth(ufunc: Any) -> Callable[[Any, Any], Any]:
    """The ufunc in place of a logical one, for truth values."""

    def call(x: Any, y: Any) -> Any:
        if any(z.dtype.kind != "b" for z in (x, y)):
            raise Unrecordable("numbers as truth values")
        return ufunc(x, y)

    return call


def _method(name: str) -> Callable[..., Any]:
    return lambda self, x, *arguments, **options: getattr(x, name)(*arguments, **options)


REWRITTEN: dict[Any, Callable[..., Any]] = {
    np.square: lambda x: x * x,
    np.reciprocal: lambda x: 1.0 / x,
    np.sign: _sign,
    np.logical_and: _of_truth(np.bitwise_and),
    np.logical_or: _of_truth(np.bitwise_or),
}
FUNCTIONS: dict[Any, Callable[..., Any]] = {
    np.zeros_like: lambda self, x, *arguments, **options: x.filled(0.0, *arguments, **options),
    np.ones_like: lambda self, x, *arguments, **options: x.filled(1.0, *arguments, **options),
    np.full_like: lambda self, x, *arguments, **options: x.filled(*arguments, **options),
    **{getattr(np, name): _method(name) for name in ("astype", "clip", "copy", "max", "mean", "sum")},
}
