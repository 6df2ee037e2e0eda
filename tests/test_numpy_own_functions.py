"""Functions of a user's own in steps that are recorded on NumPy: the bits of plain steps, whatever the functions do.

The oracle is the training with plain steps, and for gradients and optimizers also those of dlx's own.
"""

import numpy as np
import pytest
import test_numpy_trace
from test_numpy_trace import NUMPY, PLAIN, TRACED, assert_same, both, configuration, fit_or_diverge, with_numba

import dlx
from dlx import losses

recorded = test_numpy_trace.recorded  # the fixture
X = np.random.default_rng(0).standard_normal((41, 5))
CLASSES = np.arange(41) % 3
GELU = np.sqrt(2 / np.pi)  # a NumPy number, which makes float32 float64


def hard(z):
    return np.clip(0.2 * z + 0.5, 0, 1)


ACTIVATIONS = {
    "relu": (lambda z: np.maximum(z, 0), lambda z, a: (z > 0).astype(z.dtype)),
    "relu by numbers": (lambda z: np.maximum(z, 0), lambda z, a: ((z > 0) * 1.0).astype(z.dtype)),
    "relu by product": (lambda z: z * (z > 0), lambda z, a: np.where(a > 0, np.ones_like(a), 0.0)),
    "leaky": (lambda z: np.where(z > 0, z, 0.1 * z), lambda z, a: np.where(z > 0, 1.0, 0.1).astype(z.dtype)),
    "square": (lambda z: z**2, lambda z, a: 2 * z),
    "sine": (lambda z: np.sin(3.0 * z), lambda z, a: 3.0 * np.cos(3.0 * z)),
    "arctangent": (np.arctan, lambda z, a: 1 / (1 + np.square(z))),
    "softsign": (lambda z: z / (1.0 + np.abs(z)), lambda z, a: (1.0 + abs(z)) ** -1 * np.reciprocal(1.0 + np.abs(z))),
    "hard sigmoid": (hard, lambda z, a: z.dtype.type(0.2) * ((a > 0) & (a < 1))),
    "hard sigmoid in words": (hard, lambda z, a: 0.2 * np.logical_and(a > 0, a < 1).astype(z.dtype)),
    "gaussian": (lambda z: np.exp(-(z**2)), lambda z, a: -2.0 * z * a),
    "in place": (lambda z: np.tanh(z.copy()), lambda z, a: np.subtract(1.0, a * a)),
    "by rows": (lambda z: z - z.mean(axis=1, keepdims=True), lambda z, a: np.full_like(z, 0.8)),
    "sign": (lambda z: np.sign(z) * np.sqrt(np.abs(z) + 1.0), lambda z, a: 0.5 / np.maximum(np.abs(a), 0.5)),
    "float64 numbers": (lambda z: np.tanh(z * GELU).astype(z.dtype), lambda z, a: (GELU * (1 - a * a)).astype(z.dtype)),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name, dtype, recorded):
    net, plain = both(X.astype(dtype), CLASSES, (5, 11, 7, 3), activation=ACTIVATIONS[name], batch_size=16, epochs=3)
    assert_same(net, plain)
    assert net.facts.path == ("as one compiled function", False)
    assert len(recorded) == 2  # for full batches and for the ragged one


