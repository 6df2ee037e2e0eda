"""A training step as few CUDA kernels: NumPy's numbers, few nodes; and what cannot be recorded runs as before."""

import itertools
import re

import cupy
import numpy as np
import pytest
from programs import overlapping, random_step

import dlx
from cupy_on_cpu import emulate
from dlx import network, optimizers
from dlx.backend import InPlace
from dlx.backends import _cuda_values, _cuda_writer, _cupy_kernels
from dlx.backends._table import Layout
from dlx.data import parameters

N = 150
RNG = np.random.default_rng(0)
X = RNG.standard_normal((N, 6))
LABELS = RNG.integers(0, 3, N)
REAL = X[:, :2] - X[:, 1:3]
GAPS = np.where(RNG.random((N, 2)) < 0.2, np.nan, REAL)
WEIGHTS = np.where(np.arange(N) % 7 == 0, 0.0, RNG.random(N) + 0.2)
OWN = {"dlx_each", "dlx_columns", "dlx_rows", "dlx_total", "dlx_fetch"}


@pytest.fixture(autouse=True)
def _no_recipes(monkeypatch):
    monkeypatch.setattr(_cupy_kernels, "_RECIPES", {})


def trained(backend, y=LABELS, outputs=3, layers=(5, 4), X=X, **options):
    options = {"batch_size": 32, "epochs": 3, "rng": 0, "learning_rate": 1e-3, "dtype": "float64"} | options
    net = dlx.fit(X, y, (X.shape[1], *layers, outputs), backend=backend, **options)
    return [np.asarray(net.backend.to_host(array)) for layer in net.params for array in layer], net.history["loss"]


def require_numpys(**options):
    """CuPy's training has NumPy's numbers, and no kernel of a step is CuPy's own."""
    emulate.reset()
    found, losses = trained("cupy", **options)
    graphs = emulate.graphs()
    assert graphs
    for graph in graphs:
        assert set(graph.nodes) <= {"gemm"} | {name for name in graph.nodes if parts(name) <= OWN | {"dlx_tick"}}
    expected, expected_losses = trained("numpy", **options)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-12)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * max(1.0, np.abs(b).max()))


def parts(kernel):
    """The pieces of "dlx_rows_columns": "dlx_rows" and "dlx_columns"."""
    return {f"dlx_{piece}" for piece in kernel.removeprefix("dlx_").split("_")}


@pytest.mark.parametrize("activation", [n for n in dlx.activations.ACTIVATIONS if n not in ("none", "logistic")])
def test_every_activation(activation):
    require_numpys(activation=activation)


@pytest.mark.parametrize(
    ("loss", "y", "outputs"),
    [
        ("squared_error", REAL, 2),
        (dlx.losses.squared_error(half=True), REAL, 2),
        ("absolute_error", REAL, 2),
        ("huber", REAL, 2),
        ("quantile", REAL[:, :1], 1),
        (dlx.losses.quantile([0.1, 0.5, 0.9]), REAL[:, 0], 3),
        ("poisson", LABELS, 1),
        ("binary_cross_entropy", LABELS > 0, 1),
        ("binary_cross_entropy", np.eye(3)[LABELS], 3),
        ("cross_entropy", np.eye(3)[LABELS] * 0.7 + 0.1, 3),
        (dlx.losses.cross_entropy(0.1), LABELS, 3),
    ],
    ids=str,
)
def test_every_loss(loss, y, outputs):
    require_numpys(loss=loss, y=y, outputs=outputs)


@pytest.mark.parametrize("optimizer", [n for n in dlx.optimizers.OPTIMIZERS if n not in ("lbfgs", "sgd")])
def test_every_optimizer(optimizer):
    require_numpys(optimizer=optimizer)


@pytest.mark.parametrize(
    "options",
    [
        {"clip_norm": 0.1},
        {"clip_value": 0.01},
        {"dropout": (0.3, 0.1)},
        {"l2": 1e-2, "l1": 1e-3},
        {"sample_weight": WEIGHTS},
        {"class_weight": "balanced"},
        {"y": GAPS, "outputs": 2, "loss": "squared_error", "missing": "mask"},
        {"optimizer": dlx.adamw(weight_decay=0.1)},
        {"batch_size": N},
        {"batch_size": 1, "epochs": 1},
        {"layers": ()},
        {"layers": (1,)},
        {"layers": (9, 8, 7, 6, 5)},
        {"stream": True},
        {"X": (X * 20).astype("int8")},
        {"X": (X * 20 + 100).astype("uint8")},
        {"X": np.asfortranarray(X)},
        {"X": X > 0},
        {"validation": 0.2, "patience": 2},
        {
            "dropout": 0.2, "clip_norm": 0.1, "clip_value": 0.05, "l2": 1e-3, "l1": 1e-3, "sample_weight": WEIGHTS,
            "optimizer": dlx.nadam(weight_decay=0.01), "activation": "mish",
        },
    ],
    ids=lambda options: " ".join(options),
)  # fmt: skip
def test_every_option(options):
    require_numpys(**options)


