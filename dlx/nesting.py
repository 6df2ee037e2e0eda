"""Arrays in tuples, and in tuples of tuples; and steps that are given their rows."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any

import numpy as np


def each_of(function: Callable[[Any], Any], arrays: Any) -> Any:
    """Apply the function to every array of nested tuples, which keep their types; None stays None."""
    if isinstance(arrays, tuple):
        return _maker(arrays)(each_of(function, part) for part in arrays)
    return None if arrays is None else function(arrays)


def rows_of(inputs: Any) -> Iterable[Any]:
    """The rows of all arrays in nested tuples, one after another, in nested tuples of the same types.

    None has the row None. A vector of NumPy's has plain Python numbers as its rows.
    """
    if inputs is None:
        return itertools.repeat(None)
    if isinstance(inputs, tuple):
        rows = zip(*map(rows_of, inputs), strict=False) if inputs else itertools.repeat(())
        return rows if type(inputs) is tuple else map(_maker(inputs), rows)
    if isinstance(inputs, np.ndarray) and inputs.ndim == 1:
        numbers: list[float] = inputs.tolist()
        return numbers
    return (inputs[row, :] for row in range(inputs.shape[0]))


def one_by_one(step: Callable[..., tuple[Any, Any]], place: Callable[[Any], Any]) -> Callable[..., Any]:
    """The loop of `dlx.Backend.loop` that runs one step after another. `place` brings a matrix to the device."""

    def run(
        carry: Any, constants: Any, inputs: Any, steps: int, first: int = 0, most: int | None = None
    ) -> Iterator[tuple[Any, Any]]:
        placed = each_of(lambda x: place(x) if x.ndim == 2 else x, inputs)
        for row in itertools.islice(rows_of(placed), first, steps):
            carry, output = step(carry, constants, row)
            yield carry, output

    return run


@dataclasses.dataclass(frozen=True)
class InPlace:
    """A step that writes to arrays which it keeps: ``run(kept, carry, constants, inputs) -> (carry, output)``.

    `on(backend)` is the same function for arrays of another backend, by which it can be recorded; None if there is
    none. Steps with equal `key` have equal formulas and numbers; a key of None makes no such promise.
    """

    run: Callable[..., tuple[Any, Any]]
    kept: Any
    on: Callable[[Any], Callable[..., tuple[Any, Any]]] | None
    key: Hashable = None

    def __call__(self, carry: Any, constants: Any, inputs: Any) -> tuple[Any, Any]:
        """The step of its own arrays."""
        return self.run(self.kept, carry, constants, inputs)


def _maker(parts: tuple[Any, ...]) -> Callable[[Iterable[Any]], Any]:
    """What makes a tuple of the same type from other parts: a plain one, or one whose parts have names."""
    return getattr(type(parts), "_make", tuple)
