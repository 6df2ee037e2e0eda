"""Steps on NumPy that are recorded and compiled give the bits of plain ones.

Most tests run the generated source as Python, which needs no numba and compiles nothing; a few compile it. The oracle
is the plain step, which the other tests compare with outsiders, and here PyTorch's gradients, once more.
"""

import functools
import gc
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
from programs import overlapping, random_step

import dlx
from dlx import activations, losses, optimizers
from dlx.backend import Backend, InPlace

inner, writer, steps, trace, training = (
    importlib.import_module(f"dlx.backends.{name}")
    for name in ("_numpy_inner", "_trace_writer", "_numpy_steps", "_trace", "_numpy_trace")
)
ROOT = Path(__file__).parents[1]
NUMPY = dlx.get_backend("numpy")


class Plain(type(NUMPY)):
    """Every step as it is written, one after the other."""

    loop = Backend.loop


PLAIN = Plain(NUMPY.xp, compiles=False)
TRACED = type(NUMPY)(NUMPY.xp, compiles=True)
HAS_NUMBA = importlib.util.find_spec("numba") is not None
FIRST_ORDER = [name for name in optimizers.OPTIMIZERS if name != "lbfgs"]


def with_numba(test):
    """The test, where numba is installed."""
    return test if HAS_NUMBA else None


prepared = steps._numpy_loops.prepared


def as_python(name, text, arguments):
    """What `prepared` returns, without numba: the function as Python. Single formulas are compiled as ever."""
    if name != steps.NAME:
        return prepared(name, text, arguments)
    scope = {"np": np, "call": lambda calls, k, scratch: inner.run(calls[k : k + 1])}
    exec(text[text.index("def steps(") :], scope)

    def run(*arguments):
        with np.errstate(all="ignore"):
            scope["steps"](*arguments)

    return run


@pytest.fixture
def recorded(monkeypatch):
    """The recorded steps, whose source runs as Python."""
    made = []

    class Watched(steps.Recorded):
        def compile(self, tables):
            super().compile(tables)
            made.append(self)

    monkeypatch.setattr(training, "Recorded", Watched)
    monkeypatch.setattr(steps._numpy_loops, "prepared", as_python)
    monkeypatch.setattr(training, "_IN_MEMORY", set())
    monkeypatch.setitem(type(NUMPY).loop.__globals__, "_has_numba", lambda: True)
    return made


def assert_same(found, plain):
    """Both networks are equal to the last bit, and so are their losses."""
    np.testing.assert_array_equal(found.history["loss"], plain.history["loss"])
    for layer, other in zip(found.params, plain.params, strict=True):
        np.testing.assert_array_equal(layer.W, other.W, strict=True)
        np.testing.assert_array_equal(layer.b, other.b, strict=True)


def both(X, y, dims, **options):
    """The networks that are trained with recorded and with plain steps."""
    options = {"rng": 0, "epochs": 2, "batch_size": 16} | options
    return [dlx.fit(X, y, dims, backend=backend, **options) for backend in (TRACED, PLAIN)]


def targets(loss, n, K, rng):
    """Targets that suit the loss, with K outputs."""
    kind = loss.targets
    if kind == "classes":
        return np.append(rng.integers(0, K, n - 1), K - 1)
    if kind == "binary":
        return rng.integers(0, 2, (n, K)).astype(float)
    return rng.integers(0, 4, (n, K)).astype(float) if kind == "counts" else rng.standard_normal((n, K))


