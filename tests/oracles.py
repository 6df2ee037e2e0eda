"""Trusted outsiders: the complex step, central differences, and how other libraries write the same formulas.

Tables hold only what is installed, so that a missing library means tests not collected, never tests skipped.
"""

import importlib.util
import types

import numpy as np
import pytest
import scipy.special
import sklearn.metrics

import dlx


def _pick(condition, x, y):
    return np.where(condition, x, y)


def _largest(x, axis, keepdims):
    found = np.take_along_axis(x, np.argmax(np.real(x), axis=axis, keepdims=True), axis=axis)
    return found if keepdims else np.squeeze(found, axis=axis)


# NumPy as analytic functions of complex numbers: whatever chooses looks at real parts only. (Comparisons that
# are operators need no help: NumPy orders complex numbers by their real parts first.)
COMPLEX = types.SimpleNamespace(
    **{name: getattr(np, name) for name in ("exp", "expm1", "log", "log1p", "tanh", "sum", "mean", "where")},
    **{name: getattr(np, name) for name in ("ones_like", "zeros_like")},
    abs=lambda x: _pick(np.real(x) < 0, -x, x),
    maximum=lambda x, y: _pick(np.real(x) >= np.real(y), x, y),
    minimum=lambda x, y: _pick(np.real(x) <= np.real(y), x, y),
    max=_largest,
)


def complex_step(f, z, h=1e-30):
    """f'(z) of an elementwise f, to the last digits: the imaginary part of f(z + ih) over h."""
    return np.imag(f(z + 1j * h)) / h


def complex_gradient(objective, Z, h=1e-30):
    """The gradient by every entry of Z; `objective` takes (m, n, K), one entry moved in each, to (m,)."""
    return np.imag(objective(Z + 1j * h * _directions(Z))).reshape(Z.shape) / h


def central_difference(be, f, z, h=1e-5):
    """f'(z) of an elementwise f on a backend, from two sides, in float64."""
    up, down = (be.to_host(f(be.asarray(z + step, "float64"))) for step in (h, -h))
    return (up - down) / (2 * h)


def central_gradient(be, objective, Z, h=1e-5):
    """As `complex_gradient`, on a backend, from two sides, in float64."""
    moves = h * _directions(Z)
    up, down = (be.to_host(objective(be.asarray(Z + move, "float64"))) for move in (moves, -moves))
    return ((up - down) / (2 * h)).reshape(Z.shape)


def _directions(Z):
    return np.eye(Z.size).reshape(-1, *Z.shape)


def _torch_gradient(objective, Z):
    be = dlx.get_backend("torch")
    variable = be.asarray(Z, "float64").requires_grad_(True)
    value = objective(be.xp, lambda x: be.asarray(x, "float64"))(variable)
    value.sum().backward()
    return value.detach().numpy(), variable.grad.numpy()


def _jax_gradient(objective, Z):
    import jax

    be = dlx.get_backend("jax")
    function = objective(be.xp, lambda x: be.asarray(x, "float64"))
    variable = be.asarray(Z, "float64")
    return np.asarray(function(variable)), np.asarray(jax.grad(lambda Z: function(Z).sum())(variable))


def _torch_functions():
    import torch.nn.functional as F

    return F


def _jax_functions():
    import jax

    return jax.nn


def installed(table):
    """The entries of a table by library whose library is here."""
    return {library: entry for library, entry in table.items() if importlib.util.find_spec(library)}


def by_library(table):
    """Parametrise a test over a table of installed libraries; with none installed there is no such test."""
    return pytest.mark.parametrize("library", table) if table else lambda test: None


# By automatic differentiation: (objective, Z) -> (value, gradient of its sum); objective(xp, array) is the
# function of Z on that library
AUTODIFF = installed({"torch": _torch_gradient, "jax": _jax_gradient})
FUNCTIONS = {"torch": _torch_functions, "jax": _jax_functions}

# the same activations as torch.nn.functional (F) and jax.nn (nn) write them
ACTIVATIONS = installed(
    {
        "torch": {
            "identity": lambda F, z: z * 1.0,
            "relu": lambda F, z: F.relu(z),
            "leaky_relu": lambda F, z, slope: F.leaky_relu(z, negative_slope=slope),
            "elu": lambda F, z, alpha: F.elu(z, alpha=alpha),
            "selu": lambda F, z: F.selu(z),
            "gelu": lambda F, z: F.gelu(z, approximate="tanh"),
            "silu": lambda F, z: F.silu(z),
            "mish": lambda F, z: F.mish(z),
            "softplus": lambda F, z: F.softplus(z, threshold=100),  # by default it is linear from 20 on
            "sigmoid": lambda F, z: F.sigmoid(z),
            "tanh": lambda F, z: F.tanh(z),
        },
        "jax": {
            "identity": lambda nn, z: nn.identity(z),
            "relu": lambda nn, z: nn.relu(z),
            "leaky_relu": lambda nn, z, slope: nn.leaky_relu(z, negative_slope=slope),
            "elu": lambda nn, z, alpha: nn.elu(z, alpha=alpha),
            "selu": lambda nn, z: nn.selu(z),
            "gelu": lambda nn, z: nn.gelu(z, approximate=True),
            "silu": lambda nn, z: nn.silu(z),
            "mish": lambda nn, z: nn.mish(z),
            "softplus": lambda nn, z: nn.softplus(z),
            "sigmoid": lambda nn, z: nn.sigmoid(z),
            "tanh": lambda nn, z: nn.tanh(z),
        },
    }
)