def wide(rows, columns, classes):
    X = np.random.default_rng(1).standard_normal((rows, columns))
    return X, np.random.default_rng(2).integers(0, classes, rows)


@pytest.mark.parametrize(
    ("rows", "dims", "options"),
    [
        (600, (100, 300, 200), {"batch_size": 300, "clip_norm": 0.5}),  # no group fits into one block
        (600, (100, 300, 200), {"batch_size": 300, "l1": 1e-3, "dropout": 0.2}),  # totals in two parts
        (9000, (6, 40, 3), {"batch_size": 9000}),  # many rows of few columns, whose sums are made in parts
        (5000, (6, 1), {"batch_size": 5000, "loss": "squared_error"}),
    ],
    ids=["wide", "penalties", "tall", "one column"],
)
def test_every_size(rows, dims, options):
    X, y = wide(rows, dims[0], dims[-1] if dims[-1] > 1 else 5)
    require_numpys(X=X, y=y, layers=dims[1:-1], outputs=dims[-1], epochs=2, **options)


@pytest.mark.parametrize("seed", range(40))
def test_random_trainings(seed):
    draw = np.random.default_rng(seed)
    activations = [n for n in dlx.activations.ACTIVATIONS if n not in ("none", "logistic")]
    options = {
        "activation": str(draw.choice(activations)),
        "layers": tuple(int(k) for k in draw.integers(1, 40, draw.integers(0, 4))),
        "optimizer": str(draw.choice([n for n in dlx.optimizers.OPTIMIZERS if n != "lbfgs"])),
        "batch_size": int(draw.integers(1, 160)),
        "epochs": 2,
        "rng": seed,
    }
    for name, value in {
        "dropout": 0.3, "clip_norm": 0.2, "clip_value": 0.05, "l2": 1e-2, "l1": 1e-3, "sample_weight": WEIGHTS,
    }.items():  # fmt: skip
        if draw.random() < 0.4:
            options[name] = value
    loss, y, outputs = [
        ("cross_entropy", LABELS, 3), ("squared_error", REAL, 2), ("huber", REAL, 2), ("poisson", LABELS, 1),
        ("binary_cross_entropy", LABELS > 0, 1),
    ][draw.integers(5)]  # fmt: skip
    require_numpys(loss=loss, y=y, outputs=outputs, **options)


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
def test_gradients_in_float32_are_as_exact_as_their_sums_allow(activation):
    """One step of gradient descent with rate 1 shows the gradient: within 4 √n eps Σ |terms| of that in float64."""
    how = {"batch_size": N, "epochs": 1, "learning_rate": 1.0, "optimizer": "sgd", "activation": activation, "rng": 3}
    dims = (6, 20, 3)
    hidden, loss = parameters.hidden_activations(activation, 1), dlx.losses.cross_entropy()
    start = dlx.fit(X, LABELS, dims, **how | {"learning_rate": 1e-30}).params
    net = network.bind(dlx.get_backend("numpy"), "float64", hidden, loss)
    exact = tuple(network.Layer(*(array.astype(np.float64) for array in layer)) for layer in start)
    Y = np.eye(3)[LABELS]
    trace = network.forward(net, exact, X.astype("float32").astype(float))
    delta = network.mean_delta(net.loss.delta(trace.Zs[-1], Y), None)
    found = dlx.fit(X, LABELS, dims, backend="cupy", **how).params
    for l, layer_delta in network.deltas(net, exact, trace, delta):
        A = trace.As[l]
        for gradient, sizes, before, after in (
            (A.T @ layer_delta, np.abs(A).T @ np.abs(layer_delta), exact[l].W, found[l].W.get()),
            (layer_delta.sum(0), np.abs(layer_delta).sum(0), exact[l].b, found[l].b.get()),
        ):
            error = np.abs(before - after - gradient)
            bound = 4 * np.sqrt(N) * np.finfo("f4").eps * sizes + np.spacing(np.abs(before).astype("f4"))
            assert (error <= bound).all()


# -- recorded functions --


def steps_of(run, kept, inputs=(), dtype="float32"):
    """A step in place of the arrays `kept`, recorded."""
    step = InPlace(run, kept, lambda backend: run)
    layout = Layout(inputs, np.dtype(dtype))
    table = cupy.asarray(layout.words(inputs, 4))
    row = cupy.zeros(layout.width, cupy.int32)
    special = {"table": table, "counter": cupy.zeros(1, cupy.int32), "row": row, "place": row}
    carry = (kept[0],)
    return _cupy_kernels.steps_of(step, carry, None, layout, special, False)