LOSSES = {
    **losses.LOSSES,
    "half": lambda: losses.squared_error(half=True),
    "smoothed": lambda: losses.cross_entropy(0.1),
    "quantiles": lambda: losses.quantile([0.1, 0.5, 0.9]),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", activations.ACTIVATIONS)
def test_every_activation(activation, dtype, recorded):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((40, 5)).astype(dtype), rng.integers(0, 9, 40)
    assert_same(*both(X, y, (5, 12, 7, 9), activation=activation))
    assert len(recorded) == 2  # for full batches and for the ragged one
    assert recorded[0].source == recorded[1].source


@pytest.mark.parametrize("K", [1, 3, 12])
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss(loss, K, recorded):
    rng, made = np.random.default_rng(0), LOSSES[loss]()
    if made.targets == "classes":
        K = max(K, 2)
    y = rng.standard_normal(40) if loss == "quantiles" else targets(made, 40, K, rng)
    K = 3 if loss == "quantiles" else K
    assert_same(*both(rng.standard_normal((40, 5)), y, (5, 8, K), loss=made))
    assert recorded


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("optimizer", FIRST_ORDER)
def test_every_optimizer(optimizer, decay, recorded):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((40, 5)).astype("float32"), rng.integers(0, 3, 40)
    made = optimizers.OPTIMIZERS[optimizer](1e-2, weight_decay=decay)
    assert_same(*both(X, y, (5, 8, 3), optimizer=made))
    assert recorded


def configuration(seed):
    """A random training: its rows, targets, widths and options."""
    rng = np.random.default_rng(seed)
    name = rng.choice([*LOSSES])
    loss, n, K = LOSSES[name](), int(rng.integers(2, 90)), int(rng.integers(1, 12))
    K = max(K, 2) if loss.targets == "classes" else 3 if name == "quantiles" else K
    y = rng.standard_normal(n) if name == "quantiles" else targets(loss, n, K, rng)
    dims = (int(rng.integers(1, 12)), *rng.integers(1, 20, rng.integers(0, 3)).tolist(), K)
    X = rng.standard_normal((n, dims[0]))
    X = [X, np.asfortranarray(X), (50 * X).clip(0, 255).astype("uint8"), X > 0, X[:, ::-1]][rng.integers(5)]
    rates = {"dropout": 0.3 if len(dims) > 2 and rng.random() < 0.4 else 0.0}
    rates |= {name: 0.01 for name in ("l2", "l1") if rng.random() < 0.4}
    rates |= {name: 0.1 for name in ("clip_norm", "clip_value") if rng.random() < 0.4}
    weighted = rng.integers(3)
    if weighted == 1:
        rates["sample_weight"] = np.append(rng.uniform(0, 2, n - 1) * (rng.random(n - 1) > 0.3), 1.0)
    elif weighted == 2 and loss.targets == "real" and K > 1 and name != "quantiles":
        y[1:][rng.random((n - 1, K)) < 0.2] = np.nan
        rates["missing"] = "mask"
    return X, y, dims, rates | {
        "loss": loss,
        "activation": str(rng.choice([*activations.ACTIVATIONS])),
        "optimizer": optimizers.OPTIMIZERS[str(rng.choice(FIRST_ORDER))](1e-3),
        "batch_size": int(rng.choice([1, 2, 7, 16, n, n + 3])),
        "dtype": str(rng.choice(["float32", "float64"])),
    }  # fmt: skip


def fit_or_diverge(backend, X, y, dims, options):
    """The network, or the text of the error that the training ends with."""
    try:
        return dlx.fit(X, y, dims, epochs=2, rng=3, backend=backend, **options)
    except dlx.DivergenceError as error:
        return str(error)


@pytest.mark.parametrize("seed", range(60))
def test_random_trainings(seed, recorded):
    given = configuration(seed)
    found, plain = fit_or_diverge(TRACED, *given), fit_or_diverge(PLAIN, *given)
    assert recorded
    if isinstance(plain, str):
        assert found == plain
    else:
        assert_same(found, plain)


@with_numba  # which compiles the formulas of large arrays
def test_long_sums_have_numpys_order(recorded):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((1100, 40)).astype("float32"), rng.standard_normal((1100, 150))
    options = {"loss": "squared_error", "l1": 1e-3, "l2": 1e-3, "clip_norm": 0.5, "batch_size": 600, "epochs": 3}
    for width, given in ((150, y), (1, y[:, :1])):
        assert_same(*both(X, given, (40, 30, width), **options))
    assert len(recorded) == 4


@with_numba  # which compiles the formulas of large arrays
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("batch_size", "K"), [(1024, 3), (1025, 3), (1300, 1), (2048, 12), (2500, 2), (5000, 3)])
def test_sums_of_many_rows_are_those_of_blocks(batch_size, K, dtype, recorded):
    """NumPy's backend adds up the columns of more than 1024 rows in blocks of so many."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((5000, 4)).astype(dtype), rng.standard_normal((5000, K))
    assert_same(*both(X, y, (4, 6, K), batch_size=batch_size, epochs=3))
    assert recorded


def test_wrong_source_is_seen(recorded, monkeypatch):
    """The comparison with plain steps is worth something: a wrong activation is told."""
    formula = writer.Writer.formula

    def wrong(*given):
        return formula(*given).replace("np.maximum", "np.minimum")

    monkeypatch.setattr(writer.Writer, "formula", wrong)
    X = np.random.default_rng(0).standard_normal((40, 5))
    found, plain = both(X, X[:, :1], (5, 8, 1), loss="squared_error")
    with pytest.raises(AssertionError):
        assert_same(found, plain)


@pytest.mark.parametrize("activation", ["relu", "gelu", "selu"])
def test_gradients_are_pytorchs(activation, recorded):
    torch = pytest.importorskip("torch")
    functions = {
        "relu": torch.relu,
        "selu": torch.selu,
        "gelu": functools.partial(torch.nn.functional.gelu, approximate="tanh"),
    }
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((30, 5)), rng.integers(0, 3, 30)
    init = [(rng.standard_normal((a, b)), rng.standard_normal((1, b))) for a, b in ((5, 8), (8, 3))]
    options = {"optimizer": dlx.gradient_descent(), "learning_rate": 1.0, "batch_size": 30, "epochs": 3}
    net = dlx.fit(X, y, (5, 8, 3), activation=activation, init=init, backend=TRACED, **options)
    (W0, b0), (W1, b1) = parameters = [[torch.tensor(x, requires_grad=True) for x in layer] for layer in init]
    sgd = torch.optim.SGD([w for layer in parameters for w in layer], lr=1.0)
    for _ in range(3):
        sgd.zero_grad()
        scores = functions[activation](torch.tensor(X) @ W0 + b0) @ W1 + b1
        torch.nn.functional.cross_entropy(scores, torch.tensor(y)).backward()
        sgd.step()
    for layer, expected in zip(net.params, parameters, strict=True):
        for w, variable in zip(layer, expected, strict=True):
            np.testing.assert_allclose(w, variable.detach().numpy(), rtol=1e-9, atol=1e-11)
    assert recorded


def test_memory_that_overlaps_is_read_and_written_in_order(monkeypatch):
    """Of 400 random programs many are refused, as they use values whose sources are gone; no other may be wrong."""
    monkeypatch.setattr(steps._numpy_loops, "prepared", as_python)
    inputs, run = (np.asarray([0.5, 0.25, 0.125]),), 0
    for seed in range(400):
        step, mine, theirs = random_step(seed), overlapping(seed), overlapping(seed)
        try:
            recording = steps.Recorded(InPlace(step, mine, None), (), (), inputs)
        except trace.Unrecordable:
            continue
        tables = steps.Tables(inputs).arrays()
        recording.compile(tables)
        with np.errstate(all="ignore"):
            expected = [step(theirs, (), (), (number,))[1] for number in inputs[0].tolist()]
        np.testing.assert_array_equal(recording.run(tables, 0, 3), expected, err_msg=str(seed))
        for x, y in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(x, y, err_msg=str(seed))
        run += 1
    assert run > 80


def test_a_row_that_is_part_of_what_it_is_added_to_is_not_recorded():
    z = np.ones((3, 4))

    def step(kept, carry, constants, inputs):
        x = kept[0]
        x += x[:1]
        return carry, np.add.reduce(x, axis=(-2, -1))

    with pytest.raises(trace.Unrecordable, match="whose source is overwritten"):
        steps.Recorded(InPlace(step, (z,), None), (), (), (np.ones(3),))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_inner_loops_have_the_bits_of_their_functions(dtype):
    rng = np.random.default_rng(0)
    assert inner.work(np.dtype(dtype))
    for n, k, p in [(1, 5, 3), (4, 1, 3), (4, 5, 1), (1, 5, 1), (1, 1, 1), (33, 65, 17), (130, 7, 300)]:
        a, b = rng.standard_normal((n, k)).astype(dtype), rng.standard_normal((k, p)).astype(dtype)
        for x, y in [(a, b), (np.asfortranarray(a), b), (a, np.asfortranarray(b)), (b.T, a.T)]:
            out = np.zeros((x.shape[0], y.shape[1]), dtype)
            inner.run(np.asarray([inner.product(x, y, out)]))
            np.testing.assert_array_equal(out, x @ y)
        sums, one = np.zeros((n, 1), dtype), np.zeros(1, dtype)
        inner.run(np.asarray([inner.sums_of_rows(a, sums), inner.total(a, one)]))
        np.testing.assert_array_equal(sums, np.sum(a, axis=-1, keepdims=True))
        assert one[0] == np.sum(a, axis=(-2, -1))


def test_where_inner_loops_are_elsewhere_steps_are_plain(recorded, monkeypatch):
    def refuses(ufunc, dtype):
        raise ValueError("NumPy's ufuncs have another layout")

    monkeypatch.setattr(inner, "address", refuses)
    inner.work.cache_clear()
    X = np.random.default_rng(0).standard_normal((40, 5))
    assert_same(*both(X, X[:, :1], (5, 8, 1), loss="squared_error"))
    assert not recorded
    inner.work.cache_clear()


X = np.random.default_rng(0).standard_normal((60, 5)).astype("float32")
HALF_PRECISION = X.astype("float16")
PLAINLY = {
    "sparse rows": (scipy.sparse.csr_matrix(X * (X > 0)), {}),
    "a function of a user's own": (X, {"activation": (lambda z: z if z.any() else -z, lambda z, a: a * 0 + 1.0)}),
    "L-BFGS": (X, {"optimizer": "lbfgs"}),
}


@with_numba
@pytest.mark.parametrize("case", PLAINLY)
def test_what_is_not_recorded_trains_as_ever(case, recorded):
    X, options = PLAINLY[case]
    y = np.arange(X.shape[0]) % 3
    assert_same(*both(X, y, (5, 8, 3), **options))
    assert not recorded


def test_single_steps_of_ever_new_arrays_are_not_recorded(recorded):
    """As a stream brings them."""
    run, (carry, constants, inputs, *_) = begun()
    recorded.clear()
    for _ in range(20):
        fresh = type(constants)(*(None if x is None else x.copy() for x in constants))
        (_, loss), *_ = run(carry, fresh, inputs, 1)
        assert loss.shape == ()
    assert not recorded


def test_other_types_are_another_source(recorded):
    """Numba compiles for each layout and dtype, which a file in its cache stands for."""
    read_only = X.copy()
    read_only.flags.writeable = False
    for rows in (X, np.asfortranarray(X), read_only, X.astype("int8"), np.zeros((60, 10), "float32")[:, ::2]):
        dlx.fit(rows, np.arange(60) % 3, (5, 8, 3), epochs=1, batch_size=20, rng=0, backend=TRACED)
    assert len({each.source for each in recorded}) == 5


def test_one_batch_of_all_rows_is_recorded_when_it_comes_again(recorded):
    assert_same(*both(X, np.arange(60) % 3, (5, 8, 3), batch_size=60, epochs=5))
    assert len(recorded) == 1


def test_half_precision_rows_are_stored_in_the_working_one(recorded):
    assert_same(*both(HALF_PRECISION, np.arange(60) % 3, (5, 8, 3)))
    assert recorded


def begun(**options):
    """A loop over twelve steps of a network, its carry, and its arguments."""
    kept = {}
    loop = TRACED.loop

    def watched(step, key=None):
        run = loop(step, key)

        def call(*arguments):
            kept.setdefault("call", (run, arguments))
            return run(*arguments)

        return call

    backend = type(NUMPY)(NUMPY.xp, compiles=True)
    backend.loop = watched
    dlx.fit(X, np.arange(60) % 3, (5, 8, 3), backend=backend, batch_size=5, epochs=1, rng=0, **options)
    return kept["call"]


def test_the_loop_keeps_its_contract(recorded, monkeypatch):
    """It begins and ends where it is told, yields at most so many steps at a time, and keeps the carry's arrays."""
    run, (carry, constants, inputs, n, *_) = begun()
    done = [(after, len(losses)) for after, losses in run(carry, constants, inputs, n, 3, 4)]
    assert sum(k for _, k in done) == n - 3
    assert max(k for _, k in done) <= 4
    assert all(after is carry for after, _ in done)
    assert [*run(carry, constants, inputs, 5, 5)] == []
    monkeypatch.setattr(training, "SECONDS_AT_ONCE", 0.0)
    for _ in range(3):
        sizes = [len(losses) for _, losses in run(carry, constants, inputs, n)]
    assert sizes == [1] * n


