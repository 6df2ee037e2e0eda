"""``python -m dlx check``: a few seconds of self-test on the machine at hand."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np

from dlx import activations, initializers, losses, network
from dlx.backend import Backend, available_backends, get_backend
from dlx.data import features, parameters
from dlx.fitting import fit
from dlx.network import Layer, Params

DIMS = (5, 4, 3)
ROWS = 12
STEP = 1e-5  # of the central differences
GRADIENT_LIMIT = 1e-7  # truncation is of the order of STEP², rounding of 1e-16 / STEP
AGREEMENT_LIMIT = {"float64": 1e-10, "float32": 1e-3}  # after 40 updates, relative to the largest weight


def trains(backend: Backend) -> None:
    """A training of one update, which raises whatever it raises where the library lacks a part of the standard."""
    X = np.linspace(-1.0, 1.0, ROWS, dtype=np.float32)[:, None]
    fit(X, X, (1, 2, 1), epochs=1, rng=0, backend=backend).predict(X)


def check(selector: str | None = None) -> int:
    """Gradients on NumPy, then every backend (or the one named) against NumPy; prints a line each; 0 if all is well."""
    passed = [_say("gradients", "numpy, central differences", GRADIENT_LIMIT, _gradient_error())]
    chosen = [get_backend(selector)] if selector else [get_backend(name) for name in available_backends()]
    for backend in chosen:
        dtype = _widest(backend)
        limit = AGREEMENT_LIMIT[dtype]
        worst = max(_differs_by(backend, dtype, loss, activation) for loss, activation in _pairs())
        passed.append(_say("gradients", f"{backend.selector} against numpy, {dtype}", limit, worst))
        passed.append(
            _say("training", f"{backend.selector} against numpy, {dtype}", limit, _trained_apart(backend, dtype))
        )
    return 0 if all(passed) else 1


def _say(what: str, where: str, limit: float, found: float) -> bool:
    good = found <= limit
    print(
        f"{'ok' if good else 'FAILED':<7}{what:<10} {where}: largest difference {found:.1e} (limit {limit:.0e})",
        flush=True,
    )
    return good


def _widest(backend: Backend) -> str:
    try:
        backend.dtype("float64")
    except TypeError:
        return "float32"
    return "float64"


def _pairs() -> Iterator[tuple[str, str]]:
    """Every loss and every activation at least once."""
    names = sorted({make().name for make in activations.ACTIVATIONS.values()})
    return zip(itertools.cycle(losses.LOSSES), names, strict=False)


def _problem(
    loss: str, activation: str, backend: Backend, dtype: str
) -> tuple[Callable[..., tuple[float, Params]], Params]:
    """``objective(params) -> (loss, gradients)`` on random data, and random parameters."""
    rng = np.random.default_rng(0)
    described = losses.LOSSES[loss]()
    X, Y = rng.standard_normal((ROWS, DIMS[0])), rng.uniform(0.1, 1.0, (ROWS, DIMS[-1]))
    if described.link.answers == "class":  # each row holds probabilities
        Y /= Y.sum(axis=1, keepdims=True)
    net = network.bind(backend, dtype, [activations.ACTIVATIONS[activation]()], described, l2=0.1, l1=0.1)
    pairs = [(W, rng.standard_normal(b.shape)) for W, b in initializers.draw(None, rng, DIMS, ["glorot_normal"])]
    X, Y = backend.asarray(X, dtype), backend.asarray(Y, dtype)

    def objective(params: Params) -> tuple[float, Params]:
        value, gradients = network.loss_and_gradients(net, params, X, Y, None, None)
        return float(value), gradients

    return objective, parameters.own_params(pairs, backend, dtype)


def _gradient_error() -> float:
    """Analytic gradients against central differences in random directions, on NumPy in float64."""
    numpy, worst = get_backend("numpy"), 0.0
    rng = np.random.default_rng(1)
    for loss, activation in _pairs():
        objective, params = _problem(loss, activation, numpy, "float64")
        _, gradients = objective(params)
        direction = tuple(Layer(*(rng.standard_normal(each.shape) for each in layer)) for layer in params)
        ahead, behind = (objective(_moved(params, direction, sign * STEP))[0] for sign in (1, -1))
        analytic = sum(
            float(np.sum(g * d)) for G, D in zip(gradients, direction, strict=True) for g, d in zip(G, D, strict=True)
        )
        worst = max(worst, abs((ahead - behind) / (2 * STEP) - analytic) / max(1.0, abs(analytic)))
    return worst


def _moved(params: Params, direction: Params, length: float) -> Params:
    return tuple(Layer(W + length * dW, b + length * db) for (W, b), (dW, db) in zip(params, direction, strict=True))


def _differs_by(backend: Backend, dtype: str, loss: str, activation: str) -> float:
    """The gradients of `backend` against NumPy's."""
    objective, params = _problem(loss, activation, get_backend("numpy"), "float64")
    expected = objective(params)[1]
    with backend.scope():
        objective, params = _problem(loss, activation, backend, dtype)
        return _apart(backend, objective(params)[1], expected)


def _trained_apart(backend: Backend, dtype: str) -> float:
    """Weights after 40 updates with dropout on `backend`, against NumPy's."""
    rng = np.random.default_rng(2)
    X, y = rng.standard_normal((160, DIMS[0])).astype(dtype), rng.integers(0, DIMS[-1], 160)
    nets = [fit(X, y, DIMS, batch_size=20, epochs=5, dropout=0.2, rng=0, backend=each) for each in ("numpy", backend)]
    return _apart(backend, nets[1].params, nets[0].params)


def _apart(backend: Backend, found: Params, expected: Params) -> float:
    """The largest difference, relative to the largest number expected."""
    pairs = [(backend.to_host(a), b) for A, B in zip(found, expected, strict=True) for a, b in zip(A, B, strict=True)]
    largest: features.HostArray = np.max([np.abs(b).max() for _, b in pairs])
    return float(np.max([np.abs(a - b).max() for a, b in pairs]) / largest)
