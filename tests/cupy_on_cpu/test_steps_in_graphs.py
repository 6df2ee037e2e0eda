"""A training step as a CUDA graph: the same bits as plain steps, few nodes, and what cannot be one trains plainly."""

import contextlib
import gc
import warnings
from concurrent.futures import ThreadPoolExecutor

import cupy
import numpy as np
import pytest

import dlx
from cupy_on_cpu import emulate
from dlx import network
from dlx.backends import _cupy_graph, _cupy_staging

N = 150
X = np.random.default_rng(0).standard_normal((N, 6)).astype("float32")
LABELS = np.random.default_rng(1).integers(0, 3, N)
REAL = X[:, :2] - X[:, 1:3]
TARGETS = {"cross_entropy": LABELS, "binary_cross_entropy": LABELS > 0, "poisson": LABELS, "quantile": REAL[:, :1]}
OUTPUTS = {"cross_entropy": 3, "binary_cross_entropy": 1, "poisson": 1, "quantile": 1}


@pytest.fixture
def plainly(monkeypatch):
    """A function that trains with every step run plainly."""

    def trained(*arguments, **options):
        with monkeypatch.context() as patch:
            patch.setattr(_cupy_graph.Recording, "prepare", lambda self, first, checks: False)
            return dlx.fit(*arguments, **options)

    return trained


def bits(net):
    return [cupy.asnumpy(array).tobytes() for layer in net.params for array in layer], net.history["loss"]


def both(plainly, loss="cross_entropy", layers=(5, 4), X=X, **options):
    """The same training by graphs and plainly: its bits, and how many graphs were launched."""
    y = TARGETS.get(loss, REAL)
    dims = (6, *layers, OUTPUTS.get(loss, 2))
    options = {
        "batch_size": 32,
        "epochs": 4,
        "rng": 0,
        "backend": "cupy",
        "loss": loss,
        "learning_rate": 1e-3,
    } | options
    with emulate.counting() as done:
        graph = dlx.fit(X, y, dims, **options)
    launched = done.graph_launches
    with emulate.counting() as done:
        plain = plainly(X, y, dims, **options)
    assert done.graph_launches == 0
    return bits(graph), bits(plain), launched


def require_same(found):
    graph, plain, launched = found
    assert graph == plain
    assert launched >= 4 * 4 - 2  # the first step of each shape runs plainly


@pytest.mark.parametrize("optimizer", [name for name in dlx.optimizers.OPTIMIZERS if name not in ("lbfgs", "sgd")])
def test_every_optimizer(plainly, optimizer):
    require_same(both(plainly, optimizer=optimizer))


@pytest.mark.parametrize("loss", list(dlx.losses.LOSSES))
def test_every_loss(plainly, loss):
    require_same(both(plainly, loss=loss))


@pytest.mark.parametrize("activation", [n for n in dlx.activations.ACTIVATIONS if n not in ("none", "logistic")])
def test_every_activation(plainly, activation):
    require_same(both(plainly, activation=activation))


@pytest.mark.parametrize(
    "options",
    [
        {"dropout": 0.2},
        {"clip_norm": 0.5, "clip_value": 0.1},
        {"sample_weight": np.linspace(0, 2, N)},
        {"l2": 1e-2, "l1": 1e-3},
        {"optimizer": dlx.adamw(weight_decay=0.1)},
        {"dtype": "float64"},
        {"learning_rate": dlx.schedules.cosine(1e-2)},
        {"validation": 0.2, "patience": 3},
        {"shuffle": False},
        {"batch_size": N, "epochs": 20},
        {"batch_size": 1, "epochs": 1},
        {"layers": ()},
        {"stream": True},
        {"backend": "cupy:1"},
        {"X": (X * 20).astype("int8")},
    ],
    ids=lambda options: " ".join(options),
)
def test_every_option(plainly, options):
    require_same(both(plainly, **options))


@pytest.mark.parametrize("order", ["forks first", "forks last"])
def test_the_branches_of_a_graph_may_run_in_any_order(plainly, order):
    """The loss and the gradients of weights are on a branch of their own."""
    with emulate.replay_order(order):
        require_same(both(plainly, layers=(5, 4, 7), dropout=0.1, l2=1e-3, clip_norm=1.0, epochs=6))


