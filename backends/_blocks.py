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
    """The formula on so many rows at a time of the arguments that are `sliced`; the first of them has all rows.

    A result that is one of the arguments was written in place; of any other the pieces are copied into a new array,
    for which ``empty(piece)`` makes room.
    """
    n = next(x for x, is_sliced in zip(arguments, sliced, strict=True) if is_sliced).shape[0]
    whole: list[Any] = []
    fresh: list[int] = []  # which of the results are new arrays
    results: Any = ()
    for first in range(0, n, rows):
        part = [x[first : first + rows] if is_sliced else x for x, is_sliced in zip(arguments, sliced, strict=True)]
        results = formula(*part)
        pieces = results if isinstance(results, tuple) else (results,)
        if not whole:
            own = [next((k for k, piece in enumerate(part) if piece is each), None) for each in pieces]
            whole = [empty(each) if k is None else arguments[k] for k, each in zip(own, pieces, strict=True)]
            fresh = [k for k, place in enumerate(own) if place is None]
        for k in fresh:
            whole[k][first : first + rows] = pieces[k]
    return tuple(whole) if isinstance(results, tuple) else whole[0]
