"""PyTorch's training step as a graph that is replayed: on a CPU by a recorder that calls the step again."""

import contextlib
import itertools
import math
import time

import numpy as np
import pytest

import dlx
from conftest import GPUS, INSTALLED
from dlx import activations, losses, network, optimizers
from dlx.training import steps

pytestmark = pytest.mark.skipif("torch" not in INSTALLED, reason="PyTorch is not installed")
RNG = np.random.default_rng(7)
X, LABELS = RNG.standard_normal((70, 5)), np.arange(70) % 3
TARGETS = np.stack([X[:, 0] - X[:, 1] ** 2, np.tanh(X[:, 2]), X[:, 3]], axis=1)
OPTIMIZERS = sorted(set(optimizers.OPTIMIZERS) - {"lbfgs", "sgd"})
LOSSES = {
    "squared_error": ("squared_error", TARGETS),
    "absolute_error": ("absolute_error", TARGETS),
    "huber": ("huber", TARGETS),
    "quantile": ("quantile", TARGETS),
    "quantiles": (losses.quantile([0.1, 0.5, 0.9]), np.repeat(TARGETS[:, :1], 3, axis=1)),
    "poisson": ("poisson", np.abs(TARGETS).round()),
    "binary_cross_entropy": ("binary_cross_entropy", (TARGETS > 0) * 1.0),
    "cross_entropy": ("cross_entropy", LABELS),
    "smoothed": (losses.cross_entropy(0.1), LABELS),
}
ADAM = dlx.adam(1e-2)
HOW = {  # what may stand in a step, beside each optimizer, activation and loss
    "plain": {},
    "dropout": {"dropout": 0.3},
    "clipped": {"clip_norm": 0.1, "clip_value": 0.05},
    "weights": {"sample_weight": 1.0 + np.arange(70) % 3},
    "penalties": {"l1": 1e-3, "l2": 1e-2},
    "decay": {"optimizer": dlx.adamw(1e-2, weight_decay=0.1), "dropout": (0.2, 0.0)},
    "schedule": {"learning_rate": dlx.schedules.cosine(1e-2)},
    "ragged": {"batch_size": 16},
    "all rows": {"batch_size": None, "epochs": 8},
    "no hidden layer": {"layer_dims": (5, 3)},
    "validated": {"validation": 0.2, "patience": 2, "epochs": 6},
    "float64": {"dtype": "float64", "dropout": 0.2},
    "streamed": {"stream": True, "batch_size": 16},
    "own activation": {"activation": (lambda z: z * z, lambda z, a: 2.0 * z), "learning_rate": 1e-3},
    "own loss": {"loss": (lambda Z, Y: ((Z - Y) ** 2).sum(-1, keepdims=True), lambda Z, Y: 2.0 * (Z - Y))},
}


class Repeats:
    """A recorder that calls the function again, as a replay would do its work again; it counts."""

    def __init__(self):
        self.records, self.replays, self.waits = 0, 0, 0

    def record(self, function):
        self.records += 1

        def replay():
            self.replays += 1
            function()

        return replay

    def mark(self):
        def wait():
            self.waits += 1

        return wait


@pytest.fixture
def recorder(monkeypatch):
    """A recorder for the CPU."""
    from dlx.backends._torch import TorchBackend

    fake = Repeats()
    monkeypatch.setattr(TorchBackend, "recorder", lambda self: fake)
    return fake


def fitted(backend, y=TARGETS, layer_dims=(5, 9, 8, 3), **how):
    how = {"batch_size": 14, "epochs": 3, "rng": 0, "dtype": "float32", **how}
    return dlx.fit(X.astype(how["dtype"]), y, layer_dims, backend=backend, **how)


def all_of(net):
    """All numbers that a fit leaves, as bytes."""
    weights = [np.asarray(w.cpu() if hasattr(w, "cpu") else w).tobytes() for layer in net.params for w in layer]
    return weights, {name: np.asarray(figures).tobytes() for name, figures in net.history.items() if name != "seconds"}