def test_many_networks_side_by_side():
    """A leading axis of three networks: each is the one that trains alone."""
    be, B = dlx.get_backend("cupy"), 3
    net = network.bind(be, "float32", [dlx.activations.tanh()], dlx.losses.cross_entropy())
    update = dlx.optimizers.bind(dlx.adam(), be)
    rng = np.random.default_rng(0)
    start = [[rng.standard_normal((B, *s)).astype("f4") for s in (pair, (1, pair[1]))] for pair in ((6, 5), (5, 3))]
    table = rng.permutation(N)[:96].reshape(3, 32).astype("int32")
    rates = tuple(np.asarray(c) for c in zip(*(dlx.adam().coefficients(t, 1e-2) for t in (1, 2, 3)), strict=True))
    data = be.asarray(X), be.asarray(np.eye(3, dtype="f4")[LABELS])

    def step(carry, constants, inputs):
        numbers, coefficients = inputs
        params, state = carry
        batch = (be.xp.take(part, numbers, axis=0) for part in constants)
        loss, gradients = network.loss_and_gradients(net, params, *batch, None, None)
        return dlx.optimizers.step(update, params, gradients, state, coefficients, None), loss

    def trained(part):
        params = tuple(network.Layer(*(be.asarray(array[part]) for array in layer)) for layer in start)
        carry = params, dlx.optimizers.start(be, dlx.adam(), params)
        outputs = []
        for done, output in be.loop(step, "known")(carry, data, (table, rates), 3):
            carry = done
            outputs.append(output)
        return [array.get() for layer in carry[0] for array in layer], be.outputs_to_host(outputs)

    with emulate.counting() as done:
        together, losses = trained(slice(None))
    assert done.graph_launches == 2
    assert losses.shape == (3, B)
    for k in range(B):
        alone, own = trained(k)
        np.testing.assert_array_equal(losses[:, k], own)
        for a, b in zip(together, alone, strict=True):
            np.testing.assert_allclose(a[k], b.reshape(a[k].shape), rtol=1e-6, atol=1e-7)


# -- what a step asks for --


@pytest.mark.parametrize("layers", [(16,), (16, 12), (16, 12, 12, 8)])
def test_nodes_of_a_step(layers):
    emulate.reset()
    dlx.fit(X, LABELS, (6, *layers, 3), batch_size=50, epochs=2, rng=0, backend="cupy")
    (graph,) = emulate.graphs()
    assert graph.launches == 5
    assert len(graph.nodes) == 5 * (len(layers) + 1)
    assert graph.nodes.count("gemm") == 3 * (len(layers) + 1) - 1
    assert (graph.nodes[0], graph.nodes[-1]) == ("dlx_each", "dlx_each_tick")
    assert not [node for node in graph.nodes if "memcpy" in node]


