"""CuPy's training step as a CUDA graph on a real device. tests/cupy_on_cpu has the tests that need none."""

import gc
import warnings

import numpy as np
import pytest

import dlx
from conftest import GPUS

pytestmark = pytest.mark.gpu
X = np.random.default_rng(0).standard_normal((330, 20)).astype("float32")
LABELS = np.random.default_rng(1).integers(0, 3, 330)
HOW = {
    "plain": {},
    "dropout and penalties": {"dropout": 0.2, "l2": 1e-2, "l1": 1e-3},
    "clipped": {"clip_norm": 0.5, "clip_value": 0.1},
    "weights": {"sample_weight": np.linspace(0, 2, 330)},
    "decay": {"optimizer": dlx.adamw(weight_decay=0.1)},
    "a schedule": {"learning_rate": dlx.schedules.cosine(1e-2)},
    "validation": {"validation": 0.2, "patience": 3},
    "float64": {"dtype": "float64"},
    "stream": {"stream": True},
    "integers": {"X": (X * 20).astype("int8")},
    "one batch": {"batch_size": 330, "epochs": 20},
}


def trained(X=X, **options):
    options = {"batch_size": 64, "epochs": 5, "rng": 0, "backend": "cupy"} | options
    net = dlx.fit(X, LABELS, (20, 16, 12, 3), **options)
    return [np.asarray(net.backend.to_host(array)) for layer in net.params for array in layer], net.history["loss"]


if "cupy" in GPUS:
    import cupy

    from dlx.backends import _cupy_capture, _cupy_graph

    @pytest.mark.parametrize("how", HOW.values(), ids=HOW)
    def test_a_graph_trains_as_its_step(how, monkeypatch):
        launches, launch = [], _cupy_capture.Graph.launch
        monkeypatch.setattr(_cupy_capture.Graph, "launch", lambda self: (launches.append(1), launch(self))[1])
        graph, losses = trained(**how)
        assert len(launches) > 10
        monkeypatch.setattr(_cupy_graph.Recording, "prepare", lambda self, first, checks: False)
        plain, plain_losses = trained(**how)
        assert losses == plain_losses
        for a, b in zip(graph, plain, strict=True):
            np.testing.assert_array_equal(a, b)

    @pytest.mark.parametrize("non_blocking", [False, True])
    def test_a_graph_on_a_stream_of_the_users_own(non_blocking):
        with cupy.cuda.Stream(non_blocking=non_blocking):
            own, _ = trained()
        for a, b in zip(own, trained()[0], strict=True):
            np.testing.assert_array_equal(a, b)

    @pytest.mark.parametrize("extra", [lambda z: float(z[0, 0]), lambda z: cupy.asarray(np.ones(3)), lambda z: z.get()])
    def test_a_users_function_that_a_graph_refuses_trains_plainly(extra):
        def f(z):
            extra(z)
            return cupy.maximum(z, 0.0)

        own = f, lambda z, a: (z > 0).astype(z.dtype)
        with pytest.warns(UserWarning, match="cannot be captured in a CUDA graph"):
            weights, _ = trained(activation=own, learning_rate=1e-3)
        with warnings.catch_warnings():  # the device is whole
            warnings.simplefilter("error")
            expected, _ = trained(activation="relu", learning_rate=1e-3)
        for a, b in zip(weights, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)

    def test_two_hundred_fits_leave_no_memory():
        def used():
            gc.collect()
            cupy.get_default_memory_pool().free_all_blocks()
            return cupy.cuda.runtime.memGetInfo()[0]

        for _ in range(20):
            trained(epochs=2)
        before = used()
        for k in range(180):
            trained(epochs=2, batch_size=64 - k % 3)
        assert used() >= before - (64 << 20)  # other processes may use the device too
