"""Initial weights, drawn on the host in float64: the same start on every array library.

normal, constant, zeros, glorot_normal, glorot_uniform, he_normal, he_uniform, lecun_normal, lecun_uniform.

An initialiser is a function ``(rng, d_in, d_out) -> W``. `rng` is a `numpy.random.Generator`, and W a float64 array of
shape (d_in, d_out). Biases start at zero. Pass an initialiser, or its name, as ``init``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dlx import checks
from dlx.host import HostArray

Initializer = Callable[[np.random.Generator, int, int], HostArray]
HostPairs = list[tuple[HostArray, HostArray]]  # W (d_in, d_out) and b (1, d_out) of each layer


def _normal(rng: np.random.Generator, d_in: int, d_out: int, std: float) -> HostArray:
    """W ~ N(0, std²)."""
    return std * rng.standard_normal((d_in, d_out))


def _uniform(rng: np.random.Generator, d_in: int, d_out: int, variance: float) -> HostArray:
    """W ~ U(-a, a), whose variance is a²/3."""
    limit = math.sqrt(3.0 * variance)
    return rng.uniform(-limit, limit, (d_in, d_out))


def _full(rng: np.random.Generator, d_in: int, d_out: int, value: float) -> HostArray:
    """W = value."""
    return np.full((d_in, d_out), value)


def glorot_normal(rng: np.random.Generator, d_in: int, d_out: int) -> HostArray:
    """Normal weights for tanh and the logistic sigmoid.

    W ~ N(0, 2 / (d_in + d_out))

    Parameters
    ----------
    rng : numpy.random.Generator
    d_in, d_out : int >= 1
        The widths of the layer's input and output.

    Returns
    -------
    float64 array (d_in, d_out)

    Source: Glorot and Bengio 2010.

    Examples
    --------
    >>> import dlx, numpy as np
    >>> dlx.initializers.glorot_normal(np.random.default_rng(0), 3, 2).shape
    (3, 2)
    """
    return _normal(rng, d_in, d_out, math.sqrt(2.0 / (d_in + d_out)))


def glorot_uniform(rng: np.random.Generator, d_in: int, d_out: int) -> HostArray:
    """Uniform weights with the variance of `glorot_normal`.

    W ~ U(-a, a),  a = sqrt(6 / (d_in + d_out))

    Parameters
    ----------
    rng : numpy.random.Generator
    d_in, d_out : int >= 1
        The widths of the layer's input and output.

    Returns
    -------
    float64 array (d_in, d_out)

    Source: Glorot and Bengio 2010, equation 16.

    Examples
    --------
    >>> import dlx, numpy as np
    >>> dlx.initializers.glorot_uniform(np.random.default_rng(0), 3, 2).shape
    (3, 2)
    """
    return _uniform(rng, d_in, d_out, 2.0 / (d_in + d_out))


def he_normal(rng: np.random.Generator, d_in: int, d_out: int) -> HostArray:
    """Normal weights for rectifiers.

    W ~ N(0, 2 / d_in)

    Parameters
    ----------
    rng : numpy.random.Generator
    d_in, d_out : int >= 1
        The widths of the layer's input and output.

    Returns
    -------
    float64 array (d_in, d_out)

    Source: He et al. 2015, arXiv:1502.01852, equation 10.

    Examples
    --------
    >>> import dlx, numpy as np
    >>> dlx.initializers.he_normal(np.random.default_rng(0), 3, 2).shape
    (3, 2)
    """
    return _normal(rng, d_in, d_out, math.sqrt(2.0 / d_in))


def he_uniform(rng: np.random.Generator, d_in: int, d_out: int) -> HostArray:
    """Uniform weights with the variance of `he_normal`.

    W ~ U(-a, a),  a = sqrt(6 / d_in)

    Parameters
    ----------
    rng : numpy.random.Generator
    d_in, d_out : int >= 1
        The widths of the layer's input and output.

    Returns
    -------
    float64 array (d_in, d_out)

    Examples
    --------
    >>> import dlx, numpy as np
    >>> dlx.initializers.he_uniform(np.random.default_rng(0), 3, 2).shape
    (3, 2)
    """
    return _uniform(rng, d_in, d_out, 2.0 / d_in)


def lecun_normal(rng: np.random.Generator, d_in: int, d_out: int) -> HostArray:
    """Normal weights that keep the variance of the inputs, for `selu`.

    W ~ N(0, 1 / d_in)

    Parameters
    ----------
    rng : numpy.random.Generator
    d_in, d_out : int >= 1
        The widths of the layer's input and output.

    Returns
    -------
    float64 array (d_in, d_out)

    Source: LeCun et al. 1998, Efficient BackProp, section 4.6.

    Examples
    --------
    >>> import dlx, numpy as np
    >>> dlx.initializers.lecun_normal(np.random.default_rng(0), 3, 2).shape
    (3, 2)
    """
    return _normal(rng, d_in, d_out, math.sqrt(1.0 / d_in))


def lecun_uniform(rng: np.random.Generator, d_in: int, d_out: int) -> HostArray:
    """Uniform weights with the variance of `lecun_normal`.

    W ~ U(-a, a),  a = sqrt(3 / d_in)

    Parameters
    ----------
    rng : numpy.random.Generator
    d_in, d_out : int >= 1
        The widths of the layer's input and output.

    Returns
    -------
    float64 array (d_in, d_out)

    Examples
    --------
    >>> import dlx, numpy as np
    >>> dlx.initializers.lecun_uniform(np.random.default_rng(0), 3, 2).shape
    (3, 2)
    """
    return _uniform(rng, d_in, d_out, 1.0 / d_in)


def zeros(rng: np.random.Generator, d_in: int, d_out: int) -> HostArray:
    """Zeros, for linear models only: hidden units that start equal stay equal.

    W = 0

    Parameters
    ----------
    rng : numpy.random.Generator
    d_in, d_out : int >= 1
        The widths of the layer's input and output.

    Returns
    -------
    float64 array (d_in, d_out)

    Examples
    --------
    >>> import dlx
    >>> dlx.initializers.zeros(None, 1, 2)
    array([[0., 0.]])
    """
    return np.zeros((d_in, d_out))


def normal(std: float = 0.01) -> Initializer:
    """Normal weights with a standard deviation of your own.

    W ~ N(0, std²)

    Parameters
    ----------
    std : float >= 0, default 0.01
        The standard deviation; 0.01 is that of the article.

    Returns
    -------
    initialiser

    Raises
    ------
    ValueError, TypeError
        `std` is out of range or not a number.

    Examples
    --------
    >>> import dlx, numpy as np
    >>> dlx.initializers.normal()(np.random.default_rng(0), 1, 1).round(6)
    array([[0.001257]])
    """
    return functools.partial(_normal, std=checks.number("std", std, low=0, remedy="Use 0.01, for example."))


def constant(value: float) -> Initializer:
    """Weights that all have one value.

    W = value

    Parameters
    ----------
    value : float

    Returns
    -------
    initialiser

    Raises
    ------
    ValueError, TypeError
        `value` is not finite or not a number.

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
    """The initialiser for a name, or a function itself; None for "auto", by which each activation names its own."""
    if callable(init):
        initializer: Initializer = init
        return initializer
    remedy = "Or pass dlx.initializers.normal(0.1), dlx.initializers.constant(0.5), or a sequence of (W, b) pairs."
    name = checks.choice("init", init, ("auto", *INITIALIZERS), remedy)
    return None if name == "auto" else INITIALIZERS[name]


def draw(
    init: Initializer | None, rng: np.random.Generator, layer_dims: Sequence[int], names: Sequence[str]
) -> HostPairs:
    """The pairs (W, b) of all layers. If `init` is None, hidden layers take the initialisers in `names`."""
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


BY_SKLEARN = {"identity": 6.0, "sigmoid": 2.0, "tanh": 6.0, "relu": 6.0}  # factors, by activation


def as_scikit_learn(state: np.random.RandomState, layer_dims: Sequence[int], names: Sequence[str]) -> HostPairs:
    """W and b ~ U(-a, a), a = sqrt(factor / (d_in + d_out)), drawn in the order of scikit-learn's MLP.

    The factor is 2 for the logistic sigmoid and 6 otherwise.

    Parameters
    ----------
    state : numpy.random.RandomState
    layer_dims : sequence of int >= 1
        The widths of input, hidden layers and output.
    names : sequence of str
        The activations of the hidden layers; the output layer has the factor of the last one.

    Returns
    -------
    list of pairs (W, b) of float64 arrays (d_in, d_out) and (1, d_out)

    Source: scikit-learn's MLPClassifier and MLPRegressor, which follow Glorot and Bengio 2010.

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