@pytest.mark.parametrize(("batch_size", "copies"), [(50, 1), (40, 2)])
def test_an_epoch_is_one_copy_each_way(batch_size, copies):
    """A last batch that is shorter has a table of inputs of its own."""
    marks = []
    X_d, y_d = cupy.asarray(X), cupy.asarray(LABELS)
    dlx.fit(
        X_d, y_d, (6, 5, 3), batch_size=batch_size, epochs=4, rng=0,
        callbacks=lambda net: marks.append(emulate.counters()),
    )  # fmt: skip
    epoch = emulate.Counters(*(after - before for after, before in zip(marks[3], marks[2], strict=True)))
    assert (epoch.host_to_device, epoch.device_to_host, epoch.syncs) == (copies, 1, 1)
    assert epoch.graph_launches == -(-N // batch_size)
    assert epoch.launches <= 5 * copies


@pytest.mark.parametrize("selector", ["cupy", "cupy:1"])
def test_nothing_leaks(selector):
    def fits(n):
        for k in range(n):
            dlx.fit(X, LABELS, (6, 5, 3), batch_size=50 - k % 3, epochs=2, rng=k, backend=selector, stream=k % 2 == 0)
        gc.collect()
        for device in (0, 1):
            with cupy.cuda.Device(device):
                cupy.get_default_memory_pool().free_all_blocks()
        cupy.get_default_pinned_memory_pool().free_all_blocks()
        return emulate.live()

    before = fits(10)
    assert fits(200) == before


# -- functions of a user's own --


def own_relu(extra, in_slope=False):
    """ReLU with something else done in it, or in its slope."""

    def f(z):
        if not in_slope:
            extra(z)
        return cupy.maximum(z, 0.0)

    def df(z, a):
        if in_slope:
            extra(z)
        return (z > 0).astype(z.dtype)

    return f, df


def own(extra, in_slope=False, **options):
    options = {"batch_size": 50, "epochs": 3, "rng": 0, "backend": "cupy"} | options
    return dlx.fit(X, LABELS, (6, 5, 3), activation=own_relu(extra, in_slope), **options)


def reference():
    return dlx.fit(X, LABELS, (6, 5, 3), activation="relu", batch_size=50, epochs=3, rng=0, backend="numpy")


def require_close(net):
    for a, b in zip(net.params, reference().params, strict=True):
        np.testing.assert_allclose(cupy.asnumpy(a.W), b.W, rtol=1e-4, atol=1e-6)


def test_a_function_that_asks_for_kernels_only_is_captured():
    with emulate.counting() as done, warnings.catch_warnings():
        warnings.simplefilter("error")
        net = own(lambda z: None)
    assert done.graph_launches == 3 * 3 + 3 * 2  # two more in each epoch are compared with two plain steps
    require_close(net)


HOST = np.ones(5, "float32")
CANNOT = {
    "waits": (lambda z: float(z[0, 0]), "D2H transfers are disallowed"),
    "copies to the host": (lambda z: z.get(), "D2H transfers are disallowed"),
    "waits for all": (lambda z: cupy.cuda.get_current_stream().synchronize(), "CaptureUnsupported"),
    "copies from the host": (lambda z: cupy.asarray(HOST), "H2D transfers are disallowed"),
    "copies from pageable memory": (lambda z: cupy.empty(5, "float32").set(HOST), "H2D transfers are disallowed"),
    "copies": (lambda z: cupy.copyto(cupy.empty_like(z), z), "it copies arrays by other means than a kernel"),
    "calls the host": (lambda z: cupy.cuda.get_current_stream().launch_host_func(print, None), "NoneType"),
}


@pytest.mark.parametrize("in_slope", [False, True])
@pytest.mark.parametrize("name", CANNOT)
def test_what_cannot_be_captured_trains_plainly_after_one_warning(name, in_slope):
    with emulate.counting() as done, pytest.warns(UserWarning, match="CUDA graph") as warned:
        net = own(CANNOT[name][0], in_slope)
    (text,) = {str(warning.message) for warning in warned}
    assert len(warned) == 1
    assert text.startswith("this training is slower, for its steps cannot be captured in a CUDA graph: ")
    assert CANNOT[name][1] in text
    assert text.endswith(
        ". A function of your own must depend on its arrays alone, and must not wait for the device or copy from or to"
        " the host."
    )
    assert done.graph_launches == 0
    require_close(net)
    with warnings.catch_warnings():  # the stream is whole
        warnings.simplefilter("error")
        require_close(dlx.fit(X, LABELS, (6, 5, 3), activation="relu", batch_size=50, epochs=3, rng=0, backend="cupy"))


def test_a_function_that_depends_on_more_than_its_arrays_trains_plainly():
    calls = []

    def f(z):
        calls.append(1)
        return cupy.maximum(z, 0.0) * (1.0 + len(calls) * 1e-3)

    df = lambda z, a: (z > 0).astype(z.dtype)  # noqa: E731
    with pytest.warns(UserWarning, match="two repeated steps gave other numbers"):
        dlx.fit(X, LABELS, (6, 5, 3), activation=(f, df), batch_size=50, epochs=3, rng=0, backend="cupy")


def test_what_changes_between_epochs_is_noticed():
    state = {"slope": cupy.full((1, 1), 0.5, "float32")}

    def train(backend, array):
        state["slope"] = array(np.full((1, 1), 0.5, "float32"))

        def later(net):
            state["slope"] = state["slope"] * 0.9

        own = (lambda z: z * state["slope"]), (lambda z, a: z * 0 + state["slope"])
        how = {"batch_size": 32, "epochs": 4, "rng": 0, "loss": "squared_error", "callbacks": later}
        return dlx.fit(X, REAL, (6, 5, 2), activation=own, backend=backend, **how).history["loss"]

    expected = train("numpy", np.asarray)
    with pytest.warns(UserWarning, match="two repeated steps gave other numbers"):
        np.testing.assert_allclose(train("cupy", cupy.asarray), expected, rtol=1e-5)


@pytest.mark.parametrize("returned", [lambda m: m[::-1], lambda m: m.T if m.shape[0] == m.shape[1] else m, lambda m: m])
def test_an_optimizer_may_return_a_view_of_its_slot(returned):
    def bind(xp):
        def update(w, g, m, rate):
            m += g
            return w - rate * m, returned(m)

        return update

    optimizer = dlx.optimizers.Optimizer("mine", {}, None, 0.0, 1, lambda t, rate: (rate,), bind)
    how = {"batch_size": 50, "epochs": 3, "rng": 0, "optimizer": optimizer, "learning_rate": 1e-2}
    losses = [dlx.fit(X, LABELS, (6, 6, 3), backend=name, **how).history["loss"] for name in ("numpy", "cupy")]
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_an_optimizer_of_ones_own_is_captured_or_not():
    def bound(xp):
        return lambda w, g, lr: (w - lr * g,)

    def on_host(xp):
        return lambda w, g, lr: (w - float(lr) * g,)

    nets = []
    for bind, captured in ((bound, True), (on_host, False)):
        optimizer = dlx.optimizers.Optimizer("mine", {}, None, 0.0, 0, lambda t, rate: (rate,), bind)
        with emulate.counting() as done, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            nets.append(
                dlx.fit(X, LABELS, (6, 5, 3), batch_size=50, epochs=3, rng=0, backend="cupy", optimizer=optimizer)
            )
        assert bool(done.graph_launches) is captured
    expected = dlx.fit(
        X, LABELS, (6, 5, 3), batch_size=50, epochs=3, rng=0, backend="numpy", optimizer=dlx.gradient_descent()
    )
    for net in nets:
        for a, b in zip(net.params, expected.params, strict=True):
            np.testing.assert_allclose(cupy.asnumpy(a.W), b.W, rtol=1e-5, atol=1e-6)


def test_an_error_of_ones_own_function_is_raised_as_it_is():
    calls = []

    def fails(z):
        calls.append(float(z[0, 0]))  # which waits, so that every step is run plainly
        if len(calls) > 30:
            raise RuntimeError("out of ideas")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(RuntimeError, match="out of ideas"):
            own(fails, epochs=50)


# -- streams and threads --


def test_a_callers_stream_waits_for_what_was_launched_before_an_error(monkeypatch):
    be, advance = dlx.get_backend("cupy"), _cupy_graph.Recording.advance

    def step(carry, constants, inputs):
        (x,) = carry
        x += 1
        return (x,), inputs[0] * constants

    def interrupted(self, steps):
        advance(self, steps)
        if self.graph is not None:
            raise KeyboardInterrupt

    monkeypatch.setattr(_cupy_graph.Recording, "advance", interrupted)
    with emulate.asynchronous(), be.scope():
        x = cupy.zeros(4)
        with pytest.raises(KeyboardInterrupt):
            list(be.loop(step, "key")((x,), cupy.ones(()), (np.arange(6.0),), 6))
        np.testing.assert_array_equal(x.get(), 2)


def test_two_threads_train_side_by_side():
    def fit(k):
        return bits(dlx.fit(X, LABELS, (6, 5 + k % 2, 3), epochs=4, batch_size=32, rng=k, backend=f"cupy:{k // 2}"))

    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(fit, range(4)))
    assert together == [fit(k) for k in range(4)]


