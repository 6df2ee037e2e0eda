"""The small pieces of a step, by pytest-benchmark; a plain `pytest` does not collect this file.

pytest tests/benchmarks/pieces.py --benchmark-columns=median,iqr
"""

import host  # noqa: F401, before NumPy
import numpy as np
import pytest
from contenders import numpy_that
from items import ITEMS, data, start

from dlx import activations, losses, network, optimizers, schedules
from dlx.data import features as rows, parameters, targets
from dlx.training import flat, steps

BACKENDS = {"blocks": numpy_that(False), "compiled": numpy_that(True)}


@pytest.fixture(params=BACKENDS)
def be(request):
    return BACKENDS[request.param]


@pytest.fixture(params="AC")
def item(request):
    return ITEMS[request.param]


@pytest.mark.parametrize("size", [6_000, 200_000, 6_000_000])
@pytest.mark.parametrize("name", ["gradient_descent", "adam", "lion"])
def test_update(name, size, be, benchmark):
    optimizer = optimizers.OPTIMIZERS[name]()
    update = optimizers.bind(optimizer, be)
    w, g, *slots = (np.full(size, 0.1, np.float32) for _ in range(2 + optimizer.slots))
    benchmark(lambda: update(w, g, *slots, *optimizer.coefficients(1, 1e-3)))


@pytest.mark.parametrize("shape", [(32, 64), (128, 256), (512, 2048)], ids=str)
@pytest.mark.parametrize("name", ["relu", "gelu", "silu", "tanh"])
def test_hidden_layer_and_back(name, shape, be, benchmark):
    hidden = network.bind_hidden(activations.get(name), be)
    Z, b = np.full(shape, 0.1, np.float32), np.zeros((1, shape[1]), np.float32)

    def both():
        z, a = hidden.activate(Z, b)
        hidden.chain(z, z, a)

    benchmark(both)


@pytest.mark.parametrize("name", ["cross_entropy", "binary_cross_entropy", "squared_error"])
def test_loss(name, be, benchmark):
    _, both = network.bind_loss(losses.get(name), be, "float32")
    Z, Y = np.full((128, 10), 0.5, np.float32), np.eye(10, dtype=np.float32)[np.arange(128) % 10]
    benchmark(lambda: both(Z, Y))


def test_gather(item, benchmark):
    X, y = data(item)
    target = targets.check(y, losses.cross_entropy(), item.dims[-1], len(y))
    samples = targets.place(target, None, X, BACKENDS["blocks"], "float32")
    order = np.random.default_rng(0).permutation(len(y)).astype(np.int32)[: item.batch]
    benchmark(lambda: rows.gather(BACKENDS["blocks"].xp, samples, order, np.float32))


def test_step(item, be, benchmark):
    X, y = data(item)
    loss, optimizer = losses.cross_entropy(), optimizers.adam()
    hidden = parameters.hidden_activations("relu", len(item.dims) - 2)
    target = targets.check(y, loss, item.dims[-1], len(y))
    samples = targets.place(target, None, X, be, "float32")
    task = steps.Task(be, network.bind(be, "float32", hidden, loss), "float32", samples, None)
    settings = steps.Settings(optimizer, schedules.constant(1e-3), item.batch, 1, True, None, None, None)
    params = tuple(network.Layer(W, b[None, :]) for W, b in start(item))
    step, carry = steps.make_step(task, settings, params)
    order = np.random.default_rng(0).permutation(len(y)).astype(np.int32)[: item.batch]
    benchmark(lambda: step(carry, samples, steps.Inputs(order, None, optimizer.coefficients(1000, 1e-3), None)))


def test_parameters_together(item, be, benchmark):
    params = tuple(network.Layer(W, b[None, :]) for W, b in start(item))
    benchmark(lambda: flat.together(be, params))
