"""How parameters lie in memory: layer by layer, all in one vector, or as views of a few."""

from __future__ import annotations

import math
from typing import NamedTuple

from dlx.backend import Array, Backend, Namespace
from dlx.network import Layer, Params

ALIGNED = 32  # elements between the starts of views: 128 bytes of float32, what devices and BLAS load at once


def ravel(xp: Namespace, params: Params) -> Array:
    """All parameters as one vector."""
    return xp.concat([xp.reshape(each, (-1,)) for layer in params for each in layer])


def unravel(xp: Namespace, x: Array, like: Params) -> Params:
    """The vector `x` as parameters of the shapes of `like`."""
    layers, end = [], 0
    for layer in like:
        parts = []
        for each in layer:
            start, end = end, end + math.prod(each.shape)
            parts.append(xp.reshape(x[start:end], tuple(each.shape)))
        layers.append(Layer(*parts))
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
    starts = [0]
    shapes = [tuple(each.shape) for part in zip(*like, strict=True) for each in part]
    for shape in shapes:
        starts.append(starts[-1] + -(-math.prod(shape) // ALIGNED) * ALIGNED)
    vector = backend.xp.zeros(starts[-1], dtype=like[0].W.dtype, device=backend.device)
    views = [
        backend.xp.reshape(vector[start : start + math.prod(shape)], shape)
        for start, shape in zip(starts, shapes, strict=False)
    ]
    layers = tuple(Layer(*pair) for pair in zip(views[: len(like)], views[len(like) :], strict=True))
    return Together(layers, vector[: starts[len(like)]], vector)
