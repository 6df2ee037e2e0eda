"""Steps on plain NumPy that are recorded and replayed as calls give the bits of plain ones, and allocate nothing.

The oracle is the plain step, and here PyTorch's gradients once more. Numba stands aside, as if it were not installed.
"""

import functools
import gc
import importlib
import signal
import tracemalloc

import numpy as np
import pytest
from programs import overlapping, random_step
from test_numpy_trace import (
    FIRST_ORDER,
    LOSSES,
    NUMPY,
    PLAIN,
    TRACED,
    assert_same,
    begun,
    both,
    configuration,
    fit_or_diverge,
    targets,
    with_numba,  # which compiles the formulas of large arrays
)

import dlx
from dlx import activations, optimizers
from dlx.backend import InPlace

calls, replay, inner, training = (
    importlib.import_module(f"dlx.backends.{name}")
    for name in ("_numpy_calls", "_numpy_replay", "_numpy_inner", "_numpy_trace")
)
RNG = np.random.default_rng(0)
X, y = RNG.standard_normal((60, 5)).astype("float32"), np.arange(60) % 3


@pytest.fixture
def replayed(monkeypatch):
    """The steps that are replayed."""
    made = []

    class Watched(replay.Replayed):
        def __init__(self, *given):
            super().__init__(*given)
            made.append(self)

    monkeypatch.setattr(training, "Replayed", Watched)
    monkeypatch.setattr(training, "_IN_MEMORY", set())
    monkeypatch.setitem(type(NUMPY).loop.__globals__, "_has_numba", lambda: False)
    return made


@pytest.fixture
def small_blocks(monkeypatch):
    """Arrays of a few elements are computed in blocks."""
    monkeypatch.setattr(replay, "BLOCK", 8)
    monkeypatch.setattr(replay, "FITS_IN_CACHE", 16)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", activations.ACTIVATIONS)
def test_every_activation(activation, dtype, replayed):
    x, classes = RNG.standard_normal((40, 5)).astype(dtype), RNG.integers(0, 9, 40)
    assert_same(*both(x, classes, (5, 12, 7, 9), activation=activation))
    assert len(replayed) == 2  # for full batches and for the ragged one


@with_numba
@pytest.mark.parametrize("activation", activations.ACTIVATIONS)
def test_every_activation_of_more_elements_than_a_block(activation, replayed, monkeypatch):
    """Some 4000 elements: plain maxima of so many are another function of NumPy's."""
    monkeypatch.setattr(replay, "BLOCK", 300)
    monkeypatch.setattr(replay, "FITS_IN_CACHE", 600)
    x, classes = RNG.standard_normal((200, 5)).astype("float32"), RNG.integers(0, 9, 200)
    assert_same(*both(x, classes, (5, 50, 40, 9), activation=activation, batch_size=90))
    assert len(replayed[0].calls) > 150


@pytest.mark.parametrize("K", [1, 3, 12])
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss(loss, K, replayed):
    made = LOSSES[loss]()
    if made.targets == "classes":
        K = max(K, 2)
    Y = RNG.standard_normal(40) if loss == "quantiles" else targets(made, 40, K, RNG)
    K = 3 if loss == "quantiles" else K
    assert_same(*both(RNG.standard_normal((40, 5)), Y, (5, 8, K), loss=made))
    assert replayed


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("optimizer", FIRST_ORDER)
def test_every_optimizer(optimizer, decay, replayed):
    made = optimizers.OPTIMIZERS[optimizer](1e-2, weight_decay=decay)
    assert_same(*both(X, y, (5, 8, 3), optimizer=made))
    assert replayed


def assert_equal_trainings(given):
    found, plain = fit_or_diverge(TRACED, *given), fit_or_diverge(PLAIN, *given)
    if isinstance(plain, str):
        assert found == plain
    else:
        assert_same(found, plain)


@pytest.mark.parametrize("seed", range(1000, 1050))
def test_random_trainings(seed, replayed):
    assert_equal_trainings(configuration(seed))
    assert replayed


@pytest.mark.parametrize("seed", range(1050, 1100))
def test_random_trainings_in_blocks(seed, replayed, small_blocks):
    assert_equal_trainings(configuration(seed))
    assert replayed


@with_numba
def test_long_sums_have_numpys_order(replayed):
    rng = np.random.default_rng(0)
    x, Y = rng.standard_normal((1100, 40)).astype("float32"), rng.standard_normal((1100, 150))
    options = {"loss": "squared_error", "l1": 1e-3, "l2": 1e-3, "clip_norm": 0.5, "batch_size": 600, "epochs": 3}
    for width, given in ((150, Y), (1, Y[:, :1])):
        assert_same(*both(x, given, (40, 30, width), **options))
    assert len(replayed) == 4