def test_outputs_of_both_kinds_become_one_vector():
    found = NUMPY.outputs_to_host([np.float32(1.0), np.asarray([2.0, 3.0], "float32")])
    np.testing.assert_array_equal(found, np.asarray([1.0, 2.0, 3.0], "float32"), strict=True)


def test_buffers_that_are_not_alive_together_share_memory(recorded):
    rng = np.random.default_rng(0)
    both(rng.standard_normal((64, 5)), rng.integers(0, 3, 64), (5, *[32] * 12, 3), batch_size=32, epochs=1)
    arrays = {name: x for name, x in recorded[0].alive[0].items() if name.startswith("t")}
    addresses = {x.__array_interface__["data"][0] for x in arrays.values()}
    assert len(addresses) < 0.8 * len(arrays)


def test_few_steps_are_not_worth_it(recorded):
    """The number of updates decides: of a short training nothing is compiled, and not even recorded."""
    y = np.arange(60) % 3
    dlx.fit(X, y, (5, 8, 3), epochs=3, batch_size=5, backend="numpy")
    assert not recorded
    assert NUMPY.expecting(0.0, 10**6).updates == 10**6
    assert type(NUMPY)(NUMPY.xp, compiles=False).expecting(0.0, 10**6).compiles is False


def test_what_is_known_already_repays_sooner(recorded, monkeypatch):
    def fewest(is_cached, imported):
        monkeypatch.setitem(sys.modules, "numba", training)
        if not imported:
            monkeypatch.delitem(sys.modules, "numba")
        monkeypatch.setattr(steps._numpy_loops, "is_cached", lambda name, text: is_cached)
        text = steps.PREAMBLE + 100 * "\n"
        numbers = range(0, 10**6, 500)
        return next(n for n in numbers if training.Recordings(None, None, n, lambda: True)._repays(text))

    assert 0 < fewest(True, True) < fewest(True, False) < fewest(False, True) < fewest(False, False)


