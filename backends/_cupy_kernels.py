"""A training step on CuPy as few kernels and its products, from a recording of the step.

What shaped it:

- The formulas are recorded on the host, where NumPy's functions let other objects stand for arrays, as which the
  device's arrays are passed. So no formula is written a second time, and nothing is copied.
- A step that is recorded always runs so, from its first update on: its sums have another order than those of CuPy's
  own kernels, and a training that is resumed shall have the same bits.
- All arrays of a step's own are allocated once. Those that are not alive at the same time share memory.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import cupy
import numpy as np

from dlx.backend import Array, Function, InPlace, each_of

from . import _cupy_blas, _cupy_capture
from ._cuda_source import Source, source_of
from ._cuda_writer import Kernel, Product
from ._numpy import NAMESPACE, NumpyBackend
from ._table import Layout, leaves_of
from ._trace import Loops, Program, Unrecordable, address
from ._trace_recording import Number, Recording, RowNumbers
from ._trace_writer import laid_out

CUDA = Loops(functions=True, row=np.inf, totals=True)
ALIGNED = 256  # bytes
MOST_RECIPES = 256
_RECIPES: dict[Any, Recipe] = {}
KIND = {"steps": "kernels of kind 1"}  # a change of the kernels that changes bits counts on


class Recorder(NumpyBackend):
    """The backend of a step that is recorded: every operation as the formulas write it."""

    def sum_rows(self, x: Array, out: Array | None = None) -> Array:
        """The sum over rows."""
        return np.add.reduce(x, axis=-2, keepdims=True, out=out)

    def sum_squares(self, x: Array) -> Array:
        """The sum of squares."""
        return np.add.reduce(x * x, axis=(-2, -1))

    def fuse(self, function: Function, name: str) -> Function:
        """The formula itself."""
        return function


def record(step: InPlace, carry: Any, constants: Any, layout: Layout) -> Program:
    """The program of a step of these arrays, which takes its inputs from a row of words."""
    assert step.on is not None
    program = Program(CUDA)
    kinds = iter(zip(layout.columns, layout.kinds, strict=True))

    def memory(x: Array) -> Recording:
        return Recording(program, None, program.memory(x))

    def given(_: Any) -> Any:
        columns, (dtype, shape) = next(kinds)
        place = columns.start, dtype
        if shape:
            return RowNumbers(shape, place)
        return Number(program, program.node("input", None, (), (), None, place))

    at = each_of(memory, carry)
    run = step.on(Recorder(NAMESPACE))
    after, output = run(each_of(memory, step.kept), at, each_of(memory, constants), each_of(given, layout.inputs))
    if after is not at or not isinstance(output, Recording):
        raise Unrecordable("a step that is not in place")
    program.output = output.value
    return program


class Recipe(NamedTuple):
    """The calls of a step, the dtype of its output, and where each array is found: among the step's, or here."""

    source: Source
    output: Any
    places: dict[str, int]
    others: dict[str, Array]


class Steps:
    """A step of these very arrays, as calls of kernels and products."""

    def __init__(self, source: Source, arrays: dict[str, Array], tf32: bool) -> None:
        self.arrays = arrays | laid_out(source.buffers, _block)  # as long as their addresses are in the calls
        self.calls = [_call(each, self.arrays, tf32) for each in source.calls]
        self.join = source.join

    def run(self) -> None:
        """Ask the current stream for one step."""
        with _cupy_capture.fork():
            for call in self.calls[: self.join]:
                call()
        for call in self.calls[self.join :]:
            call()


def steps_of(step: Any, carry: Any, constants: Any, layout: Layout, special: dict[str, Array], tf32: bool) -> Any:
    """The recorded step; None if it cannot be recorded. `special` are the arrays by which it is given its inputs."""
    if not isinstance(step, InPlace) or step.on is None:
        return None
    given = leaves_of((step.kept, carry, constants))
    places = [_place(x) for x in given]
    # What the recipe depends on: formulas, numbers, sizes, and which arrays are the same.
    kinds = tuple(
        (x.dtype.char, x.shape, x.strides, places.index(place)) for x, place in zip(given, places, strict=True)
    )
    key = step.key, kinds, tuple(layout.kinds), cupy.cuda.runtime.getDevice()
    recipe = _RECIPES.get(key)
    if recipe is None:
        try:
            program = record(step, carry, constants, layout)
            source = source_of(program, layout.width)
        except (TypeError, AttributeError, RecursionError):  # Unrecordable; no such operation; hundreds of layers
            return None
        assert program.output is not None
        recipe = _recipe(source, program.output.dtype, places)
        if step.key is not None:
            if len(_RECIPES) >= MOST_RECIPES:
                _RECIPES.clear()
            _RECIPES[key] = recipe
    arrays = {name: given[place] for name, place in recipe.places.items()} | recipe.others
    outputs = cupy.zeros(len(special["table"]), recipe.output)
    return Steps(recipe.source, arrays | special | {"outputs": outputs}, tf32)


def _recipe(source: Source, output: Any, places: list[Any]) -> Recipe:
    """The recipe, which keeps none of the step's arrays alive."""
    found, others = {}, {}
    for name, memory in source.memories.items():
        place = _place(memory.array)
        if place in places:
            found[name] = places.index(place)
        else:  # an array of numbers that the formulas have made
            others[name] = cupy.asarray(memory.array)
    return Recipe(source._replace(memories={}), output, found, others)


def _place(x: Array) -> tuple[Any, ...]:
    return address(x), x.shape, x.strides, x.dtype


def _call(call: Kernel | Product, arrays: dict[str, Array], tf32: bool) -> Callable[[], None]:
    """What is called for each step."""
    if isinstance(call, Product):
        a, b = (
            arrays[name].T if flip else arrays[name] for name, flip in zip(call.operands, call.flipped, strict=True)
        )
        out = arrays[call.out]

        def multiply() -> None:
            with _cupy_capture.beside("products", a, b) if call.aside else contextlib.nullcontext():
                _cupy_blas.product(a, b, out, tf32)

        return multiply
    numbers = [np.dtype(dtype).type(number) for number, dtype in call.numbers]
    arguments = (*(arrays[name] for name in call.arrays), *map(np.int32, call.sizes), *numbers)
    return functools.partial(_kernel(call.source, call.name), (call.blocks,), (call.threads,), arguments)


@functools.lru_cache(512)
def _kernel(source: str, name: str) -> Any:
    return cupy.RawKernel(source, name, options=("--fmad=false",))  # NumPy's bits: every operation is rounded


def _block(size: int) -> Array:
    """So many bytes, or a few more, as all blocks begin at multiples of `ALIGNED`."""
    return cupy.empty(-(-size // ALIGNED) * ALIGNED, cupy.uint8)