def assert_same_as_plain(monkeypatch, backend="torch:cpu", y=TARGETS, **how):
    """To the last bit, the figures of the history too."""
    from dlx.backends._torch import TorchBackend

    replayed = all_of(fitted(backend, y, **how))
    with monkeypatch.context() as plain:
        plain.setattr(TorchBackend, "recorder", lambda self: None)
        assert replayed == all_of(fitted(backend, y, **how))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_is_replayed(recorder, monkeypatch, optimizer):
    assert_same_as_plain(monkeypatch, optimizer=optimizer, learning_rate=1e-2)
    assert recorder.records == 1
    assert recorder.replays == 3 * 5 - 1


@pytest.mark.parametrize("activation", sorted(set(activations.ACTIVATIONS) - {"none", "logistic"}))
def test_every_activation_is_replayed(recorder, monkeypatch, activation):
    assert_same_as_plain(monkeypatch, activation=activation)
    assert recorder.replays == 14


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_is_replayed(recorder, monkeypatch, loss):
    assert_same_as_plain(monkeypatch, y=LOSSES[loss][1], loss=LOSSES[loss][0])
    assert recorder.replays == 14


@pytest.mark.parametrize("how", HOW)
def test_every_kind_of_training_is_replayed(recorder, monkeypatch, how):
    assert_same_as_plain(monkeypatch, **HOW[how])
    assert (recorder.replays == 0) == (how == "streamed")


def test_a_ragged_batch_has_a_graph_of_its_own_from_the_second_epoch_on(recorder):
    fitted("torch:cpu", batch_size=16, epochs=4)
    assert recorder.records == 2
    assert recorder.replays == (4 * 4 - 1) + (4 - 1)


def test_one_batch_of_all_rows_is_recorded_in_the_third_epoch(recorder):
    """When its arrays come again, a step runs plainly first."""
    fitted("torch:cpu", batch_size=None, epochs=6)
    assert recorder.records == 1
    assert recorder.replays == 4


def test_a_training_goes_on_within_an_epoch(recorder, tmp_path):
    """Checkpoints after every second update, and one that a fit goes on from."""
    how = {"batch_size": 10, "rng": 3, "dropout": 0.2}
    whole = fitted("torch:cpu", epochs=4, **how)
    with pytest.raises(Stop):
        fitted("torch:cpu", epochs=4, checkpoint=tmp_path, checkpoint_every=2, callbacks=stop_after(2), **how)
    found = fitted("torch:cpu", epochs=4, checkpoint=tmp_path, checkpoint_every=2, **how)
    assert all_of(found)[0] == all_of(whole)[0]


class Stop(Exception):
    """Ends a fit."""


def stop_after(epochs):
    def callback(net):
        if len(net.history["loss"]) == epochs:
            raise Stop

    return callback


class Queue(Repeats):
    """A recorder whose device is as slow as a replay's seconds say; it notes how far the host was ahead."""

    def __init__(self, seconds):
        super().__init__()
        self.seconds, self.launched, self.reached, self.ahead = seconds, 0, 0, 0

    def record(self, function):
        replay = super().record(function)

        def launch():
            self.launched += 1
            self.ahead = max(self.ahead, self.launched - self.reached)
            replay()

        return launch

    def mark(self):
        place = self.launched

        def wait():
            time.sleep(max(0, place - self.reached) * self.seconds)
            self.reached = max(self.reached, place)

        return wait