@pytest.mark.parametrize("block", [None, 4])
def test_memory_that_overlaps_is_read_and_written_in_order(block, monkeypatch):
    """400 random programs over arrays of which some are views of others: none is refused, and none is wrong."""
    if block:
        monkeypatch.setattr(replay, "BLOCK", block)
        monkeypatch.setattr(replay, "FITS_IN_CACHE", block)
    inputs = (np.asarray([0.5, 0.25, 0.125]),)
    for seed in range(400):
        step, mine, theirs = random_step(seed), overlapping(seed), overlapping(seed)
        recorded = replay.Replayed(InPlace(step, mine, None), (), (), inputs)
        with np.errstate(all="ignore"):
            expected = [step(theirs, (), (), (number,))[1] for number in inputs[0].tolist()]
            found = recorded.run(recorded.tables(inputs), 0, 3)
        np.testing.assert_array_equal(found, expected, err_msg=str(seed))
        for x, other in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(x, other, err_msg=str(seed))


def test_wrong_calls_are_seen(replayed, monkeypatch):
    """The comparison with plain steps is worth something: a wrong activation is told."""
    bound = calls.Call.bound

    def wrong(self, argument):
        return bound(self._replace(function=np.minimum) if self.function is np.maximum else self, argument)

    monkeypatch.setattr(calls.Call, "bound", wrong)
    with pytest.raises(AssertionError):
        assert_same(*both(X, X[:, :1], (5, 8, 1), loss="squared_error"))
    assert replayed


@pytest.mark.parametrize("same", [True, False])
def test_small_products_are_made_by_dot_where_it_has_their_bits(same, replayed, monkeypatch):
    monkeypatch.setattr(calls, "is_product", lambda *given: same)
    assert_same(*both(X, y, (5, 8, 3)))
    functions = {function for function, _ in replayed[0].calls}
    assert (np.ndarray.dot in functions, np.matmul in functions) == (same, not same)


def test_small_products_have_the_bits_of_dot():
    """If this fails, NumPy or its BLAS has changed: nothing is wrong, but small networks train slower."""
    shapes = np.random.default_rng(0).integers(2, 40, (100, 3)).tolist()
    flips = [(False, False), (True, False), (False, True)]
    found = [calls.is_product(*n, flips[k % 3], np.dtype(("f4", "f8")[k % 2])) for k, n in enumerate(shapes)]
    assert sum(found) > 90


@pytest.mark.parametrize("activation", ["relu", "gelu", "selu"])
def test_gradients_are_pytorchs(activation, replayed):
    torch = pytest.importorskip("torch")
    functions = {
        "relu": torch.relu,
        "selu": torch.selu,
        "gelu": functools.partial(torch.nn.functional.gelu, approximate="tanh"),
    }
    x, classes = RNG.standard_normal((30, 5)), RNG.integers(0, 3, 30)
    init = [(RNG.standard_normal((a, b)), RNG.standard_normal((1, b))) for a, b in ((5, 8), (8, 3))]
    options = {"optimizer": dlx.gradient_descent(), "learning_rate": 1.0, "batch_size": 30, "epochs": 3}
    net = dlx.fit(x, classes, (5, 8, 3), activation=activation, init=init, backend=TRACED, **options)
    (W0, b0), (W1, b1) = parameters = [[torch.tensor(w, requires_grad=True) for w in layer] for layer in init]
    sgd = torch.optim.SGD([w for layer in parameters for w in layer], lr=1.0)
    for _ in range(3):
        sgd.zero_grad()
        scores = functions[activation](torch.tensor(x) @ W0 + b0) @ W1 + b1
        torch.nn.functional.cross_entropy(scores, torch.tensor(classes)).backward()
        sgd.step()
    for layer, expected in zip(net.params, parameters, strict=True):
        for w, variable in zip(layer, expected, strict=True):
            np.testing.assert_allclose(w, variable.detach().numpy(), rtol=1e-9, atol=1e-11)
    assert replayed


def peak_of(recorded, inputs, steps):
    """The most bytes that so many steps allocate at a time."""
    tables = recorded.tables(inputs)
    recorded.run(tables, 0, 2)
    gc.collect()
    tracemalloc.start()
    try:
        recorded.run(tables, 0, steps)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


HEAVY = {
    "relu": {},
    "selu": {"activation": "selu"},
    "gelu": {"activation": "gelu"},
    "mish": {"activation": "mish", "optimizer": "nadam"},
    "dropout and penalties": {"dropout": 0.3, "l2": 1e-3, "l1": 1e-3, "clip_norm": 0.5, "clip_value": 0.1},
    "weights": {"sample_weight": np.linspace(0.1, 2.0, 1500), "optimizer": dlx.adamw(weight_decay=1e-2)},
    "lion": {"optimizer": "lion", "activation": "leaky_relu"},
    "bytes": {"dtype": "float64"},
}