# Losses as torch.nn.functional (F) writes them, by cell or by row
TORCH_LOSSES = installed(
    {
        "torch": {
            "squared_error": lambda F, Z, Y: F.mse_loss(Z, Y, reduction="none"),
            "absolute_error": lambda F, Z, Y: F.l1_loss(Z, Y, reduction="none"),
            "huber": lambda F, Z, Y, width: F.huber_loss(Z, Y, delta=width, reduction="none"),
            "poisson": lambda F, Z, Y: F.poisson_nll_loss(Z, Y, log_input=True, reduction="none"),
            "binary_cross_entropy": lambda F, Z, Y: F.binary_cross_entropy_with_logits(Z, Y, reduction="none"),
            "cross_entropy": lambda F, Z, Y, label_smoothing: F.cross_entropy(
                Z, Y, reduction="none", label_smoothing=label_smoothing
            )[:, None],
        }
    }
)


def _by_cell(metric, Z, Y, **settings):
    """A metric of scikit-learn, which averages, of one cell at a time."""
    return np.vectorize(lambda y, z, **each: metric([y], [z], **each))(Y, Z, **settings)


# Losses by cell as SciPy and scikit-learn write them
HOST_LOSSES = {
    "squared_error": lambda Z, Y: _by_cell(sklearn.metrics.mean_squared_error, Z, Y),
    "absolute_error": lambda Z, Y: _by_cell(sklearn.metrics.mean_absolute_error, Z, Y),
    "huber": lambda Z, Y, width: scipy.special.huber(width, Z - Y),
    "quantile": lambda Z, Y, q: _by_cell(sklearn.metrics.mean_pinball_loss, Z, Y, alpha=np.asarray(q)),
    "poisson": lambda Z, Y: np.exp(Z) - scipy.special.xlogy(Y, np.exp(Z)),
    "binary_cross_entropy": lambda Z, Y: -(Y * scipy.special.log_expit(Z) + (1 - Y) * scipy.special.log_expit(-Z)),
    "cross_entropy": lambda Z, Y, label_smoothing: (
        -(((1 - label_smoothing) * Y + label_smoothing / Y.shape[1]) * scipy.special.log_softmax(Z, axis=1))
    ),
}
LINKS = {
    "poisson": np.exp,
    "binary_cross_entropy": scipy.special.expit,
    "cross_entropy": lambda Z: scipy.special.softmax(Z, axis=-1),
}


def activation_of(library, activation, z):
    """Value and derivative at z of a library's own activation of that name and those settings."""
    function = ACTIVATIONS[library][activation.name]

    def objective(xp, array):
        functions = FUNCTIONS[library]()
        return lambda z: function(functions, z, **activation.settings)

    return AUTODIFF[library](objective, z)


def loss_of(library, loss, Z, Y):
    """Values by row, and the derivative by Z, of a library's own loss of that name and those settings."""

    def objective(xp, array):
        functions = FUNCTIONS[library]()
        function = TORCH_LOSSES[library][loss.name]
        return lambda Z: function(functions, Z, array(Y), **loss.settings).sum(-1, keepdim=True)

    return AUTODIFF[library](objective, Z)


def d2(Y, P, loss, weights=None):
    """D² of a quantile loss by scikit-learn's own pinball losses and quantiles; of a list, the sums over all lines."""
    q, (n, K) = loss.settings["q"], P.shape
    Y = np.broadcast_to(Y, (n, K))
    if not isinstance(q, list):
        return sklearn.metrics.d2_pinball_score(Y, P, alpha=q, sample_weight=weights)
    lost, constant = 0.0, 0.0
    for y, p, level in zip(Y.T, P.T, q, strict=True):
        how = {"alpha": level, "sample_weight": weights}
        lost += (one := sklearn.metrics.mean_pinball_loss(y, p, **how))
        constant += one / (1.0 - sklearn.metrics.d2_pinball_score(y, p, **how))
    return 1.0 - lost / constant


def assert_close(found, expected, tolerance):
    """|found - expected| <= tolerance * max(1, |expected|) everywhere, and one shape."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    np.testing.assert_array_less(np.abs(found - expected) / np.maximum(1.0, np.abs(expected)), tolerance)
