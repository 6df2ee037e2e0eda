"""Arrays in nested tuples."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np


def each_of(function: Callable[[Any], Any], arrays: Any) -> Any:
    """What the function makes of an array, or of each in a tuple."""
    return tuple(map(function, arrays)) if isinstance(arrays, tuple) else function(arrays)


def rows_of(inputs: Any) -> Iterable[Any]:
    """Row after row of every array in nested tuples; None stays, and numbers of the host become Python's own."""
    if inputs is None:
        return itertools.repeat(None)
    if isinstance(inputs, tuple):
        return zip(*map(rows_of, inputs), strict=False) if inputs else itertools.repeat(())
    if isinstance(inputs, np.ndarray) and inputs.ndim == 1:
        numbers: list[float] = inputs.tolist()
        return numbers
    return (inputs[row, :] for row in range(inputs.shape[0]))