@with_numba
@pytest.mark.parametrize("case", HEAVY)
def test_a_step_allocates_no_array(case, replayed, monkeypatch):
    """Activations take 240 kB and more; where NumPy broadcasts shapes, its iterator takes up to 8192 elements."""
    given, kept = HEAVY[case], []
    tables = replay.Replayed.tables
    monkeypatch.setattr(replay.Replayed, "tables", lambda self, inputs: kept.append(inputs) or tables(self, inputs))
    x = RNG.integers(0, 255, (1500, 40)).astype("uint8" if case == "bytes" else "float32")
    dlx.fit(x, np.arange(1500) % 5, (40, 800, 600, 5), batch_size=100, epochs=1, rng=0, backend=TRACED, **given)
    assert peak_of(replayed[0], kept[0], 5) < 100_000


@with_numba
def test_rows_of_an_array_in_columns_order_are_not_taken_from_a_copy_of_it(replayed, monkeypatch):
    """The rows of a batch are 4 kB, all rows 800 kB; NumPy's `take` would copy all of them in every step."""
    kept = []
    tables = replay.Replayed.tables
    monkeypatch.setattr(replay.Replayed, "tables", lambda self, inputs: kept.append(inputs) or tables(self, inputs))
    rows = np.asfortranarray(RNG.standard_normal((5000, 40)).astype("float32"))
    assert_same(*both(rows, np.arange(5000) % 3, (40, 8, 3), batch_size=25, epochs=1))
    assert peak_of(replayed[0], kept[0], 20) < 20_000


def test_rows_of_every_layout_are_taken(replayed):
    read_only = X.copy()
    read_only.flags.writeable = False
    for rows in (np.asfortranarray(X), read_only, X.astype("int8"), X[:, ::-1], X > 0, X.astype("float16")):
        assert_same(*both(rows, y, (5, 8, 3), epochs=2, batch_size=20))
        assert_same(*both(rows, y, (5, 8, 3), epochs=4, batch_size=60))
    assert replayed


def test_buffers_that_are_not_alive_together_share_memory(replayed, monkeypatch):
    given = []
    laid_out = replay.laid_out
    monkeypatch.setattr(replay, "laid_out", lambda *given_to: given.append(laid_out(*given_to)) or given[-1])
    both(RNG.standard_normal((64, 5)), RNG.integers(0, 3, 64), (5, *[32] * 12, 3), batch_size=32, epochs=1)
    addresses = {x.__array_interface__["data"][0] for x in given[0].values()}
    assert len(addresses) < 0.8 * len(given[0])


def test_the_loop_keeps_its_contract(replayed, monkeypatch):
    """It begins and ends where it is told, yields at most so many steps at a time, and keeps the carry's arrays."""
    run, (carry, constants, inputs, n, *_) = begun()
    assert replayed
    done = [(after, len(losses)) for after, losses in run(carry, constants, inputs, n, 3, 4)]
    assert sum(k for _, k in done) == n - 3
    assert max(k for _, k in done) <= 4
    assert all(after is carry for after, _ in done)
    assert [*run(carry, constants, inputs, 5, 5)] == []
    monkeypatch.setattr(training, "SECONDS_AT_ONCE", 0.0)
    for _ in range(3):
        sizes = [len(losses) for _, losses in run(carry, constants, inputs, n)]
    assert sizes == [1] * n


def test_row_numbers_that_are_out_of_range_are_refused(replayed):
    run, (carry, constants, inputs, n, *_) = begun()
    wrong = inputs._replace(row_numbers=inputs.row_numbers + 1)
    with pytest.raises(IndexError, match="there are fewer rows than a batch asks for"):
        next(run(carry, constants, wrong, n))
    short = inputs._replace(row_numbers=inputs.row_numbers[:-1])
    with pytest.raises(IndexError, match="the inputs of a training have different numbers of steps"):
        next(run(carry, constants, short, n))
    with pytest.raises(IndexError, match="there are fewer inputs than steps"):
        list(run(carry, constants, inputs, n + 5))
    assert replayed


@pytest.mark.parametrize("second", [PLAIN, TRACED])
def test_ctrl_c_ends_a_training_after_an_update(second, replayed, monkeypatch, tmp_path):
    """It is saved, and goes on to the bits of one that was never interrupted, replayed or not."""
    options = {"batch_size": 2, "rng": 0, "dropout": 0.2, "epochs": 40}
    whole = dlx.fit(X, y, (5, 8, 3), backend=PLAIN, **options)
    run, count = replay.Replayed.run, []

    def interrupted(self, *given):
        count.append(given)
        if len(count) == 10:
            signal.raise_signal(signal.SIGINT)
        return run(self, *given)

    monkeypatch.setattr(replay.Replayed, "run", interrupted)
    monkeypatch.setattr(training, "SECONDS_AT_ONCE", 0.0)
    with pytest.warns(UserWarning, match="training was interrupted after 0 epochs"):
        dlx.fit(X, y, (5, 8, 3), backend=TRACED, checkpoint=tmp_path, **options)
    assert len(count) == 10
    assert_same(dlx.fit(X, y, (5, 8, 3), backend=second, checkpoint=tmp_path, **options), whole)


