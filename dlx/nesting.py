"""Arrays in nested tuples."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np


def each_of(function: Callable[[Any], Any], arrays: Any) -> Any:
    """What the function makes of every array in nested tuples, which keep their types; None stays."""
    if isinstance(arrays, tuple):
        return _maker(arrays)(each_of(function, part) for part in arrays)
    return None if arrays is None else function(arrays)


def rows_of(inputs: Any) -> Iterable[Any]:
    """Row after row of every array in nested tuples, which keep their types.

    None stays, and numbers of the host become Python's own.
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


def _maker(parts: tuple[Any, ...]) -> Callable[[Iterable[Any]], Any]:
    """What makes a tuple of the same type from other parts: a plain one, or one whose parts have names."""
    return getattr(type(parts), "_make", tuple)
