"""Initial weights, drawn on the host in float64: the same start on every array library.

normal, constant, zeros, glorot_normal, glorot_uniform, he_normal, he_uniform, lecun_normal, lecun_uniform.

An initialiser is a function ``(rng, d_in, d_out) -> W`` with `rng` a `numpy.random.Generator` and W a float64 array
of shape (d_in, d_out). Biases start at zero.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dlx import checks

HostArray = np.ndarray[Any, Any]
Initializer = Callable[[np.random.Generator, int, int], HostArray]
Pairs = list[tuple[HostArray, HostArray]]


def _normal(rng: np.random.Generator, d_in: int, d_out: int, std: float) -> HostArray:
    return std * rng.standard_normal((d_in, d_out))


def _uniform(rng: np.random.Generator, d_in: int, d_out: int, variance: float) -> HostArray:
    """A uniform draw from [-a, a] has variance a²/3."""
    limit = math.sqrt(3.0 * variance)
    return rng.uniform(-limit, limit, (d_in, d_out))


def _full(rng: np.random.Generator, d_in: int, d_out: int, value: float) -> HostArray:
    return np.full((d_in, d_out), value)


def glorot_normal(rng: np.random.Generator, d_in: int, d_out: int) -> HostArray:
    """W ~ N(0, 2 / (d_in + d_out)). Source: Glorot and Bengio 2010, for tanh and the logistic sigmoid.

    Examples
    --------
    >>> import dlx, numpy as np
    >>> dlx.initializers.glorot_normal(np.random.default_rng(0), 3, 2).shape
    (3, 2)
    """
    return _normal(rng, d_in, d_out, math.sqrt(2.0 / (d_in + d_out)))


def glorot_uniform(rng: np.random.Generator, d_in: int, d_out: int) -> HostArray:
    """W ~ U(-a, a), a = sqrt(6 / (d_in + d_out)). Source: Glorot and Bengio 2010, equation 16."""
    return _uniform(rng, d_in, d_out, 2.0 / (d_in + d_out))


def he_normal(rng: np.random.Generator, d_in: int, d_out: int) -> HostArray:
    """W ~ N(0, 2 / d_in). Source: He et al. 2015, arXiv:1502.01852, equation 10, for rectifiers."""
    return _normal(rng, d_in, d_out, math.sqrt(2.0 / d_in))


def he_uniform(rng: np.random.Generator, d_in: int, d_out: int) -> HostArray:
    """W ~ U(-a, a), a = sqrt(6 / d_in): the variance of `he_normal`."""
    return _uniform(rng, d_in, d_out, 2.0 / d_in)


def lecun_normal(rng: np.random.Generator, d_in: int, d_out: int) -> HostArray:
    """W ~ N(0, 1 / d_in). Source: LeCun et al. 1998, Efficient BackProp, section 4.6."""
    return _normal(rng, d_in, d_out, math.sqrt(1.0 / d_in))


def lecun_uniform(rng: np.random.Generator, d_in: int, d_out: int) -> HostArray:
    """W ~ U(-a, a), a = sqrt(3 / d_in): the variance of `lecun_normal`."""
    return _uniform(rng, d_in, d_out, 1.0 / d_in)


def zeros(rng: np.random.Generator, d_in: int, d_out: int) -> HostArray:
    """W = 0. Hidden units that start equal stay equal: for linear models only."""
    return np.zeros((d_in, d_out))


def normal(std: float = 0.01) -> Initializer:
    """W ~ N(0, std²); by default the article's 0.01 * randn.

    Examples
    --------
    >>> import dlx, numpy as np
    >>> dlx.initializers.normal()(np.random.default_rng(0), 1, 1).round(6)
    array([[0.001257]])
    """
    return functools.partial(_normal, std=checks.number("std", std, low=0, remedy="Use 0.01, for example."))


def constant(value: float) -> Initializer:
    """W = value everywhere.

    Examples
    --------
    >>> import dlx
    >>> dlx.initializers.constant(0.5)(None, 1, 2)
    array([[0.5, 0.5]])
    """
    return functools.partial(_full, value=checks.number("value", value, remedy="Use 0.1, for example."))


INITIALIZERS: Mapping[str, Initializer] = {
    **{make.__name__: make for make in (glorot_normal, glorot_uniform, he_normal, he_uniform)},
    **{make.__name__: make for make in (lecun_normal, lecun_uniform, zeros)},
    "normal": normal(),
}


def get(init: Any) -> Initializer | None:
    """An initialiser from its name or from itself; None for "auto": the one that each activation names."""
    if callable(init):
        found: Initializer = init
        return found
    remedy = "Or pass dlx.initializers.normal(0.1), dlx.initializers.constant(0.5), or a sequence of (W, b) pairs."
    name = checks.choice("init", init, ("auto", *INITIALIZERS), remedy)
    return None if name == "auto" else INITIALIZERS[name]


def draw(init: Initializer | None, rng: np.random.Generator, layer_dims: Sequence[int], names: Sequence[str]) -> Pairs:
    """``(W, b)`` of every layer; `names` are the initialisers that the hidden layers' activations ask for."""
    layers = []
    for d_in, d_out, name in zip(layer_dims[:-1], layer_dims[1:], [*names, "glorot_uniform"], strict=True):
        W = np.asarray((init or INITIALIZERS[name])(rng, d_in, d_out))
        if W.shape != (d_in, d_out):
            checks.reject(
                "init",
                f"return W of shape {(d_in, d_out)}",
                W.shape,
                "It is called as init(rng, d_in, d_out).",
            )
        layers.append((W, np.zeros((1, d_out))))
    return layers


BY_SKLEARN = {"identity": 6.0, "sigmoid": 2.0, "tanh": 6.0, "relu": 6.0}  # activations, and their factors


def as_scikit_learn(state: np.random.RandomState, layer_dims: Sequence[int], names: Sequence[str]) -> Pairs:
    """W and b ~ U(-a, a), a = sqrt(factor / (d_in + d_out)), drawn in the order of scikit-learn's MLP.

    The factor is 2 for the logistic sigmoid and 6 otherwise; the last layer has that of the last activation, `names`.

    Examples
    --------
    >>> import numpy as np
    >>> [(W, b)] = as_scikit_learn(np.random.RandomState(0), (2, 1), [])
    >>> W.shape, b.shape
    ((2, 1), (1, 1))
    """
    pairs = []
    for d_in, d_out, name in zip(layer_dims[:-1], layer_dims[1:], [*names, *names[-1:]] or ["relu"], strict=True):
        limit = math.sqrt(BY_SKLEARN[name] / (d_in + d_out))
        W = state.uniform(-limit, limit, (d_in, d_out))
        pairs.append((W, state.uniform(-limit, limit, (1, d_out))))
    return pairs