def test_a_training_goes_on_from_a_checkpoint_to_the_same_bits(replayed, tmp_path):
    options = {"batch_size": 7, "rng": 0, "dropout": 0.2}
    whole = dlx.fit(X, y, (5, 8, 3), epochs=4, backend=PLAIN, **options)
    for number, (first, second) in enumerate([(PLAIN, TRACED), (TRACED, PLAIN), (TRACED, TRACED)]):
        folder = tmp_path / str(number)
        dlx.fit(X, y, (5, 8, 3), epochs=2, backend=first, checkpoint=folder, **options)
        assert_same(dlx.fit(X, y, (5, 8, 3), epochs=4, backend=second, checkpoint=folder, **options), whole)


def test_rows_that_a_callback_changes_are_trained_on_as_they_are(replayed):
    def trained(backend):
        rows = X.copy()

        def double(_):
            rows[::3] *= 2.0

        return dlx.fit(rows, y, (5, 8, 3), epochs=4, batch_size=7, rng=0, backend=backend, callbacks=double)

    assert_same(trained(TRACED), trained(PLAIN))
    assert replayed


@pytest.mark.parametrize("n", [50, 6000])
def test_rows_whose_memory_a_callback_changes(n, replayed):
    """Fewer rows, or more, so that they lie elsewhere: the training goes on as a plain one or ends with an error."""

    def trained(backend):
        rows = X.copy()

        def resize(_):
            rows.resize((n, 5), refcheck=False)

        try:
            return dlx.fit(rows, y, (5, 8, 3), epochs=4, batch_size=7, rng=0, backend=backend, callbacks=resize)
        except (IndexError, ValueError) as error:
            return type(error)

    found, plain = trained(TRACED), trained(PLAIN)
    assert replayed
    if isinstance(plain, type):
        assert found is plain
    else:
        assert_same(found, plain)


@pytest.mark.parametrize(("epochs", "expected"), [(9, 0), (30, 1), (250, 2)])
def test_how_many_updates_repay_the_list(epochs, expected, replayed):
    """Of 8 updates of an epoch: none of 81; the full batches of 270; both kinds of 2250."""
    dlx.fit(X, y, (5, 8, 3), epochs=epochs, batch_size=7, rng=0, backend="numpy")
    assert len(replayed) == expected


def test_where_numba_may_not_compile_steps_are_replayed(replayed, monkeypatch):
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    monkeypatch.setitem(type(NUMPY).loop.__globals__, "_has_numba", lambda: pytest.fail("numba must not be asked"))
    assert_same(*both(X, y, (5, 8, 3)))
    assert replayed


def test_where_inner_loops_are_elsewhere_steps_are_replayed(replayed, monkeypatch):
    """As on NumPy 2.1, whose long sums its inner loops do not make."""
    monkeypatch.setattr(training._numpy_inner, "work", lambda dtype: False)
    monkeypatch.setitem(type(NUMPY).loop.__globals__, "_has_numba", lambda: True)
    assert_same(*both(X, y, (5, 8, 3)))
    assert replayed


@pytest.mark.parametrize(
    "options", [{"optimizer": "lbfgs"}, {"activation": (lambda z: z * 1.0, lambda z, a: a * 0 + 1.0)}]
)
def test_what_is_not_recorded_trains_as_ever(options, replayed):
    assert_same(*both(X, y, (5, 8, 3), **options))


def test_trainings_leave_nothing_behind(replayed):
    counts = []
    for _ in range(3):
        for seed in range(5):
            dlx.fit(X, y, (5, 8, 3), epochs=1, rng=seed, backend=TRACED)
        replayed.clear()
        gc.collect()
        counts.append(sum(issubclass(type(each), replay.Replayed | calls.Call) for each in gc.get_objects()))
    assert counts[0] == counts[-1]


def test_plain_steps_do_not_copy_all_rows_either():
    """Rows in the order of columns, as a data frame gives them: `take` would copy 16 MB for a batch of 25 kB."""
    rows, numbers = np.asfortranarray(RNG.standard_normal((20_000, 100))), np.arange(32) * 7
    tracemalloc.start()
    try:
        found = NUMPY.xp.take(rows, numbers, axis=0)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(found, rows[numbers], strict=True)
    assert found.flags.c_contiguous
