"""What changes from step to step, as one table: a row of words for each step, which one transfer brings to a device."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from dlx.backend import Array, HostArray, each_of, warn

WORD = np.dtype(np.int32)  # a table holds words of this type, whatever its columns mean


class Layout:
    """How the rows of nested inputs lie side by side in rows of words: the longest numbers first, so that all align.

    `inputs` are those of `Backend.loop`. Floats get the dtype `precision`.
    """

    def __init__(self, inputs: Any, precision: Any) -> None:
        self.inputs = each_of(lambda _: True, inputs)
        self.kinds = [(precision if x.dtype.kind == "f" else x.dtype, x.shape[1:]) for x in leaves_of(inputs)]
        widths = [math.prod(shape) * dtype.itemsize // WORD.itemsize for dtype, shape in self.kinds]
        places = sorted(range(len(widths)), key=lambda k: -self.kinds[k][0].itemsize)
        ends = dict(zip(places, itertools.accumulate(widths[k] for k in places), strict=True))
        self.columns = [slice(ends[k] - width, ends[k]) for k, width in enumerate(widths)]
        self.width = max(2, -(-sum(widths) // 2) * 2)  # even, so that each row begins where a number of 64 bits may

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layout) and (self.inputs, self.kinds) == (other.inputs, other.kinds)

    __hash__ = None  # type: ignore[assignment]

    def words(self, inputs: Any, steps: int) -> HostArray:
        """The table of the first steps, on the host."""
        table = np.zeros((steps, self.width), WORD)
        for x, (dtype, _), columns in zip(leaves_of(inputs), self.kinds, self.columns, strict=True):
            table[:, columns] = np.ascontiguousarray(x[:steps].reshape(steps, -1), dtype).view(WORD)
        return table

    def parts(self, row: Array, view: Callable[[Array, Any, tuple[int, ...]], Array]) -> Any:
        """The parts of a row on the device, nested as the inputs are. `view` shows words as numbers of a shape."""
        parts = iter([view(row[at], *kind) for at, kind in zip(self.columns, self.kinds, strict=True)])
        return each_of(lambda _: next(parts), self.inputs)


def warn_of_plain_steps(reason: str, trusted: bool) -> None:
    """Warn that a training is slower than it might be. A step that is not `trusted` has functions of the user's own."""
    text = f"this training is slower, for its steps cannot be captured in a CUDA graph: {reason}."
    if not trusted:
        text += (
            " A function of your own must depend on its arrays alone, and must not wait for the device or copy from or"
            " to the host."
        )
    warn(text)


def leaves_of(nested: Any) -> list[Array]:
    """All arrays in nested tuples."""
    if isinstance(nested, tuple):
        return [x for part in nested for x in leaves_of(part)]
    return [] if nested is None else [nested]
