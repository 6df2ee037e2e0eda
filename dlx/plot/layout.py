"""Room for the labels of a plot."""

from __future__ import annotations

import warnings
from typing import Any


def within(ax: Any) -> Any:
    """`ax`, after its figure was tightened if it lacks room for the labels and has no layout engine of its own."""
    figure = ax.figure.figure  # for a subfigure too this is the whole figure
    inside, needed = figure.bbox, ax.get_tightbbox()
    fits = inside.x0 <= needed.x0 and inside.y0 <= needed.y0 and needed.x1 <= inside.x1 and needed.y1 <= inside.y1
    if figure.get_layout_engine() is None and not fits:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # where it cannot make room, it warns and does nothing
            figure.tight_layout()
    return ax
