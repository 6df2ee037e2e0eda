"""A call of `fit` that is refused leaves no trace: no draw, no folder, no lock."""

import os

import numpy as np
import pytest

import dlx
from dlx.files import atomic

RNG = np.random.default_rng(2)
X = RNG.standard_normal((40, 3))
Y = (X[:, 0] > 0).astype(int)
HOW = {"layer_dims": (3, 4, 2), "epochs": 2}
NAN = np.where(np.arange(120).reshape(40, 3) == 7, np.nan, X)
REFUSED = {
    "an initialiser of a wrong shape": {"validation": 0.2, "init": lambda rng, a, b: rng.standard_normal((a, b + 1))},
    "an initialiser that raises": {"init": lambda rng, a, b: rng.standard_normal((a, b)) / [1.0] * {}},
    "one that gives no numbers": {"validation": 0.2, "init": lambda rng, a, b: np.full((a, b), rng.random() * np.nan)},
    "X": {"X": NAN},
    "y": {"y": Y.astype(float) + 0.5},
    "validation targets": {"validation": (X, Y + 7)},
    "validation rows": {"validation": (NAN, Y)},
    "a loss that fails": {"loss": (lambda z, y: z[:, :1], lambda z, y: z[:, :1])},
    "too many epochs to be saved": {"epochs": 1 << 40},
    "an optimizer of too many slots": {"optimizer": dlx.adam()._replace(slots=9)},
    "Ctrl-C": {"init": lambda rng, a, b: rng.standard_normal((a, b)) + _interrupted()},
}


def _interrupted():
    raise KeyboardInterrupt


def call(X=X, y=Y, **how):
    return dlx.fit(X, y, **HOW | how)


def tree(folder):
    """All that lies there, and what it holds."""
    paths = sorted(folder.rglob("*"))
    return {path.relative_to(folder): path.read_bytes() if path.is_file() else None for path in paths}


def states(generator):
    return generator.bit_generator.state, np.random.get_state()[1].tolist(), np.random.get_state()[2:]


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("folder", ["run", "parent/other/run"])
def test_a_refused_call_leaves_no_trace(case, folder, tmp_path):
    """`validation=.2` and an initialiser of a wrong shape had moved g; a folder and a lock were left."""
    generator = np.random.default_rng(4)
    before = states(generator)
    (tmp_path / "parent").mkdir()
    with pytest.raises((ValueError, TypeError, KeyboardInterrupt)):
        call(**case, rng=generator, checkpoint=tmp_path / folder)
    assert states(generator) == before
    assert list(tree(tmp_path)) == [(tmp_path / "parent").relative_to(tmp_path)]


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_without_checkpoints_either(case):
    if case.get("epochs") or "optimizer" in case:
        return  # these are for those that save
    generator = np.random.default_rng(4)
    before = states(generator)
    with pytest.raises((ValueError, TypeError, KeyboardInterrupt)):
        call(**case, rng=generator)
    assert states(generator) == before


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("resume", ["auto", "ignore"])
def test_a_folder_that_is_there_stays_as_it_was(case, resume, tmp_path):
    call(rng=np.random.default_rng(3), checkpoint=tmp_path)
    (tmp_path / "mine").write_text("mine")
    before, generator = tree(tmp_path), np.random.default_rng(4)
    state = states(generator)
    with pytest.raises((ValueError, TypeError, KeyboardInterrupt)):
        call(**case, rng=generator, checkpoint=tmp_path, resume=resume)
    assert states(generator) == state
    assert tree(tmp_path) == before


