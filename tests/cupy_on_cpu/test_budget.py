"""What a training step may ask of a GPU: launches, products, copies, waits.

A small step is bound by launches and waits, not by arithmetic; both can be counted without a GPU.
"""

from itertools import pairwise

import cupy
import numpy as np
import pytest

import dlx
from cupy_on_cpu import emulate
from dlx import losses, network, schedules
from dlx.data import parameters, targets
from dlx.training import steps

DIMS = {2: (20, 16, 3), 3: (20, 16, 12, 3), 5: (20, 16, 12, 12, 8, 3)}
BATCH = 60


def one_step(layers, **options):
    """A function that makes one update: Adam, ReLU, cross-entropy, data on the device."""
    rng, dims = np.random.default_rng(0), DIMS[layers]
    be = dlx.get_backend("cupy")
    loss = losses.cross_entropy()
    X = be.asarray(rng.standard_normal((300, dims[0])), "float32")
    target = targets.check(rng.integers(0, dims[-1], 300), loss, dims[-1], 300)
    rows = targets.place(target, None, X, be, "float32")
    hidden = parameters.hidden_activations("relu", layers - 1)
    net = network.bind(be, "float32", hidden, loss, **options)
    pairs = [(rng.standard_normal((a, b)), np.zeros((1, b))) for a, b in pairwise(dims)]
    params = tuple(network.Layer(be.asarray(W, "float32"), be.asarray(b, "float32")) for W, b in pairs)
    optimizer = dlx.adam()
    task = steps.Task(be, net, "float32", rows, None)
    settings = steps.Settings(optimizer, schedules.constant(1e-3), BATCH, 1, True, None, None, None)
    step, carry = steps.make_step(task, settings, params)
    numbers = be.row_numbers(np.arange(300), 300)[:BATCH]
    keys = (-7,) * (layers - 1) if options.get("dropout") else None
    return lambda: step(carry, rows, steps.Inputs(numbers, keys, optimizer.coefficients(1, 1e-3), None))


def over_budget(done, layers):
    """What of it a step of so many layers may not ask for."""
    budget = {"launches": 3 * layers + 14, "gemms": 3 * layers - 1}
    budget |= dict.fromkeys(("host_to_device", "device_to_host", "device_to_device", "syncs", "foreign"), 0)
    return {name: getattr(done, name) for name, most in budget.items() if getattr(done, name) > most}


def counted(step):
    step()  # compiles
    with emulate.counting() as done:
        step()
    return done


@pytest.mark.parametrize("layers", DIMS)
def test_a_step_keeps_its_budget(layers):
    done = counted(one_step(layers))
    assert over_budget(done, layers) == {}
    assert done.gemms == 3 * layers - 1
    assert done.kernels["dlx_adam"] == 1  # of all parameters


def test_a_wait_in_a_step_is_over_budget(monkeypatch):
    mean_loss = network.mean_loss
    monkeypatch.setattr(network, "mean_loss", lambda *arguments: float(mean_loss(*arguments)))
    assert over_budget(counted(one_step(2)), 2) == {"device_to_host": 1, "syncs": 1}


def test_a_plain_optimizer_is_over_budget(monkeypatch):
    monkeypatch.setattr(type(dlx.get_backend("cupy")), "fuse", lambda self, function, name: function)
    assert "launches" in over_budget(counted(one_step(2)), 2)


@pytest.mark.parametrize("options", [{"dropout": (0.1,)}, {"l2": 1e-3, "l1": 1e-3}], ids=["dropout", "penalties"])
def test_other_steps_copy_nothing_and_wait_for_nothing(options):
    done = counted(one_step(2, **options))
    assert set(over_budget(done, 2)) <= {"launches"}


def test_a_mask_of_dropout_is_one_kernel():
    step = counted(one_step(3, dropout=(0.1, 0.2)))
    assert step.kernels["dlx_dropout"] == 2


def test_an_epoch_is_one_copy_each_way():
    X = np.random.default_rng(0).standard_normal((300, 20)).astype("float32")
    y = np.random.default_rng(1).integers(0, 3, 300)
    marks = []
    dlx.fit(
        cupy.asarray(X), cupy.asarray(y), DIMS[2], batch_size=BATCH, epochs=3, rng=0,
        callbacks=lambda net: marks.append(emulate.counters()),
    )  # fmt: skip
    epoch = emulate.Counters(*(after - before for after, before in zip(marks[2], marks[1], strict=True)))
    assert (epoch.host_to_device, epoch.device_to_host, epoch.syncs) == (1, 1, 1)  # the permutation, the losses
    assert epoch.launches <= 300 / BATCH * (3 * 2 + 14)


def test_a_fit_on_device_1_stays_there():
    X = np.random.default_rng(0).standard_normal((300, 20)).astype("float32")
    y = np.random.default_rng(1).integers(0, 3, 300)
    with emulate.counting() as done:
        net = dlx.fit(X, y, DIMS[2], epochs=2, dropout=0.1, validation=0.2, patience=1, rng=0, backend="cupy:1")
        predicted = net.predict(X[:5])
    assert (done.foreign, done.device_to_device) == (0, 0)
    assert {each.device.id for layer in net.params for each in layer} == {1}
    assert isinstance(predicted, np.ndarray)
    with cupy.cuda.Device(1):
        there = net.predict(cupy.asarray(X[:5]))
    assert there.device.id == 1
    assert cupy.cuda.runtime.getDevice() == 0
    np.testing.assert_array_equal(predicted, there.get())
