"""What resuming and saving cost as a training grows, by counting; and what the promise of the same bits depends on."""

import sys
import warnings

import numpy as np
import pytest

import dlx
from dlx import backend, schedules
from dlx.files import container, fingerprint, schema

RNG = np.random.default_rng(6)
X = RNG.standard_normal((24, 3))
Y = X[:, 0]
HOW = {"layer_dims": (3, 1), "batch_size": 8, "epochs": 2, "rng": 0}


class Counting(schedules.Losses):
    """Losses that count how many of them are looked at."""

    touched = 0

    def __getitem__(self, at):
        found = super().__getitem__(at)
        type(self).touched += len(found) if isinstance(at, slice) else 1
        return found

    def __iter__(self):
        type(self).touched += len(self)
        return super().__iter__()


def test_a_plateau_looks_at_each_loss_once():
    """Resuming 80,000 epochs took 17 to 58 s where training took 11: each step looked at all losses so far."""
    schedule, losses = schedules.reduce_on_plateau(1.0, 0.5, patience=3), Counting()
    plain = schedules.reduce_on_plateau(1.0, 0.5, patience=3)
    Counting.touched, found = 0, []
    for _ in range(400):
        found += [schedule(step, 1000, losses) for step in range(3)]
        losses.append(float(RNG.standard_normal()))
    assert Counting.touched <= 400
    assert found == [plain(0, 1000, [*losses][:epoch]) for epoch in range(400) for step in range(3)]
    assert min(found) < 1e-6


def test_a_plateau_is_a_function_of_its_arguments():
    """Two trainings share it, one begins again, and a list may be changed anywhere."""
    schedule = schedules.reduce_on_plateau(1.0, 0.5, patience=0)
    worse, better = schedules.Losses([1.0, 2.0, 3.0]), schedules.Losses([3.0, 2.0, 1.0])
    for _ in range(3):
        assert schedule(0, 9, worse) == 0.25
        assert schedule(0, 9, better) == 1.0
    assert schedule(0, 9, schedules.Losses([1.0])) == 1.0
    plain = [1.0, 2.0, 3.0]
    assert schedule(0, 9, plain) == 0.25
    plain[0] = 9.0
    assert schedule(0, 9, plain) == 0.5
    del plain[1:]
    assert schedule(0, 9, plain) == 1.0
    worse.append(4.0)
    assert schedule(0, 9, worse) == 0.125
    assert schedule(0, 9, tuple(worse)) == 0.125