def test_a_folder_without_a_lock_gets_none(tmp_path):
    with pytest.raises(ValueError, match="`init` must return W of shape"):
        call(**REFUSED["an initialiser of a wrong shape"], checkpoint=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_another_put_there_meanwhile_stays(tmp_path):
    def busy(rng, a, b):
        (tmp_path / "new" / "run" / "note").write_text("mine")
        raise ValueError("no weights")

    with pytest.raises(ValueError, match="no weights"):
        call(init=busy, checkpoint=tmp_path / "new" / "run")
    assert [path.name for path in tree(tmp_path)] == ["new", "run", "note"]


def test_what_has_begun_is_not_undone(tmp_path):
    """An error of a callback's after the first epoch: what was saved stays, and the generator has moved."""
    generator = np.random.default_rng(4)
    before = states(generator)

    def failing(net):
        raise ArithmeticError("mine")

    with pytest.raises(ArithmeticError, match="mine"):
        call(rng=generator, checkpoint=tmp_path / "run", callbacks=failing, checkpoint_every=1, batch_size=16)
    assert states(generator) != before
    assert (tmp_path / "run" / atomic.LOCK).exists()
    assert list((tmp_path / "run").glob("checkpoint-*"))


def test_more_epochs_than_a_file_holds_are_refused_before_any_work(tmp_path):
    """1.4 million epochs of a small network were trained, and then "`history` must hold at most 4194304 numbers"."""
    with pytest.raises(
        ValueError, match=r"`epochs` must be at most 22369621 where each is saved; got 1\d+\. Use fewer"
    ):
        call(epochs=10**8, checkpoint=tmp_path / "run")
    with pytest.raises(ValueError, match=r"`epochs` must be at most 13421772 where each is saved"):
        call(epochs=10**8, checkpoint=tmp_path / "run", validation=0.2)
    assert not os.path.lexists(tmp_path / "run")


ESTIMATOR = {"hidden_layer_sizes": (4,), "max_iter": 2}


@pytest.mark.parametrize("how", ["fit", "partial_fit"])
@pytest.mark.parametrize("own", [True, False], ids=["a RandomState", "NumPy's own"])
def test_a_refused_fit_of_an_estimator_draws_nothing(how, own):
    pytest.importorskip("sklearn")
    state = np.random.RandomState(3) if own else None
    stream = state or np.random.mtrand._rand
    clf = dlx.MLPClassifier(**ESTIMATOR, random_state=state, init=lambda rng, a, b: np.zeros((a, b + 1)))
    before = stream.get_state()
    with pytest.raises(ValueError, match="`init` must return W"):
        getattr(clf, how)(X, Y, **({"classes": [0, 1]} if how == "partial_fit" else {}))
    after = stream.get_state()
    np.testing.assert_array_equal(after[1], before[1])
    assert after[2:] == before[2:]
    assert vars(clf).keys() == clf.get_params().keys()


def test_a_partial_fit_that_fails_draws_again_what_it_would_have():
    """The order of its batches comes from a stream that goes on from call to call."""
    pytest.importorskip("sklearn")
    one, other = (dlx.MLPClassifier(**ESTIMATOR, batch_size=8, random_state=0) for _ in range(2))
    for each in (one, other):
        each.partial_fit(X, Y, classes=[0, 1])
    one.set_params(solver=dlx.gradient_descent(1e300))
    with pytest.raises(ValueError, match="training diverged"):
        one.partial_fit(X, Y)
    one.set_params(solver="adam")
    for each in (one, other):
        each.partial_fit(X, Y)
    for a, b in zip(one.coefs_, other.coefs_, strict=True):
        np.testing.assert_array_equal(a, b)


def test_errors_of_the_users_own_code_arrive_as_they_are():
    """A StopIteration too, which a generator on its way would make a RuntimeError of."""

    def stops(*rest):
        return next(iter([]))

    X, y = np.zeros((20, 3)), np.arange(20) % 2
    for settings in ({"init": stops}, {"learning_rate": stops}, {"activation": (stops, stops)}):
        with pytest.raises(StopIteration):
            dlx.fit(X, y, (3, 2, 2), rng=0, **settings)


def test_memory_that_ends_while_targets_are_read_is_explained():
    class Targets:
        def __len__(self):
            return 20

        def __array__(self, *rest, **named):
            raise MemoryError("no")

    with pytest.raises(dlx.OutOfMemory, match="`batch_size` must let a fit of about"):
        dlx.fit(np.zeros((20, 3)), Targets(), (3, 2), rng=0)
