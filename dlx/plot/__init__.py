"""Pictures of networks and trainings, with matplotlib: ``pip install 'dlx-nn[plot]'``.

history, boundary, weights, confusion, layers, learning_rates, rate_search.

Each draws into the Axes `ax`, or into a new figure of its own where that is None, and returns the Axes. The layout of
the figure of `ax` is tightened if it has no room for the labels and no layout engine of its own. To see it on a screen,
call matplotlib.pyplot.show. Arrays may lie where they are.

Files: draw (the pictures), figures (what they show), layout.
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
