"""An elementwise formula computed over pieces of its arguments that stay in cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


def in_blocks(
    formula: Callable[..., Any],
    arguments: Sequence[Any],
    sliced: Sequence[bool],
    rows: int,
    empty: Callable[[Any], Any],
) -> Any:
    """The result of the formula, computed on pieces of `rows` rows of the arguments that are `sliced`.

    The first sliced argument has all rows. A result that is one of the arguments was written in place. The pieces of
    any other result are copied into a new array, which ``empty(piece)`` makes.
    """
    n = next(x for x, is_sliced in zip(arguments, sliced, strict=True) if is_sliced).shape[0]
    whole: list[Any] = []
    created: list[int] = []  # the numbers of the results that are new arrays
    results: Any = ()
    for first in range(0, n, rows):
        part = [x[first : first + rows] if is_sliced else x for x, is_sliced in zip(arguments, sliced, strict=True)]
        results = formula(*part)
        pieces = results if isinstance(results, tuple) else (results,)
        if not whole:
            places = [next((k for k, x in enumerate(part) if x is piece), None) for piece in pieces]
            whole = [empty(piece) if k is None else arguments[k] for k, piece in zip(places, pieces, strict=True)]
            created = [k for k, place in enumerate(places) if place is None]
        for k in created:
            whole[k][first : first + rows] = pieces[k]
    return tuple(whole) if isinstance(results, tuple) else whole[0]