@pytest.mark.parametrize("name", [n for n in dlx.optimizers.OPTIMIZERS if n not in ("lbfgs", "sgd")])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_equal_gradients_give_equal_updates_to_the_bit(name, dtype):
    optimizer = dlx.optimizers.get(name)
    draw = np.random.default_rng(0)
    host = [draw.standard_normal(40).astype(dtype), draw.standard_normal(40).astype(dtype)]
    host += [np.abs(draw.standard_normal(40)).astype(dtype) for _ in range(optimizer.slots)]
    device = tuple(map(cupy.asarray, host))
    columns = tuple(np.asarray([c] * 4) for c in optimizer.coefficients(3, 1e-2))
    numbers = [float(np.float32(column[0])) for column in columns]

    def run(kept, carry, constants, inputs):
        loss = np.add.reduce(kept[1] * kept[1], axis=-1)
        optimizers.bind(optimizer, dlx.get_backend("numpy"))(*kept, *inputs)
        return carry, loss

    recorded = steps_of(run, device, columns)
    assert recorded is not None
    recorded.run()
    optimizers.bind(optimizer, dlx.get_backend("numpy"))(*host, *numbers)
    for a, b in zip(device, host, strict=True):
        np.testing.assert_array_equal(a.get(), b)


def test_a_maximum_keeps_what_is_not_a_number():
    x = cupy.asarray([[1.0, np.nan, 3.0], [2.0, 5.0, -1.0]], dtype="float32")

    def run(kept, carry, constants, inputs):
        z = kept[0]
        z += np.maximum.reduce(z, axis=-1, keepdims=True)
        z += np.maximum(z, 6.0) + np.minimum(z, 0.5)
        return carry, np.add.reduce(z, axis=(-2, -1))

    expected = x.get()
    run((expected,), None, None, None)
    steps_of(run, (x,)).run()
    np.testing.assert_array_equal(x.get(), expected)


def test_memory_that_overlaps_is_read_and_written_in_order():
    """Of 130 random programs many are refused, as they use values whose sources are gone; no other may be wrong."""
    run = 0
    for seed in range(130):
        host, inputs = overlapping(seed, "float64"), (np.full(4, 0.5),)
        v, w, b = (cupy.asarray(host[k]) for k in (0, 1, 3))
        rows, columns = host[4].shape
        device = v, w, w[: 2 * rows * columns], b, *v.reshape(3, rows, columns)
        recorded = steps_of(random_step(seed), device, inputs, "float64")
        if recorded is None:
            continue
        recorded.run()
        with np.errstate(all="ignore"):
            _, loss = random_step(seed)(host, (), (), (0.5,))
        np.testing.assert_allclose(recorded.arrays["outputs"].get()[0], loss, rtol=1e-9, err_msg=str(seed))
        for x, y in zip(device, host, strict=True):
            np.testing.assert_allclose(x.get(), y, rtol=1e-9, atol=1e-12, err_msg=str(seed))
        run += 1
    assert run > 15


def test_what_is_written_while_others_read_it_is_not_recorded():
    """A row is added to all rows of a matrix of which it is a part."""
    x = cupy.ones((3, 4), dtype="float32")

    def run(kept, carry, constants, inputs):
        z = kept[0]
        z += z[:1]
        return carry, np.add.reduce(z, axis=(-2, -1))

    assert steps_of(run, (x,)) is None


def test_wrong_kernels_are_seen(monkeypatch):
    formula = _cuda_writer.CudaWriter.formula

    def wrong(self, node, terms):
        return formula(self, node, terms[::-1] if node.op is np.subtract else terms)

    monkeypatch.setattr(_cuda_writer.CudaWriter, "formula", wrong)
    with pytest.raises(AssertionError):
        require_numpys()


# -- what is not recorded --