LOSSES = {
    "log cosh": (lambda Z, Y: np.log(np.cosh(Z - Y)).sum(axis=-1, keepdims=True), lambda Z, Y: np.tanh(Z - Y)),
    "squares": (lambda Z, Y: ((Z - Y) ** 2).sum(axis=1, keepdims=True), lambda Z, Y: 2 * (Z - Y)),
    "mean": (lambda Z, Y: np.mean((Z - Y) ** 2, 1, keepdims=True), lambda Z, Y: 2 * (Z - Y) / Y.shape[1]),
    "weighted": (
        lambda Z, Y: np.sum(np.asarray([[1.0, 2.0, 3.0]], Z.dtype) * abs(Z - Y), axis=-1, keepdims=True),
        lambda Z, Y: np.asarray([[1.0, 2.0, 3.0]], Z.dtype) * np.sign(Z - Y),
    ),
    "largest": (
        lambda Z, Y: np.max(abs(Z - Y), axis=-1, keepdims=True),
        lambda Z, Y: np.where(abs(Z - Y) == abs(Z - Y).max(axis=-1, keepdims=True), np.sign(Z - Y), 0.0),
    ),
    "through": losses.through(dlx.activations.softplus(), losses.squared_error()),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", LOSSES)
def test_losses(name, dtype, recorded):
    Y = X[:, :3] - X[:, 2:]
    assert_same(*both(X.astype(dtype), Y, (5, 12, 3), loss=LOSSES[name], epochs=3))
    assert recorded


def optimizer(update, slots, coefficients=lambda t, rate: (rate,), **options):
    options = {"settings": {}, "learning_rate": 0.01, "weight_decay": 0.0} | options
    return dlx.Optimizer("mine", slots=slots, coefficients=coefficients, bind=lambda xp: update, **options)


def adam(w, g, m, v, rate, bias):
    m = 0.9 * m + 0.1 * g
    v = 0.999 * v + 0.001 * g * g
    return w - rate * m / (np.sqrt(v) + bias), m, v


def in_place(w, g, m, rate):
    m *= 0.9
    m += g
    w -= rate * m
    return w, m


def by_layer(w, g, rate):
    return (w - rate * g / (np.sqrt((g * g).sum(keepdims=True)) + 1e-3),)


def keeps_the_gradient(w, g, before, rate):
    return w - rate * (g + 0.5 * before), g


OPTIMIZERS = {
    "new arrays": optimizer(adam, 2, lambda t, rate: (rate / (1 - 0.9**t), 1e-8 * t)),
    "in place": optimizer(in_place, 1),
    "decay": optimizer(in_place, 1, weight_decay=0.1),
    "by layer": optimizer(by_layer, 0),
    "the gradient": optimizer(keeps_the_gradient, 1),
    "plain": optimizer(lambda w, g, rate: (w - rate * g,), 0),
    "numbers among themselves": optimizer(
        lambda w, g, m, rate, t: (
            w - 0.5 * rate / (1 + 0.1 * t) * g - (t - 1) * -rate * m,
            0.9 * m + (1 - rate / 3) * g,
        ),
        1,
        lambda t, rate: (rate, float(t)),
    ),
}
OPTIONS = {
    "nothing": {},
    "clipped": {"clip_norm": 0.1, "clip_value": 0.05},
    "penalties": {"l1": 1e-3, "l2": 1e-2, "dropout": 0.2},
    "one batch": {"batch_size": 41, "epochs": 6},
    "own activation": {"activation": ACTIVATIONS["sine"], "sample_weight": np.linspace(0, 1, 41)},
}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers(name, options, recorded):
    net, plain = both(X, CLASSES, (5, 12, 3), optimizer=OPTIMIZERS[name], **{"epochs": 3, **OPTIONS[options]})
    assert_same(net, plain)
    assert recorded
    assert net.facts.path == ("as one compiled function", False)


def test_ones_of_dlxs_own_by_another_name(recorded):
    """Their formulas give the same numbers as functions of a user's own."""
    relu, error = dlx.activations.relu().bind(np), losses.squared_error().bind(np, np.asarray)
    mine = {"activation": tuple(relu), "loss": tuple(error), "optimizer": dlx.momentum()._replace(name="mine")}
    theirs = {"activation": "relu", "loss": "squared_error", "optimizer": dlx.momentum()}
    nets = [
        dlx.fit(X, X[:, :2], (5, 8, 2), rng=0, epochs=3, batch_size=16, learning_rate=1e-2, backend=TRACED, **options)
        for options in (mine, theirs)
    ]
    assert len(recorded) == 4
    for ours, other in zip(*(net.params for net in nets), strict=True):
        np.testing.assert_allclose(ours.W, other.W, rtol=1e-6)


def branches(z):
    return z if z.mean() > 0 else 2 * z


def through_a_list(z):
    return np.asarray(z.tolist(), z.dtype)


def first_row(z):
    z[0] = 0
    return z


MORE = {
    "branches": (branches, lambda z, a: 1 + 0 * z),
    "a loop over rows": (lambda z: np.stack([np.tanh(row) for row in z]), lambda z, a: 1 - a * a),
    "a power": (lambda z: np.abs(z) ** 1.5, lambda z, a: 1.5 * np.sign(z) * np.abs(z) ** 0.5),
    "an unknown function": (lambda z: np.logaddexp(z, 0), lambda z, a: 1 / (1 + np.exp(-z))),
    "through a list": (through_a_list, lambda z, a: 1 + 0 * z),
    "slices": (first_row, lambda z, a: 1 + 0 * z),
    "integers": (lambda z: (z * (z > 0).astype(int)).astype(z.dtype), lambda z, a: (z > 0).astype(z.dtype)),
    "half precision": (lambda z: np.tanh(z.astype("float16")).astype(z.dtype), lambda z, a: 1 - a * a),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", MORE)
def test_functions_that_do_more_train_plainly(name, dtype, recorded, recwarn):
    assert_same(*both(X.astype(dtype), CLASSES, (5, 8, 3), activation=MORE[name], epochs=3))
    assert not recorded
    assert not recwarn.list


@pytest.mark.parametrize("seed", range(40))
def test_random_trainings(seed, recorded):
    """Those of the other tests, in which some of dlx's own formulas are a user's."""
    X, y, dims, options = configuration(seed)
    own = np.random.default_rng(seed).integers(0, 2, 3)
    if own[0]:
        options["activation"] = tuple(dlx.activations.get(options["activation"]).bind(NUMPY.xp))
    if own[1] and "missing" not in options:
        options["loss"] = options["loss"]._replace(name="mine")
    if own[2]:
        options["optimizer"] = options["optimizer"]._replace(name="mine")
    given = X, y, dims, options
    found, plain = fit_or_diverge(TRACED, *given), fit_or_diverge(PLAIN, *given)
    if isinstance(plain, str):
        assert found == plain
    else:
        assert_same(found, plain)
        assert found.facts.path == ("as one compiled function", False)
    assert recorded


class Slope:
    """A leaky ReLU whose slope is not among its arrays."""

    def __init__(self, slope):
        self.slope, self.calls = slope, 0

    def f(self, z):
        return np.where(z > 0, z, self.slope * z)

    def df(self, z, a):
        return (z > 0) + self.slope * (1.0 - (z > 0))

    def falling(self, z):
        """As `f`, with a slope that falls from call to call."""
        self.calls += 1
        return np.where(z > 0, z, self.slope / self.calls * z)


def trained(activation, backend, **options):
    options = {"epochs": 4, "batch_size": 16, "rng": 0} | options
    return dlx.fit(X, CLASSES, (5, 11, 3), activation=activation, backend=backend, **options)


def test_what_changes_from_call_to_call_is_noticed(recorded, recwarn):
    """All steps of the training have called the function; the recording has called it once more."""
    slopes = [Slope(1.0), Slope(1.0)]
    found, plain = (trained((s.falling, s.df), be) for s, be in zip(slopes, (TRACED, PLAIN), strict=True))
    assert len(recorded) == 1
    assert len(found.history["loss"]) == len(plain.history["loss"]) == 4
    assert slopes[0].calls == slopes[1].calls + 1
    assert not recwarn.list


def test_random_numbers_are_noticed(recorded):
    """The training goes on with plain steps: its numbers are those of a generator that has drawn once more."""

    def noise(seed, more):
        rng = np.random.default_rng(seed)

        def f(z):
            if not more and type(z) is not np.ndarray:  # a recording
                return z
            return z + 0.1 * rng.standard_normal(z.shape)

        return f, lambda z, a: 1.0 + 0.0 * z

    found, plain = trained(noise(0, False), TRACED), trained(noise(0, False), PLAIN)
    assert_same(found, plain)
    trained(noise(0, True), TRACED)
    assert len(recorded) == 2  # one in each training, which was tried and dropped


@pytest.mark.parametrize("batch_size", [16, 20])
def test_what_a_callback_changes_is_noticed_in_the_next_epoch(batch_size, recorded):
    nets = []
    for backend in (TRACED, PLAIN):
        slope = Slope(0.5)

        def change(net, slope=slope):
            slope.slope = 0.1 if len(net.history["loss"]) > 2 else 0.5

        options = {"epochs": 6, "batch_size": batch_size, "callbacks": change}
        nets.append(trained((slope.f, slope.df), backend, **options))
    assert_same(*nets)
    assert recorded


@pytest.mark.parametrize("every", [1, 2, 3])
def test_a_training_goes_on_from_a_checkpoint(every, recorded, tmp_path):
    """A trial may be cut short, and a training may begin with one in the middle of an epoch."""
    options = {"activation": ACTIVATIONS["sine"], "optimizer": OPTIMIZERS["new arrays"], "batch_size": 7}

    class Enough(Exception):
        pass

    def stop(net):
        if len(net.history["loss"]) == 2:
            raise Enough

    kept = {"checkpoint": tmp_path, "checkpoint_every": every}
    with pytest.raises(Enough):
        trained(backend=TRACED, callbacks=stop, **kept, **options)
    assert_same(trained(backend=TRACED, **kept, **options), trained(backend=PLAIN, **options))
    assert len(recorded) > 2


def test_an_optimizer_that_swaps_its_slots(recorded):
    """Each step reads what the other slot was before it."""
    swaps = optimizer(lambda w, g, m, v, rate: (w - rate * (g + 0.1 * v), v + g, m), 2)
    assert_same(*both(X, CLASSES, (5, 8, 3), optimizer=swaps, epochs=3))


def test_state_of_another_shape(recorded):
    """One number for each array instead of as many as it has; the first step has the arrays that it was given."""

    def update(w, g, v, rate):
        v = 0.9 * v + (g * g).mean(keepdims=True)
        return w - rate * g / (np.sqrt(v) + 1e-6), v[:1, :1]

    assert_same(*both(X, CLASSES, (5, 8, 3), optimizer=optimizer(update, 1), epochs=3))
    assert not recorded


@with_numba
def test_numba_gives_the_same_bits():
    options = {"activation": ACTIVATIONS["sine"], "loss": LOSSES["log cosh"], "optimizer": OPTIMIZERS["by layer"]}
    test_numpy_trace.training._IN_MEMORY.clear()
    assert_same(*both(X, X[:, :3], (5, 12, 3), epochs=3, **options))
    assert test_numpy_trace.training._IN_MEMORY


def test_a_network_knows_how_its_steps_ran(recorded, monkeypatch):
    """The report says it where a function of the user's own made them slower, and only there."""

    def path(activation="relu", backend=TRACED, **options):
        net = trained(activation, backend, **options)
        report = net.report(X, CLASSES)
        how, slowed = net.facts.path
        assert slowed == ("plain steps" in {finding.name for finding in report})
        assert not slowed or how in str(report).replace("\n    ", " ")
        return how, slowed

    own = Slope(1.0)
    assert path() == ("as one compiled function", False)
    assert path(ACTIVATIONS["sine"]) == ("as one compiled function", False)
    assert path(MORE["branches"]) == ("plainly, as they cannot be recorded: Unrecordable: a branch", True)
    text = "plainly, as two recorded steps gave other numbers than two plain ones"
    assert path((own.falling, own.df)) == (text, True)
    assert path(batch_size=41, epochs=1) == ("plainly, as each of them brings other arrays", False)
    assert path(MORE["branches"], "numpy") == ("plainly, as they are few", False)
    monkeypatch.setattr(test_numpy_trace.training, "SAVED", 0.0)
    assert path("tanh", epochs=150) == ("as a list of calls", False)  # too few to repay compiling
    assert trained("relu", PLAIN).facts.path is None
