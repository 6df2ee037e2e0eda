"""Plots of networks and trainings, with matplotlib: ``pip install 'dlx-nn[plot]'``.

history, boundary, weights, confusion, layers, learning_rates, rate_search.

Each function draws into the Axes `ax` and returns it. If `ax` is None, it makes a new figure. It tightens the layout of
an existing figure that has no room for the labels and no layout engine of its own. Call matplotlib.pyplot.show to see
the plot on a screen. Arrays may lie on any device.

Files: draw (the plots), figures (the numbers that they show), layout (room for labels).
They may import all rooms but `dlx.estimators`, and matplotlib.
"""

from dlx.plot.draw import (
    BLUE,
    COLOURS,
    ORANGE,
    VERMILION,
    boundary,
    confusion,
    history,
    layers,
    learning_rates,
    rate_search,
    weights,
)

__all__ = [
    "BLUE",
    "COLOURS",
    "ORANGE",
    "VERMILION",
    "boundary",
    "confusion",
    "history",
    "layers",
    "learning_rates",
    "rate_search",
    "weights",
]