@pytest.mark.parametrize(
    "options", [{"activation": (lambda z: z * z, lambda z, a: 2 * z)}, {"optimizer": "lbfgs"}], ids=["own", "L-BFGS"]
)
def test_others_train_as_ever(options):
    emulate.reset()
    found, _ = trained("cupy", **options)
    assert not any(
        parts(name) <= OWN | {"dlx_tick"} for graph in emulate.graphs() for name in graph.nodes if "_" in name[4:]
    )
    for a, b in zip(found, trained("numpy", **options)[0], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_arrays_whose_elements_have_no_32_bit_numbers_are_not_recorded(monkeypatch):
    monkeypatch.setattr(_cuda_values, "MOST_ELEMENTS", 100)
    emulate.reset()
    found, _ = trained("cupy")
    assert {graph.nodes[-1] for graph in emulate.graphs()} == {"dlx_store"}
    for a, b in zip(found, trained("numpy")[0], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_arrays_that_are_not_contiguous_are_not_recorded():
    def run(kept, carry, constants, inputs):
        z = kept[0]
        z *= 2.0
        return carry, np.add.reduce(z, axis=(-2, -1))

    big = cupy.ones((4, 6))
    assert steps_of(run, (big.copy(),), dtype="float64") is not None
    for view in (big[:, 1:4], big[:, ::2], big[::-1], big[:, ::-1], big.T):
        assert steps_of(run, (view,), dtype="float64") is None


# -- sources and memory --


def test_large_blocks_are_told_to_the_compiler():
    """Else it may give a thread more registers than 1024 of them find; on Hopper these kernels had 72 to 92."""
    net = dlx.fit(X, LABELS, (6, *[8] * 20, 3), dtype="float64", epochs=1, rng=0, backend="cupy", l2=1e-3)
    found = 0
    for batch_size in (1, 64, 1000):
        text = net.explain(batch_size=batch_size)
        threads = dict(re.findall(r"^// \d+: (dlx_\w+)\(.*\) by \d+ x (\d+) threads", text, re.M))
        for bounds, name in re.findall(r'extern "C" (__launch_bounds__\(1024\) )?__global__ void (\w+)', text):
            assert bool(bounds) >= (int(threads[name]) > 256)
            found += bool(bounds)
    assert found > 3


def test_deep_networks_with_penalties():
    """The totals of many layers are shared out over kernels."""
    require_numpys(layers=(3,) * 40, l1=1e-3, l2=1e-3, activation="tanh", batch_size=40, epochs=1)


def test_equal_groups_of_other_networks_have_equal_kernels():
    known = []
    _cupy_kernels._kernel.cache_clear()

    def sources():
        known.append(_cupy_kernels._kernel.cache_info().misses)

    sources()
    trained("cupy", layers=(11, 9), activation="selu")
    sources()
    trained("cupy", layers=(12, 9, 16), activation="selu", batch_size=29)  # another depth, other sizes
    sources()
    compiled = [b - a for a, b in itertools.pairwise(known)]
    assert compiled[0] > 0
    assert compiled[1] == 0


def test_a_step_is_recorded_once_for_many_fits(monkeypatch):
    """Of other numbers it is another one."""
    recorded, record = [], _cupy_kernels.record
    monkeypatch.setattr(_cupy_kernels, "record", lambda *given: (recorded.append(1), record(*given))[1])
    model = dlx.MLPClassifier((5, 4), backend="cupy", batch_size=32, random_state=0, dropout=0.2)
    for _ in range(5):
        model.partial_fit(X, LABELS, classes=[0, 1, 2])
    assert len(recorded) == 2  # batches of 32, and the last one
    for options in ({"l2": 1e-3}, {"l2": 2e-3}, {"l2": 1e-3}, {"clip_norm": 0.1}, {"clip_norm": 0.2}, {"dropout": 0.1}):
        require_numpys(batch_size=N, **options)
    assert len(recorded) == 2 + 5
    for data in (X, X[:, ::-1], np.asfortranarray(X)):
        require_numpys(X=data, l2=1e-3)


def test_buffers_share_memory():
    """A deep network needs no more than the outputs of its layers and a few buffers."""
    shapes = []

    def laid_out(buffers, block_of):
        arrays = original(buffers, block_of)
        shapes.append((arrays, buffers))
        return arrays

    original = _cupy_kernels.laid_out
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_cupy_kernels, "laid_out", laid_out)
        trained("cupy", layers=(64,) * 8, batch_size=N)
    arrays, buffers = shapes[0]
    blocks = {array.data.mem.ptr for array in arrays.values()}
    assert len(blocks) < len(buffers) * 0.75


def test_a_checkpoint_of_steps_without_kernels_goes_on_with_a_warning(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(_cupy_kernels, "KIND", {})
        patch.setattr(_cupy_kernels, "steps_of", lambda *arguments: None)
        trained("cupy", checkpoint=tmp_path)
    with pytest.warns(UserWarning, match="steps was single formulas and is kernels of kind 1 now"):
        trained("cupy", checkpoint=tmp_path, epochs=4)


def test_a_network_explains_its_kernels():
    """All that a captured step is made of, in its order, by name."""
    emulate.reset()
    net = dlx.fit(X, LABELS, (6, 5, 3), batch_size=50, epochs=2, rng=0, backend="cupy")
    (graph,) = emulate.graphs()
    text = net.explain(batch_size=50)
    calls = re.findall(r"^// \d+: (.*)", text, re.M)
    assert ["gemm" if "@" in call else call.partition("(")[0] for call in calls] == list(graph.nodes)
    assert text.count('extern "C"') == len([call for call in calls if "@" not in call])
    assert "v1 = X[rows]" in text
    assert "// 9: dlx_each_tick(row, outputs, counter, m11, m12, m13, m14, t8)" in text
    assert "m14 own.vector" in text
    assert "coefficients[0]" in text
