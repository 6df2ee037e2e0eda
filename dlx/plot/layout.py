"""Room for the labels of a picture."""

from __future__ import annotations

import warnings
from typing import Any


def within(ax: Any) -> Any:
    """`ax`, in a figure that has room for its labels: one without a layout of its own is tightened if it has not."""
    figure = ax.figure.figure  # a subfigure's too
    inside, needed = figure.bbox, ax.get_tightbbox()
    fits = inside.x0 <= needed.x0 and inside.y0 <= needed.y0 and needed.x1 <= inside.x1 and needed.y1 <= inside.y1
    if figure.get_layout_engine() is None and not fits:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # it says that it cannot, and then does nothing
            figure.tight_layout()
    return ax
