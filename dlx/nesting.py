"""Arrays in tuples, and in tuples of tuples."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np


def each_of(function: Callable[[Any], Any], arrays: Any) -> Any:
    """Apply the function to one array, or to every array of a tuple."""
    return tuple(map(function, arrays)) if isinstance(arrays, tuple) else function(arrays)


def rows_of(inputs: Any) -> Iterable[Any]:
    """The rows of all arrays in nested tuples, one after another, in tuples that are nested in the same way.

    None has the row None. A vector of NumPy's has plain Python numbers as its rows.
    """
    if inputs is None:
        return itertools.repeat(None)
    if isinstance(inputs, tuple):
        return zip(*map(rows_of, inputs), strict=False) if inputs else itertools.repeat(())
    if isinstance(inputs, np.ndarray) and inputs.ndim == 1:
        numbers: list[float] = inputs.tolist()
        return numbers
    return (inputs[row, :] for row in range(inputs.shape[0]))
