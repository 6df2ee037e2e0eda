"""How parameters lie in memory: layer by layer, all in one vector, or as views of a few."""

from __future__ import annotations

import math
from typing import NamedTuple

from dlx.backend import Array, Backend, Namespace
from dlx.network import Layer, Params

ALIGNED = 32  # elements between the starts of views: 128 bytes of float32, what devices and BLAS load at once


def ravel(xp: Namespace, params: Params) -> Array:
    """All parameters as one vector."""
    return xp.concat([xp.reshape(w, (-1,)) for layer in params for w in layer])


def unravel(xp: Namespace, x: Array, like: Params) -> Params:
    """The vector `x` as parameters of the shapes of `like`."""
    layers, end = [], 0
    for layer in like:
        arrays = []
        for w in layer:
            start, end = end, end + math.prod(w.shape)
            arrays.append(xp.reshape(x[start:end], tuple(w.shape)))
        layers.append(Layer(*arrays))
    return tuple(layers)


class Together(NamedTuple):
    """Arrays of a network's shapes as views of one vector: its layers, its weights alone, all of it."""

    layers: Params
    weights: Array
    vector: Array


def together(backend: Backend, like: Params) -> Together:
    """Zeros of the shapes of `like` in one vector, first all weights, then all biases, on a backend that is `in_place`.

    An elementwise update of the vector is one call, however many layers there are. Between the views may lie zeros
    that no view shows, for each starts at a multiple of `ALIGNED` elements.
    """
    starts = _starts(like)
    vector = backend.xp.zeros(starts[-1], dtype=like[0].W.dtype, device=backend.device)
    return Together(views(backend.xp, vector, like), vector[: starts[len(like)]], vector)


def views(xp: Namespace, vector: Array, like: Params) -> Params:
    """The layers of the shapes of `like` in a vector that is laid out as that of `together`."""
    arrays = [
        xp.reshape(vector[start : start + math.prod(shape)], shape)
        for start, shape in zip(_starts(like), _shapes(like), strict=False)
    ]
    return tuple(Layer(*pair) for pair in zip(arrays[: len(like)], arrays[len(like) :], strict=True))


def add(to: Params, given: Params) -> None:
    """to ← to + given, in place: into zeros, a copy that does not count as a transfer on a GPU."""
    for view, layer in zip(to, given, strict=True):
        W, b = view
        W += layer.W
        b += layer.b


def _shapes(like: Params) -> list[tuple[int, ...]]:
    """Of all weights, then of all biases."""
    return [tuple(w.shape) for arrays in zip(*like, strict=True) for w in arrays]


def _starts(like: Params) -> list[int]:
    """Where each of `_shapes` begins in the vector, and at last its length."""
    starts = [0]
    for shape in _shapes(like):
        starts.append(starts[-1] + -(-math.prod(shape) // ALIGNED) * ALIGNED)
    return starts
