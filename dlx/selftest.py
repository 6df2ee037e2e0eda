"""``python -m dlx check``: a self-test of a few seconds on this machine."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from dlx import activations, initializers, losses, network
from dlx.backend import Backend, available_backends, get_backend
from dlx.data import parameters
from dlx.fitting import fit
from dlx.host import HostArray
from dlx.network import Layer, Params

DIMS = (5, 4, 3)
ROWS = 12
STEP = 1e-5  # of the central differences
GRADIENT_LIMIT = 1e-7  # the truncation error is of the order of STEP², and the rounding error of 1e-16 / STEP
AGREEMENT_LIMIT = {"float64": 1e-10, "float32": 1e-3}  # after 40 updates, relative to the largest weight


def trains(backend: Backend) -> None:
    """Train for one update and predict. It raises an error if the library lacks a part of the standard."""
    X = np.linspace(-1.0, 1.0, ROWS, dtype=np.float32)[:, None]
    fit(X, X, (1, 2, 1), epochs=1, rng=0, backend=backend).predict(X)


def check(selector: str | None = None) -> int:
    """Test gradients on NumPy by differences, then gradients and a training of the backends against NumPy.

    It tests the backend of the selector, or without one all that can compute here. It prints a line for each test.

    Returns
    -------
    int
        0 if all tests passed, else 1.
    """
    passed = [_report("gradients", "numpy, central differences", GRADIENT_LIMIT, _gradient_error())]
    chosen = [get_backend(selector)] if selector else [get_backend(name) for name in available_backends()]
    for backend in chosen:
        dtype = _widest(backend)
        limit, test = AGREEMENT_LIMIT[dtype], f"{backend.selector} against numpy, {dtype}"
        worst = max(_gradient_difference(backend, dtype, loss, activation) for loss, activation in _pairs())
        passed.append(_report("gradients", test, limit, worst))
        passed.append(_report("training", test, limit, _training_difference(backend, dtype)))
    return 0 if all(passed) else 1


def _report(what: str, test: str, limit: float, difference: float) -> bool:
    """Print the result of a test, and return whether it passed."""
    passed = difference <= limit
    print(
        f"{'ok' if passed else 'FAILED':<7}{what:<10} {test}: largest difference {difference:.1e} (limit {limit:.0e})",
        flush=True,
    )
    return passed


def _widest(backend: Backend) -> str:
    """The name of the widest float dtype that the backend computes with."""
    try:
        backend.dtype("float64")
    except TypeError:
        return "float32"
    return "float64"


def _pairs() -> Iterator[tuple[str, str]]:
    """Pairs of a loss and an activation, in which each of them appears at least once."""
    names = sorted({make().name for make in activations.ACTIVATIONS.values()})
    return zip(itertools.cycle(losses.LOSSES), names, strict=False)


def _problem(
    loss: str, activation: str, backend: Backend, dtype: str
) -> tuple[Callable[..., tuple[float, Params]], Params]:
    """``objective(params) -> (loss, gradients)`` on random data, and random parameters."""
    rng = np.random.default_rng(0)
    made = losses.LOSSES[loss]()
    X, Y = rng.standard_normal((ROWS, DIMS[0])), rng.uniform(0.1, 1.0, (ROWS, DIMS[-1]))
    if made.link.answers == "class":  # each row must hold probabilities
        Y /= Y.sum(axis=1, keepdims=True)
    net = network.bind(backend, dtype, [activations.ACTIVATIONS[activation]()], made, l2=0.1, l1=0.1)
    pairs = [(W, rng.standard_normal(b.shape)) for W, b in initializers.draw(None, rng, DIMS, ["glorot_normal"])]
    X, Y = backend.asarray(X, dtype), backend.asarray(Y, dtype)

    def objective(params: Params) -> tuple[float, Params]:
        value, gradients = network.loss_and_gradients(net, params, X, Y, None, None)
        return float(value), gradients

    return objective, parameters.own_params(pairs, backend, dtype)


def _gradient_error() -> float:
    """The largest error of gradients against central differences in random directions, on NumPy in float64."""
    numpy, worst = get_backend("numpy"), 0.0
    rng = np.random.default_rng(1)
    for loss, activation in _pairs():
        objective, params = _problem(loss, activation, numpy, "float64")
        _, gradients = objective(params)
        direction = tuple(Layer(*(rng.standard_normal(array.shape) for array in layer)) for layer in params)
        ahead, behind = (objective(_moved(params, direction, sign * STEP))[0] for sign in (1, -1))
        analytic = sum(
            float(np.sum(g * d)) for G, D in zip(gradients, direction, strict=True) for g, d in zip(G, D, strict=True)
        )
        worst = max(worst, abs((ahead - behind) / (2 * STEP) - analytic) / max(1.0, abs(analytic)))
    return worst


def _moved(params: Params, direction: Params, length: float) -> Params:
    """params + length · direction."""
    return tuple(Layer(W + length * dW, b + length * db) for (W, b), (dW, db) in zip(params, direction, strict=True))


def _gradient_difference(backend: Backend, dtype: str, loss: str, activation: str) -> float:
    """How far the gradients of `backend` differ from those of NumPy."""
    objective, params = _problem(loss, activation, get_backend("numpy"), "float64")
    expected = objective(params)[1]
    with backend.scope():
        objective, params = _problem(loss, activation, backend, dtype)
        return _difference(backend, objective(params)[1], expected)


def _training_difference(backend: Backend, dtype: str) -> float:
    """How far the weights after 40 updates with dropout on `backend` differ from those of NumPy."""
    rng = np.random.default_rng(2)
    X, y = rng.standard_normal((160, DIMS[0])).astype(dtype), rng.integers(0, DIMS[-1], 160)
    how: dict[str, Any] = {"batch_size": 20, "epochs": 5, "dropout": 0.2, "rng": 0}
    expected, net = fit(X, y, DIMS, **how, backend="numpy"), fit(X, y, DIMS, **how, backend=backend)
    return _difference(backend, net.params, expected.params)


def _difference(backend: Backend, params: Params, expected: Params) -> float:
    """The largest difference of two parameters, relative to the largest number expected."""
    pairs = [(backend.to_host(a), b) for A, B in zip(params, expected, strict=True) for a, b in zip(A, B, strict=True)]
    largest: HostArray = np.max([np.abs(b).max() for _, b in pairs])
    return float(np.max([np.abs(a - b).max() for a, b in pairs]) / largest)