def test_a_large_batch_is_gathered_by_threads(monkeypatch):
    alone = bits(dlx.fit(X, LABELS, (6, 5, 3), batch_size=64, epochs=3, rng=0, backend="cupy", stream=True))
    monkeypatch.setattr(_cupy_staging, "BYTES_OF_ONE_THREAD", 0)
    for given in (X, X.astype("float64"), np.asfortranarray(X), X[::-1]):
        how = {"batch_size": 64, "epochs": 3, "rng": 0, "backend": "cupy", "dtype": "float32"}
        found = bits(dlx.fit(given, LABELS[:: 1 if given[0, 0] == X[0, 0] else -1], (6, 5, 3), stream=True, **how))
        if given[0, 0] == X[0, 0]:
            assert found == alone
        else:
            assert found == bits(dlx.fit(given, LABELS[::-1], (6, 5, 3), **how))


def test_on_a_stream_of_the_user(plainly):
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        net = dlx.fit(X, LABELS, (6, 5, 3), batch_size=50, epochs=3, rng=0, backend="cupy")
        assert cupy.cuda.get_current_stream() == stream
    again = dlx.fit(X, LABELS, (6, 5, 3), batch_size=50, epochs=3, rng=0, backend="cupy")
    assert bits(net) == bits(again)


@pytest.mark.parametrize("stream", [cupy.cuda.Stream(), cupy.cuda.Stream(non_blocking=True)], ids=["blocking", "not"])
def test_a_stream_that_was_made_the_current_one_stays_it(stream):
    alone = bits(dlx.fit(X, LABELS, (6, 5, 3), epochs=3, rng=0, backend="cupy"))
    stream.use()
    try:
        with emulate.asynchronous():
            assert bits(dlx.fit(X, LABELS, (6, 5, 3), epochs=3, rng=0, backend="cupy")) == alone
        assert cupy.cuda.get_current_stream() == stream
    finally:
        cupy.cuda.Stream.null.use()