def looped(recorder, count, first=0, most=None, shape=()):
    """What a loop yields that adds up the numbers of its inputs: positions and outputs."""
    import torch

    from dlx.backends import _torch_graph

    def step(carry, constants, inputs):
        (total,), (number, row, nothing) = carry, inputs
        assert nothing is None
        total += number * constants
        return (total,), torch.ones(shape) * number + row[1]

    inputs = np.arange(count) * 0.5, np.arange(2 * count).reshape(count, 2), None
    carry, constants = (torch.zeros(()),), torch.tensor(2.0)
    run = _torch_graph.loop(step, dlx.get_backend("torch:cpu").loop(step), recorder, trusted=True)
    parts = [(float(after[0]), outputs) for after, outputs in run(carry, constants, inputs, count, first, most)]
    assert after_all(parts) == float(np.arange(first, count).sum())
    outputs = torch.cat([each for _, each in parts])
    expected = np.arange(first, count) * 0.5 + np.arange(count)[first:] * 2 + 1
    np.testing.assert_array_equal(
        outputs.numpy(), np.broadcast_to(expected.reshape(-1, *[1] * len(shape)), outputs.shape)
    )
    assert outputs.shape == (count - first, *shape)
    return [len(each) for _, each in parts]


def after_all(parts):
    """The carry of the last part."""
    return parts[-1][0]


def test_a_loop_yields_at_most_so_many_steps():
    assert max(looped(Repeats(), 40, most=3)) == 3
    assert looped(Repeats(), 20, first=13, most=1) == [1] * 7
    assert looped(Repeats(), 2, first=1) == [1]
    assert max(looped(Repeats(), 500)) >= 64


def test_a_loop_of_many_networks_yields_a_row_for_each_step():
    looped(Repeats(), 20, shape=(3,))


def test_the_host_is_at_most_two_chunks_ahead(monkeypatch):
    """On a device that needs 4 ms for a step, with chunks of 20 ms: 5 steps, or twice as many while they grow."""
    monkeypatch.setattr("dlx.backends._torch_graph.SECONDS_AT_ONCE", 0.02)
    queue = Queue(0.004)
    looped(queue, 80)
    assert queue.launched == 79
    assert queue.ahead <= 20


# -- what cannot be replayed --


def waits(z):
    return z * (1.0 if float(z.sum()) > 0 else 0.5)


def copies(z):
    import torch

    return z + 0.0 * torch.from_numpy(z.numpy(force=True)).to(z.device)


def draws(z):
    import torch

    return z + torch.rand_like(z) * 0.0


CALLS = itertools.count()


def counts(z):
    return z * (1.0 + 0.001 * (next(CALLS) % 7))


def slope(z, a):
    return 0.0 * z + 1.0


@pytest.mark.parametrize(
    ("f", "reason"),
    [
        (waits, "waits for the device"),
        (draws, "draws random numbers"),
        (counts, "two repeated steps gave other numbers"),
    ],
)
def test_a_users_function_that_cannot_be_replayed_trains_plainly(recorder, f, reason, monkeypatch):
    from dlx.backends._torch import TorchBackend

    how = {"activation": (f, slope), "learning_rate": 1e-3}
    with pytest.warns(
        UserWarning, match="slower, for its steps cannot be captured in a CUDA graph: .*" + reason
    ) as caught:
        found = fitted("torch:cpu", **how)
    assert len(caught) == 1
    assert recorder.replays in (0, 2)
    if f is not counts:
        monkeypatch.setattr(TorchBackend, "recorder", lambda self: None)
        assert all_of(found) == all_of(fitted("torch:cpu", **how))


def test_a_users_optimizer_whose_update_needs_a_python_number(recorder, monkeypatch):
    def bind(xp):
        def update(w, g, rate):
            w = w - math.copysign(rate, 1.0) * g
            return (w,)

        return update

    own = optimizers.Optimizer("mine", {}, 1e-2, 0.0, 0, lambda t, rate: (rate,), bind)
    with pytest.warns(UserWarning, match="waits for the device"):
        assert_same_as_plain(monkeypatch, optimizer=own)


def test_a_users_optimizer_that_returns_other_arrays_is_replayed(recorder, monkeypatch):
    """Heavy-ball momentum written out of place, its slots exchanged at each update."""

    def bind(xp):
        def update(w, g, m, n, rate):
            return w - rate * (0.9 * m + g), n, 0.9 * m + g

        return update

    own = optimizers.Optimizer("mine", {}, 1e-2, 0.0, 2, lambda t, rate: (rate,), bind)
    assert_same_as_plain(monkeypatch, optimizer=own)
    assert recorder.replays == 14 + 3


