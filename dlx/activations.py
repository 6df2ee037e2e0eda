"""Activations: elementwise pairs of a function ``f(z)`` and its derivative ``df(z, a)``, where ``a = f(z)``.

identity (alias "none"), relu, leaky_relu, elu, selu, gelu, silu, mish, softplus, sigmoid (alias "logistic"), tanh.

``relu()`` describes an activation, and ``relu().bind(xp)`` gives its two formulas on one array library. They take
arrays of any shape, and keep shape and dtype. An activation of your own is the pair ``(f, df)`` itself; `get` says
what it may depend on. Pass an activation, or its name, as ``activation``; hidden layers start with the initialiser that
it names.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from dlx import checks
from dlx.backend import Array, Namespace


class Formulas(NamedTuple):
    """The formulas of an activation on one library: ``f(z)`` and ``df(z, a)``, which may use ``a = f(z)``."""

    f: Callable[[Array], Array]
    df: Callable[[Array, Array], Array]


class Activation(NamedTuple):
    """An activation: its name, settings and initialiser (by name), and ``bind(xp)``, which gives its formulas."""

    name: str
    settings: Mapping[str, float]
    init: str
    bind: Callable[[Namespace], Formulas]

    def __repr__(self) -> str:
        return checks.called(self.name, self.settings)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle an activation of dlx by name and settings, as no pickle can hold its formulas, which are closures."""
        return (_named, (self.name, dict(self.settings))) if is_own(self) else (Activation, tuple(self))


SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772  # λ and α of the paper's fixed point


def logistic(xp: Namespace, z: Array) -> Array:
    """σ(z) = 1 / (1 + e^-z). It cannot overflow, as it takes the exponential of -|z| only."""
    e = xp.exp(-xp.abs(z))
    return xp.where(z >= 0, 1.0, e) / (1.0 + e)


def log1p_exp(xp: Namespace, z: Array) -> Array:
    """log(1 + e^z) = max(z, 0) + log(1 + e^-|z|), which cannot overflow."""
    return xp.maximum(z, 0.0) + xp.log1p(xp.exp(-xp.abs(z)))


def identity() -> Activation:
    """No activation (alias "none"): the layer is affine.

    f(z) = z,  f'(z) = 1

    Returns
    -------
    Activation

    Examples
    --------
    >>> import dlx, numpy as np
    >>> dlx.activations.identity().bind(np).f(np.array([-1.0, 2.0]))
    array([-1.,  2.])
    """

    def bind(xp: Namespace) -> Formulas:
        def f(z: Array) -> Array:
            return z

        def df(z: Array, a: Array) -> Array:
            return xp.astype(z == z, z.dtype)  # ones: cupy.fuse has no ones_like

        return Formulas(f, df)

    return Activation("identity", {}, "glorot_uniform", bind)


def relu() -> Activation:
    """Rectified linear unit.

    f(z) = max(z, 0),  f'(z) = 1 where z > 0, else 0 (also at z = 0)

    Returns
    -------
    Activation

    Source: Nair and Hinton 2010; the initialiser is that of He et al. 2015.

    Examples
    --------
    >>> import dlx, numpy as np
    >>> f, df = dlx.activations.relu().bind(np)
    >>> z = np.array([-1.0, 0.0, 2.0])
    >>> f(z), df(z, f(z))
    (array([0., 0., 2.]), array([0., 0., 1.]))
    """

    def bind(xp: Namespace) -> Formulas:
        def f(z: Array) -> Array:
            return xp.maximum(z, 0.0)

        def df(z: Array, a: Array) -> Array:
            return xp.astype(z > 0, z.dtype)

        return Formulas(f, df)

    return Activation("relu", {}, "he_normal", bind)


def leaky_relu(slope: float = 0.01) -> Activation:
    """Leaky rectified linear unit.

    f(z) = z where z > 0, else slope * z;  f'(z) = 1 where z > 0, else slope

    Parameters
    ----------
    slope : float in [0, 1), default 0.01
        The slope for negative z.

    Returns
    -------
    Activation

    Raises
    ------
    ValueError, TypeError
        `slope` is out of range or not a number.

    Source: Maas, Hannun and Ng 2013.

    Examples
    --------
    >>> import dlx, numpy as np
    >>> dlx.activations.leaky_relu(0.1).bind(np).f(np.array([-1.0, 2.0]))
    array([-0.1,  2. ])
    """
    slope = checks.number("slope", slope, low=0, high=1, below=True, remedy="Use 0.01, for example.")

    def bind(xp: Namespace) -> Formulas:
        def f(z: Array) -> Array:
            return xp.maximum(z, slope * z)  # as slope < 1

        def df(z: Array, a: Array) -> Array:
            positive = xp.astype(z > 0, z.dtype)
            return positive + slope * (1.0 - positive)

        return Formulas(f, df)

    return Activation("leaky_relu", {"slope": slope}, "he_normal", bind)


