"""The work items of every benchmark: a network, a batch size, and data with something to learn."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import host  # noqa: F401, before NumPy
import numpy as np


class Item(NamedTuple):
    """One training job: widths, batch size, rows, hidden activation. Adam 1e-3, cross-entropy, float32."""

    name: str
    dims: tuple[int, ...]
    batch: int
    rows: int
    activation: str = "relu"


ITEMS = {
    item.name: item
    for item in (
        Item("A", (784, 256, 10), 128, 60_000),
        Item("B", (784, 512, 512, 10), 256, 20_000),
        Item("C", (20, 64, 64, 2), 32, 40_000),
        Item("D", (1024, 2048, 2048, 10), 512, 8_192),
    )
}
ACTIVATIONS = ("tanh", "silu", "selu")  # of further items
LEARNING_RATE = 1e-3


def further(activation: str) -> Item:
    """Item A with another activation."""
    return ITEMS["A"]._replace(name=f"A {activation}", activation=activation)


def data(item: Item) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian classes around random centres: learnable, not trivial, the same for all."""
    rng = np.random.default_rng(0)
    classes = item.dims[-1]
    y = rng.integers(0, classes, item.rows)
    centres = rng.standard_normal((classes, item.dims[0]))
    X = rng.standard_normal((item.rows, item.dims[0])) + 0.15 * centres[y]
    return X.astype(np.float32), y.astype(np.int32)


def start(item: Item) -> list[tuple[np.ndarray, np.ndarray]]:
    """He-initialised weights, the same for all who let them be set."""
    rng = np.random.default_rng(1)
    weights = [np.sqrt(2 / d_in) * rng.standard_normal((d_in, d_out)) for d_in, d_out in pairwise(item.dims)]
    return [(W.astype(np.float32), np.zeros(W.shape[1], np.float32)) for W in weights]
