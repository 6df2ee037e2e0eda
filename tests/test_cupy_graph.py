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

    from dlx.backend import InPlace
    from dlx.backends import _cupy_capture, _cupy_graph, _cupy_kernels
    from dlx.backends._table import Layout

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

    @pytest.mark.parametrize("how", HOW.values(), ids=HOW)
    def test_kernels_have_the_numbers_of_single_formulas(how, monkeypatch):
        """In float64 the two differ by the order of their sums alone."""
        found, losses = trained(**how | {"dtype": "float64"})
        monkeypatch.setattr(_cupy_kernels, "steps_of", lambda *arguments: None)
        expected, expected_losses = trained(**how | {"dtype": "float64"})
        np.testing.assert_allclose(losses, expected_losses, rtol=1e-11)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-11 * max(1.0, np.abs(b).max()))

    @pytest.mark.parametrize("name", [n for n in dlx.optimizers.OPTIMIZERS if n not in ("lbfgs", "sgd")])
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_equal_gradients_give_equal_updates_to_the_bit(name, dtype):
        """To those of NumPy: no operation is contracted with another."""
        optimizer, rng = dlx.optimizers.get(name), np.random.default_rng(0)
        host = [rng.standard_normal(1000).astype(dtype) for _ in range(2)]
        host += [np.abs(rng.standard_normal(1000)).astype(dtype) for _ in range(optimizer.slots)]
        device = tuple(map(cupy.asarray, host))
        columns = tuple(np.asarray([np.dtype(dtype).type(c)], float) for c in optimizer.coefficients(3, 1e-2))
        layout = Layout(columns, np.dtype(dtype))
        table, row = cupy.asarray(layout.words(columns, 1)), cupy.zeros(layout.width, cupy.int32)

        def on(backend):
            def run(kept, carry, constants, inputs):
                loss = np.add.reduce(kept[1] * kept[1], axis=-1)
                dlx.optimizers.bind(optimizer, backend)(*kept, *inputs)
                return carry, loss

            return run

        step = InPlace(on(None), device, on)
        special = {"table": table, "counter": cupy.zeros(1, cupy.int32), "row": row, "place": row}
        _cupy_kernels.steps_of(step, (device[0],), None, layout, special, False).run()
        dlx.optimizers.bind(optimizer, dlx.get_backend("numpy"))(*host, *(float(column[0]) for column in columns))
        for a, b in zip(device, host, strict=True):
            np.testing.assert_array_equal(a.get(), b)

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
        # Other processes may use the device too. Graphs that were not freed would hold 64 MiB each, 11 GiB in all.
        assert used() >= before - (2 << 30)