def _scaled_elu(scale: float, alpha: float) -> Callable[[Namespace], Formulas]:
    """The formulas of `elu` and `selu`: f(z) = scale * (z where z > 0, else alpha (e^z - 1))."""

    def bind(xp: Namespace) -> Formulas:
        def f(z: Array) -> Array:
            return xp.where(z > 0, scale * z, scale * alpha * xp.expm1(xp.minimum(z, 0.0)))

        def df(z: Array, a: Array) -> Array:
            return xp.where(z > 0, scale, scale * alpha * xp.exp(xp.minimum(z, 0.0)))

        return Formulas(f, df)

    return bind


def elu(alpha: float = 1.0) -> Activation:
    """Exponential linear unit.

    f(z) = z where z > 0, else alpha (e^z - 1);  f'(z) = 1 where z > 0, else alpha e^z

    Parameters
    ----------
    alpha : float > 0, default 1
        f(z) tends to -alpha as z tends to -infinity.

    Returns
    -------
    Activation

    Raises
    ------
    ValueError, TypeError
        `alpha` is out of range or not a number.

    Source: Clevert, Unterthiner and Hochreiter 2016, arXiv:1511.07289.

    Examples
    --------
    >>> import dlx, numpy as np
    >>> dlx.activations.elu().bind(np).f(np.array([-np.inf, 2.0]))
    array([-1.,  2.])
    """
    alpha = checks.number("alpha", alpha, low=0, above=True, remedy="Use 1.0, for example.")
    return Activation("elu", {"alpha": alpha}, "he_normal", _scaled_elu(1.0, alpha))


def selu() -> Activation:
    """Scaled exponential linear unit, which keeps mean 0 and variance 1 through deep networks.

    f(z) = λ z where z > 0, else λ α (e^z - 1);  f'(z) = λ where z > 0, else λ α e^z
    λ = 1.05070098...,  α = 1.67326324...

    Returns
    -------
    Activation

    Source: Klambauer et al. 2017, arXiv:1706.02515, whose fixed point gives λ, α and the initialiser of LeCun.

    Examples
    --------
    >>> import dlx, numpy as np
    >>> dlx.activations.selu().bind(np).f(np.array([1.0])).round(6)
    array([1.050701])
    """
    return Activation("selu", {}, "lecun_normal", _scaled_elu(SELU_SCALE, SELU_ALPHA))


def gelu() -> Activation:
    """Gaussian error linear unit, in its tanh form.

    f(z) = z/2 (1 + tanh u),  u = sqrt(2/π) (z + 0.044715 z³)
    f'(z) = (1 + tanh u)/2 + z/2 (1 - tanh² u) u'

    Returns
    -------
    Activation

    Numerics: the standard has no erf, which the exact form needs. tanh u is ±1 in every precision where |z| > 10, and
    z³ might overflow there, so that u is computed from z limited to [-10, 10].

    Source: Hendrycks and Gimpel 2016, arXiv:1606.08415.

    Examples
    --------
    >>> import dlx, numpy as np
    >>> dlx.activations.gelu().bind(np).f(np.array([-1.0, 1.0])).round(4)
    array([-0.1588,  0.8412])
    """
    c = math.sqrt(2.0 / math.pi)

    def bind(xp: Namespace) -> Formulas:
        def limited(z: Array) -> Array:
            return xp.minimum(xp.maximum(z, -10.0), 10.0)

        def f(z: Array) -> Array:
            v = limited(z)
            return 0.5 * z * (1.0 + xp.tanh(c * (v + 0.044715 * v * v * v)))

        def df(z: Array, a: Array) -> Array:
            v = limited(z)
            t = xp.tanh(c * (v + 0.044715 * v * v * v))
            return 0.5 * (1.0 + t) + 0.5 * v * (1.0 - t * t) * c * (1.0 + 3.0 * 0.044715 * v * v)

        return Formulas(f, df)

    return Activation("gelu", {}, "he_normal", bind)


def silu() -> Activation:
    """Sigmoid linear unit, also called swish.

    f(z) = z σ(z),  f'(z) = σ(z) + f(z) (1 - σ(z))

    Returns
    -------
    Activation

    Source: Elfwing, Uchibe and Doya 2018, arXiv:1702.03118; Ramachandran, Zoph and Le 2017, arXiv:1710.05941.

    Examples
    --------
    >>> import dlx, numpy as np
    >>> dlx.activations.silu().bind(np).f(np.array([-1.0, 1.0])).round(4)
    array([-0.2689,  0.7311])
    """

    def bind(xp: Namespace) -> Formulas:
        def f(z: Array) -> Array:
            return z * logistic(xp, z)

        def df(z: Array, a: Array) -> Array:
            s = logistic(xp, z)
            return s + a * (1.0 - s)

        return Formulas(f, df)

    return Activation("silu", {}, "he_normal", bind)