@pytest.mark.parametrize("plans", [(1200, 1200), (1200, 2400)], ids=["the same plan", "more epochs"])
def test_resuming_asks_for_each_rate_a_few_times(plans, monkeypatch):
    """And hands over one list of losses, which grows, not a list of its own for each step."""
    monkeypatch.setattr(fingerprint, "Losses", Counting)
    calls, lists = [], set()

    def schedule(step, steps, losses):
        calls.append((step, len(losses)))
        lists.add(id(losses))
        return 0.5

    history = {"loss": [1.0] * 400, "learning_rate": [0.5] * 400}
    Counting.touched = 0
    assert fingerprint.keeps_rates(schedule, plans, 3, history, 1200)
    assert all(seen == step // 3 for step, seen in calls)
    assert len(calls) == (400 if plans[0] == plans[1] else 400 + 2 * 1200)
    assert len(lists) == 1
    assert Counting.touched == 0


@pytest.mark.parametrize("wrong", [0, 7, 11])
def test_another_rate_in_any_epoch_is_found(wrong):
    rates = [0.5] * 12
    rates[wrong] = 0.25
    history = {"loss": [1.0] * 12, "learning_rate": rates}
    assert not fingerprint.keeps_rates(lambda *rest: 0.5, (36, 36), 3, history, 36)


@pytest.mark.parametrize("wrong", [0, 20, 36])
def test_another_plan_in_any_update_is_found(wrong):
    """The last epoch is half done."""
    history = {"loss": [1.0] * 12, "learning_rate": [0.5] * 12}
    schedule = lambda step, steps, losses: 0.25 if step == wrong and steps == 60 and step % 3 != 2 else 0.5  # noqa: E731
    assert fingerprint.keeps_rates(schedule, (45, 45), 3, history, 37)
    assert fingerprint.keeps_rates(schedule, (45, 60), 3, history, 37) == (wrong == 20)


def test_a_history_is_converted_as_it_was():
    """The fast way is for plain floats alone."""
    odd = {"a": [1.0, float("nan")], "b": [1, np.float32(0.1), True], "c": (2.0, 3.0), "d": [], "e": np.arange(2.0)}
    found = schema.history_arrays(odd)
    for name, figures in odd.items():
        expected = np.array([float(each) for each in figures])
        np.testing.assert_array_equal(found[schema.HISTORY + name], expected, strict=True)
    with pytest.raises(ValueError, match="`history` must be a dict of lists of numbers"):
        schema.history_arrays({"a": [1.0, None]})


def test_each_library_says_what_its_bits_depend_on(be):
    facts = be.arithmetic()
    assert facts["version"] == be.describe()["version"]
    assert len(facts) > 1
    assert {type(each) for fact in facts.items() for each in fact} == {str}
    assert backend.Backend.arithmetic(be) == {"version": facts["version"]}


def test_numpys_blas_is_its_own():
    """SciPy brings another one, which may be loaded or not."""
    before = dlx.get_backend("numpy").arithmetic()
    pytest.importorskip("scipy.linalg")
    assert dlx.get_backend("numpy").arithmetic() == before
    threadpoolctl = pytest.importorskip("threadpoolctl")
    with threadpoolctl.threadpool_limits(1):
        assert dlx.get_backend("numpy").arithmetic()["BLAS threads"] == "1"


def test_without_threadpoolctl_the_environment_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    assert "OPENBLAS_NUM_THREADS=3" in dlx.get_backend("numpy").arithmetic()["BLAS environment"]


def rewritten(folder, change):
    """The newest checkpoint with other settings."""
    path = max(folder.glob("checkpoint-*"))
    description, arrays = container.read(path, schema.layout)
    change(description["training"]["settings"])
    container.write(path, description, arrays)


def test_other_arithmetic_warns_once_and_goes_on(be, tmp_path):
    """Saved with one BLAS thread and resumed with two, a training gave a third set of bits without a word."""
    how = HOW | {"backend": be}
    dlx.fit(X, Y, **how, checkpoint=tmp_path)

    def change(settings):
        settings["arithmetic"] |= {"version": "1.2.3", "BLAS threads": "17"}

    rewritten(tmp_path, change)
    with pytest.warns(UserWarning, match=r"perhaps not to the same bits: version was 1\.2\.3 and is .* now") as caught:
        net = dlx.fit(X, Y, **how | {"epochs": 4}, checkpoint=tmp_path)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert ("BLAS threads was 17 and is" in str(caught[0].message)) == ("BLAS threads" in be.arithmetic())
    assert len(net.history["loss"]) == 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dlx.fit(X, Y, **how | {"epochs": 6}, checkpoint=tmp_path)


def test_threads_that_differ_are_named(tmp_path):
    threadpoolctl = pytest.importorskip("threadpoolctl")
    with threadpoolctl.threadpool_limits(1):
        dlx.fit(X, Y, **HOW, checkpoint=tmp_path)
    with threadpoolctl.threadpool_limits(2):
        now = dlx.get_backend("numpy").arithmetic()["BLAS threads"]
        if now == "1":
            return  # a machine of one processor
        with pytest.warns(UserWarning, match=f"BLAS threads was 1 and is {now} now. Where bits matter"):
            dlx.fit(X, Y, **HOW | {"epochs": 4}, checkpoint=tmp_path)


@pytest.mark.parametrize("was", [None, "a text", {}, {"backend": "torch", "version": "0"}], ids=str)
def test_a_checkpoint_that_does_not_say_or_is_of_another_library_does_not_warn(was, tmp_path):
    dlx.fit(X, Y, **HOW, checkpoint=tmp_path)
    rewritten(tmp_path, lambda settings: settings.pop("arithmetic") if was is None else settings.update(arithmetic=was))
    dlx.fit(X, Y, **HOW | {"epochs": 4}, checkpoint=tmp_path)