def test_a_step_that_was_not_worth_it_is_not_recorded_again(recorded, monkeypatch):
    """Thousands of short fits of equal networks: only the first one is recorded to see what it would take."""
    made = []
    monkeypatch.setattr(training, "Recorded", lambda *given: made.append(given) or steps.Recorded(*given))
    monkeypatch.setattr(training, "_SOURCES", {})
    monkeypatch.setattr(steps._numpy_loops, "is_cached", lambda name, text: False)
    for seed in range(3):
        dlx.fit(X, np.arange(60) % 3, (5, 8, 3), epochs=50, batch_size=5, rng=seed, backend="numpy")
    assert len(made) == 1


def test_a_step_that_cannot_be_compiled_is_said_and_runs_plainly(recorded, monkeypatch):
    def refuses(*arguments):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(steps._numpy_loops, "prepared", refuses)
    y = np.arange(60) % 3
    with pytest.warns(UserWarning, match=r"cannot be compiled by numba, so that training is slower: no compiler"):
        found = dlx.fit(X, y, (5, 8, 3), epochs=2, rng=0, backend=TRACED)
    assert_same(found, dlx.fit(X, y, (5, 8, 3), epochs=2, rng=0, backend=PLAIN))


def test_a_training_goes_on_from_a_checkpoint_to_the_same_bits(recorded, tmp_path):
    """It does not matter which path the first or the second part took."""
    y, options = np.arange(60) % 3, {"batch_size": 7, "rng": 0, "dropout": 0.2}
    whole = dlx.fit(X, y, (5, 8, 3), epochs=4, backend=PLAIN, **options)
    for number, (first, second) in enumerate([(PLAIN, TRACED), (TRACED, PLAIN), (TRACED, TRACED)]):
        folder = tmp_path / str(number)
        dlx.fit(X, y, (5, 8, 3), epochs=2, backend=first, checkpoint=folder, **options)
        assert_same(dlx.fit(X, y, (5, 8, 3), epochs=4, backend=second, checkpoint=folder, **options), whole)