def test_a_recording_that_fails_leaves_the_training_whole(monkeypatch):
    from dlx.backends._torch import TorchBackend

    class Fails(Repeats):
        def record(self, function):
            raise RuntimeError("operation not permitted when stream is capturing\nmore lines")

    monkeypatch.setattr(TorchBackend, "recorder", lambda self: Fails())
    with pytest.warns(UserWarning, match=r"graph: operation not permitted when stream is capturing\.$"):
        assert_same_as_plain(monkeypatch)


# -- no numbers from the host --


def numbers_of_the_host():
    """A mode that raises where a tensor is made of a number or an array of the host."""
    import torch
    from torch.overrides import TorchFunctionMode

    class Mode(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            if function in (torch.asarray, torch.tensor, torch.as_tensor, torch.from_numpy):
                raise AssertionError(f"{function.__name__}{args}")
            return function(*args, **kwargs or {})

    return Mode()


def step_on_meta(layer_dims=(5, 9, 8, 3), activation="relu", loss="squared_error", rates=(0.0, 0.0), **how):
    """One step on PyTorch's device without memory, which takes the way of all devices but the CPU."""
    be = dlx.get_backend("torch:meta")
    hidden = [activations.get(activation)] * (len(layer_dims) - 2)
    penalties = {name: how.pop(name, 0.0) for name in ("l1", "l2")}
    weights = how.pop("weights", None)
    loss = losses.get(loss)
    with be.scope():
        net = network.bind(be, "float32", hidden, loss, dropout=rates, **penalties)
        Y = be.asarray(np.zeros((70, 1 if loss.targets == "classes" else 3)), None)
        classes = None
        if loss.targets == "classes":
            Y, classes = be.asarray(np.zeros((70, 1)), "int32"), be.asarray([[0, 1, 2]], "int32")
        else:
            Y = be.asarray(np.zeros((70, 3)), "float32")
        w = None if weights is None else be.asarray(np.ones((70, weights)), "float32")
        rows = steps.Rows(be.asarray(X, "float32"), Y, w, classes)
        pairs = itertools.pairwise(layer_dims)
        params = tuple(
            network.Layer(be.asarray(np.ones((a, b)), "float32"), be.asarray(np.ones((1, b)), "float32"))
            for a, b in pairs
        )
        how = {"optimizer": ADAM, "clip_norm": None, "clip_value": None, **how}
        optimizer = optimizers.get(how.pop("optimizer"))
        settings = steps.Settings(
            optimizer, dlx.schedules.constant(1e-2), 16, 1, True, None, how["clip_norm"], how["clip_value"]
        )
        task = steps.Task(be, net, "float32", rows, None)
        step, carry = steps.make_step(task, settings, params)
        coefficients, shrink = steps.numbers(task, settings, 0, [1e-2])
        given = steps.Inputs(
            be.row_numbers(np.arange(16), 70),
            (3, 4) if any(rates) else None,
            tuple(float(each[0]) for each in coefficients),
            None if shrink is None else float(shrink[0]),
        )
        with numbers_of_the_host():
            after, output = step(carry, rows, given)
    assert tuple(output.shape) == ()
    assert after is carry


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_no_optimizer_copies_a_number_to_the_device(optimizer):
    step_on_meta(optimizer=optimizer)
    step_on_meta(optimizer=getattr(dlx, optimizer)(weight_decay=0.1))


@pytest.mark.parametrize("activation", sorted(set(activations.ACTIVATIONS) - {"none", "logistic"}))
def test_no_activation_copies_a_number_to_the_device(activation):
    step_on_meta(activation=activation)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("weights", [None, 1])
def test_no_loss_copies_a_number_to_the_device(loss, weights):
    step_on_meta(loss=LOSSES[loss][0], weights=weights)


@pytest.mark.parametrize(
    "how",
    [{"rates": (0.3, 0.1)}, {"clip_norm": 0.1, "clip_value": 0.1}, {"l1": 0.1, "l2": 0.1}, {"weights": 3}],
    ids=["dropout", "clips", "penalties", "weights of targets"],
)
def test_nothing_else_copies_a_number_to_the_device(how):
    step_on_meta(**how)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("bound", [0.0, -10.0, 10.0, 1 / 3])
def test_bounds_are_those_of_numpy(dtype, bound):
    """Also of nan, infinities and the smallest numbers."""
    import torch

    from dlx.backends._torch import ON_DEVICES

    x = np.tile(np.asarray([np.nan, -0.0, 0.0, 1.0, -1.0, np.inf, -np.inf, 1e-45, -1e-45], dtype), 9)
    for name in ("maximum", "minimum"):
        found = getattr(ON_DEVICES, name)(torch.from_numpy(x), bound).numpy()
        np.testing.assert_array_equal(found, getattr(np, name)(x, np.asarray(bound, dtype)))
        found = getattr(ON_DEVICES, name)(torch.from_numpy(x), torch.from_numpy(x[::-1].copy())).numpy()
        np.testing.assert_array_equal(found, getattr(np, name)(x, x[::-1]))


# -- on a device --

if "torch:cuda" in GPUS:

    @pytest.mark.gpu
    @pytest.mark.parametrize(
        "how",
        [
            *(pytest.param({"optimizer": each, "learning_rate": 1e-2}, id=each) for each in OPTIMIZERS),
            *(pytest.param({"activation": each}, id=each) for each in sorted(activations.ACTIVATIONS)),
            *(pytest.param({"loss": loss, "y": y}, id=name) for name, (loss, y) in LOSSES.items()),
            *(pytest.param(how, id=name) for name, how in HOW.items()),
        ],
    )
    def test_a_graph_trains_as_its_step(how, monkeypatch):
        assert_same_as_plain(monkeypatch, "torch:cuda", **how)

    @pytest.mark.gpu
    @pytest.mark.parametrize("f", [waits, copies, draws, counts])
    def test_a_users_function_that_a_graph_refuses_trains_plainly(f):
        """And the stream is whole: a graph is recorded afterwards, and numbers are drawn."""
        import torch

        with pytest.warns(UserWarning, match="cannot be captured in a CUDA graph"):
            fitted("torch:cuda", activation=(f, slope), learning_rate=1e-3)
        assert torch.rand(3, device="cuda").isfinite().all()
        fitted("torch:cuda")

    @pytest.mark.gpu
    def test_a_recording_that_cuda_ends_leaves_all_whole(monkeypatch):
        """A wait that nobody has noticed before."""
        import torch

        from dlx.backends import _torch_graph

        monkeypatch.setattr(_torch_graph, "Watch", contextlib.nullcontext)
        with pytest.warns(UserWarning, match="cannot be captured in a CUDA graph"):
            fitted("torch:cuda", activation=(waits, slope), learning_rate=1e-3)
        assert torch.rand(3, device="cuda").isfinite().all()
        torch.cuda.empty_cache()
        assert_same_as_plain(monkeypatch, "torch:cuda")

    @pytest.mark.gpu
    def test_a_graph_on_a_stream_of_the_users_own(monkeypatch):
        import torch

        with torch.cuda.stream(torch.cuda.Stream()):
            assert_same_as_plain(monkeypatch, "torch:cuda", batch_size=16)

    @pytest.mark.gpu
    def test_two_hundred_fits_leave_no_memory():
        import torch

        for _ in range(20):
            fitted("torch:cuda")
        before = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
        for _ in range(180):
            fitted("torch:cuda")
        after = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
        assert after[0] <= before[0] + (1 << 20)
        assert after[1] <= before[1] + (64 << 20)