def test_ctrl_c_as_a_capture_begins_leaves_the_stream_whole(monkeypatch):
    begin = cupy.cuda.runtime.streamBeginCapture

    def interrupted(*arguments):
        begin(*arguments)
        raise KeyboardInterrupt

    be = dlx.get_backend("cupy")
    step = lambda carry, constants, inputs: ((carry[0] + 1,), inputs[0] * 1.0)  # noqa: E731
    with monkeypatch.context() as patch, be.scope():
        patch.setattr(cupy.cuda.runtime, "streamBeginCapture", interrupted)
        with pytest.raises(KeyboardInterrupt):
            list(be.loop(step, "key")((cupy.zeros(4),), None, (np.arange(6.0),), 6))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dlx.fit(X, LABELS, (6, 5, 3), epochs=3, rng=0, backend="cupy")


def test_a_capture_that_another_thread_spoils_is_tried_again(monkeypatch):
    spoilt, step = [], _cupy_graph.Recording.one_step

    def spoils(self):
        step(self)
        if cupy.cuda.runtime.streamIsCapturing(cupy.cuda.get_current_stream().ptr) and len(spoilt) < 2:
            spoilt.append(1)
            with ThreadPoolExecutor(1) as other, contextlib.suppress(RuntimeError):
                other.submit(cupy.cuda.Device().synchronize).result()

    monkeypatch.setattr(_cupy_graph.Recording, "one_step", spoils)
    with warnings.catch_warnings(), emulate.counting() as done:
        warnings.simplefilter("error")
        dlx.fit(X, LABELS, (6, 5, 3), batch_size=50, epochs=3, rng=0, backend="cupy")
    assert len(spoilt) == 2
    assert done.graph_launches == 8


def test_few_launches_are_on_their_way_at_a_time(monkeypatch):
    """The loop gives the caller a chance to stop, and waits for launches before the last ones."""
    at_once = []
    adapt = _cupy_graph.Loop.adapt
    monkeypatch.setattr(_cupy_graph, "SECONDS", 1e-9)
    monkeypatch.setattr(
        _cupy_graph.Loop, "adapt", lambda self, *launched: (adapt(self, *launched), at_once.append(self.at_once))
    )
    dlx.fit(X, LABELS, (6, 5, 3), batch_size=10, epochs=3, rng=0, backend="cupy")
    assert set(at_once) == {1}
    assert len(at_once) >= 3 * (15 - 2)


# -- products --


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("a", "b"),
    [((3, 4), (4, 5)), ((2, 3, 4), (4, 5)), ((3, 4), (2, 4, 5)), ((2, 1, 3, 4), (1, 6, 4, 5)), ((1, 3, 4), (2, 4, 5))],
)
def test_products_of_stacks_and_views(a, b, dtype):
    """Transposed, strided, reversed and broadcast operands, and axes of length 1 with any stride."""
    be, rng = dlx.get_backend("cupy"), np.random.default_rng(0)
    A, B = rng.standard_normal(a).astype(dtype), rng.standard_normal(b).astype(dtype)
    views = {
        "as it is": lambda x: x,
        "by columns": lambda x: cupy.ascontiguousarray(x.mT).mT,
        "every other": lambda x: cupy.repeat(x, 2, axis=-1)[..., ::2],
        "reversed": lambda x: cupy.ascontiguousarray(x[..., ::-1, :])[..., ::-1, :],
        "in the middle": lambda x: cupy.pad(x, [(0, 0)] * (x.ndim - 2) + [(1, 2), (2, 1)])[..., 1:-2, 2:-1],
        "with an axis of length 1": lambda x: x[None],
    }
    for name, of_a in views.items():
        for other, of_b in views.items():
            x, y = of_a(cupy.asarray(A)), of_b(cupy.asarray(B))
            expected = np.matmul(x.get(), y.get())
            found = be.product(x, y, cupy.full(expected.shape, np.nan, dtype))
            np.testing.assert_allclose(found.get(), expected, rtol=1e-5, atol=1e-6, err_msg=f"{name}, {other}")
            np.testing.assert_array_equal(be.product(x, y).get(), found.get())