@with_numba
def test_numba_gives_the_same_bits_and_another_width_compiles_nothing():
    rng = np.random.default_rng(0)
    training._IN_MEMORY.clear()
    options = {"dropout": 0.2, "l2": 1e-3, "clip_norm": 1.0, "optimizer": "nadam", "activation": ["relu", "gelu"]}
    for dims in ((30, 41, 29, 10), (31, 53, 37, 11)):
        x, y = rng.standard_normal((300, dims[0])).astype("float32"), rng.integers(0, dims[-1], 300)
        assert_same(*both(x, y, dims, batch_size=64, **options))
        assert len(training._IN_MEMORY) == 1


@pytest.mark.parametrize("shape", [(32, 64, 64), (32, 2, 64), (16, 32, 32), (64, 100, 100), (5, 1, 7), (1, 9, 8)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_factor_is_copied_only_where_the_bits_stay(shape, dtype):
    """OpenBLAS on AVX-512 has the same bits for 32 x 64 x 64, and others for 16 x 32 x 32 and 64 x 100 x 100."""
    (m, k, n), rng = shape, np.random.default_rng(1)
    a, b = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((n, k)).astype(dtype)
    if inner.repays_copy(m, k, n, np.dtype(dtype)):
        np.testing.assert_array_equal(a @ np.ascontiguousarray(b.T), a @ b.T)


@pytest.fixture
def copies(monkeypatch):
    """Every second factor is copied that may be, so that the sums of the products may be in another order."""
    monkeypatch.setattr(inner, "repays_copy", lambda m, k, n, dtype: True)
    made = []
    monkeypatch.setattr(training, "Recorded", lambda *given: made.append(steps.Recorded(*given)) or made[-1])
    return made


def assert_copies(copies, dtype):
    """Three factors are copied, as they are transposed, and the network is the plain one."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((40, 5)).astype(dtype), rng.integers(0, 5, 40)
    found, plain = both(X, y, (5, 13, 8, 6, 5), optimizer="gradient_descent")
    copying, _ = inner.address(np.positive, np.dtype(dtype))
    assert {(made.calls[:, 0] == copying).sum() for made in copies} == {3}
    for layer, other in zip(found.params, plain.params, strict=True):
        np.testing.assert_allclose(layer.W, other.W, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_factors_are_copied(dtype, recorded, copies):
    assert_copies(copies, dtype)


@with_numba
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_factors_are_copied_by_numba(dtype, copies):
    assert_copies(copies, dtype)


@with_numba
def test_threads_train_networks_of_their_own():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((200, 6)), rng.integers(0, 3, 200)

    def train(seed, backend):
        return dlx.fit(x, y, (6, 9, 3), batch_size=16, epochs=20, rng=seed, backend=backend)

    nets = {}
    threads = [threading.Thread(target=lambda k=k: nets.setdefault(k, train(k, TRACED))) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, net in nets.items():
        assert_same(net, train(seed, PLAIN))
    assert len(nets) == 4


FIT = """
import json, sys, numpy as np, dlx
numpy = dlx.get_backend("numpy")
rng = np.random.default_rng(0)
X, y = rng.standard_normal((100, 6)), rng.integers(0, 3, 100)
net = dlx.fit(X, y, (6, 9, 3), epochs=2, rng=0, batch_size=16, backend=type(numpy)(numpy.xp, compiles=True))
compiled = [module.steps for name, module in sys.modules.items() if name.startswith("dlx_loop_steps")]
hits = sum(sum(each.stats.cache_hits.values()) for each in compiled)
print(json.dumps([len(compiled), hits, net.history["loss"][-1]]))
"""


def fit_in_a_process(folder):
    """How many functions were compiled to a file, how many of them were read, and the loss; and what was said."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(folder)}
    run = subprocess.run(
        [sys.executable, "-c", FIT], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(run.stdout.splitlines()[-1]), run.stderr


@with_numba
def test_the_cache_is_read_and_may_be_damaged_deleted_or_missing(tmp_path):
    first, _ = fit_in_a_process(tmp_path)
    assert first[:2] == [1, 0]
    again, _ = fit_in_a_process(tmp_path)
    assert again == [1, 1, first[2]]
    kept = [*tmp_path.rglob("*.nbi"), *tmp_path.rglob("*.nbc")]
    assert len(kept) >= 2
    for path in kept:
        path.write_bytes(b"garbage")
    damaged, said = fit_in_a_process(tmp_path)
    assert f"cannot be read from the cache below {tmp_path}" in said
    assert damaged[2] == first[2]
    (tmp_path / "file").write_text("no folder")
    nowhere, said = fit_in_a_process(tmp_path / "file")
    assert (nowhere[0], nowhere[2]) == (0, first[2])
    assert "Warning" not in said


def test_trainings_leave_nothing_behind(recorded):
    y = np.arange(60) % 3
    counts = []
    for _ in range(3):
        for seed in range(5):
            dlx.fit(X, y, (5, 8, 3), epochs=1, rng=seed, backend=TRACED)
        recorded.clear()
        gc.collect()
        counts.append(sum(issubclass(type(each), steps.Recorded | trace.Program) for each in gc.get_objects()))
    assert counts[0] == counts[-1]