def mish() -> Activation:
    """Mish, a smooth activation like `silu`.

    f(z) = z tanh(log(1 + e^z)),  f'(z) = t + z (1 - t²) σ(z) with t = tanh(log(1 + e^z))

    Returns
    -------
    Activation

    Source: Misra 2019, arXiv:1908.08681.

    Examples
    --------
    >>> import dlx, numpy as np
    >>> dlx.activations.mish().bind(np).f(np.array([-1.0, 1.0])).round(4)
    array([-0.3034,  0.8651])
    """

    def bind(xp: Namespace) -> Formulas:
        def f(z: Array) -> Array:
            return z * xp.tanh(log1p_exp(xp, z))

        def df(z: Array, a: Array) -> Array:
            t = xp.tanh(log1p_exp(xp, z))
            return t + z * (1.0 - t * t) * logistic(xp, z)

        return Formulas(f, df)

    return Activation("mish", {}, "he_normal", bind)


def softplus() -> Activation:
    """Softplus, a smooth rectifier.

    f(z) = log(1 + e^z),  f'(z) = σ(z)

    Returns
    -------
    Activation

    Source: Dugas et al. 2001.

    Examples
    --------
    >>> import dlx, numpy as np
    >>> dlx.activations.softplus().bind(np).f(np.array([0.0, 1000.0])).round(4)
    array([6.931e-01, 1.000e+03])
    """

    def bind(xp: Namespace) -> Formulas:
        def f(z: Array) -> Array:
            return log1p_exp(xp, z)

        def df(z: Array, a: Array) -> Array:
            return logistic(xp, z)

        return Formulas(f, df)

    return Activation("softplus", {}, "he_normal", bind)


def sigmoid() -> Activation:
    """Logistic sigmoid (alias "logistic").

    f(z) = 1 / (1 + e^-z),  f'(z) = a (1 - a)

    Returns
    -------
    Activation

    Source: the initialiser is that of Glorot and Bengio 2010.

    Examples
    --------
    >>> import dlx, numpy as np
    >>> dlx.activations.sigmoid().bind(np).f(np.array([-1000.0, 0.0, 1000.0]))
    array([0. , 0.5, 1. ])
    """

    def bind(xp: Namespace) -> Formulas:
        def f(z: Array) -> Array:
            return logistic(xp, z)

        def df(z: Array, a: Array) -> Array:
            return a * (1.0 - a)

        return Formulas(f, df)

    return Activation("sigmoid", {}, "glorot_uniform", bind)


def tanh() -> Activation:
    """Hyperbolic tangent.

    f(z) = tanh z,  f'(z) = 1 - a²

    Returns
    -------
    Activation

    Source: the initialiser is that of Glorot and Bengio 2010.

    Examples
    --------
    >>> import dlx, numpy as np
    >>> dlx.activations.tanh().bind(np).f(np.array([0.0]))
    array([0.])
    """

    def bind(xp: Namespace) -> Formulas:
        def f(z: Array) -> Array:
            return xp.tanh(z)

        def df(z: Array, a: Array) -> Array:
            return 1.0 - a * a

        return Formulas(f, df)

    return Activation("tanh", {}, "glorot_uniform", bind)


ACTIVATIONS: Mapping[str, Callable[..., Activation]] = {
    **{make.__name__: make for make in (identity, relu, leaky_relu, elu, selu, gelu)},
    **{make.__name__: make for make in (silu, mish, softplus, sigmoid, tanh)},
    "none": identity,
    "logistic": sigmoid,
}


def get(activation: Any, name: str = "activation") -> Activation:
    """The `Activation` that is meant.

    Parameters
    ----------
    activation : name, Activation, or pair of functions (f, df)
        A user's own functions are elementwise: f(z), and its derivative df(z, a) with a = f(z). They must depend on
        their arrays alone, and not on global state, random numbers or the number of calls. The reason is that a
        training step is recorded or compiled once and then repeated, on CUDA devices, on NumPy with numba and
        everywhere on JAX, so that the functions are called only a few times. On CuPy and PyTorch, functions that wait
        for the device, or copy from or to the host, cannot be recorded: the training is then slower, and a warning says
        so. JAX refuses functions that wait. On NumPy, functions that do more than the recording knows, such as
        branches, run as they are.
    name : str, default "activation"
        What errors call the argument.

    Returns
    -------
    Activation

    Raises
    ------
    ValueError, TypeError
        There is no activation of that name, or `activation` is none of these.

    Examples
    --------
    >>> import dlx, numpy as np
    >>> f, df = dlx.activations.get((lambda z: z * z, lambda z, a: 2.0 * z)).bind(np)
    >>> z = np.array([1.0, 3.0])
    >>> f(z), df(z, f(z))
    (array([1., 9.]), array([2., 6.]))
    """
    if isinstance(activation, Activation):
        return activation
    if isinstance(activation, tuple) and len(activation) == 2 and all(callable(function) for function in activation):
        formulas = Formulas(*activation)
        return Activation("custom", {}, "he_normal", lambda xp: formulas)
    remedy = "A user's own is a pair of functions: f(z) and df(z, a)."
    return ACTIVATIONS[checks.choice(name, activation, ACTIVATIONS, remedy)]()


def is_own(activation: Activation) -> bool:
    """Whether it is one of dlx, with the formulas that its name and settings promise."""
    return checks.is_made_by(ACTIVATIONS, activation)


def _named(name: str, settings: Mapping[str, float]) -> Activation:
    """The activation with this name and these settings. Pickles refer to this function."""
    return ACTIVATIONS[name](**settings)
