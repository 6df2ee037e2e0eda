"""Checkpoints: a training goes on from them to the same bits, and from nothing that is not the same training."""

import datetime
import math
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

import dlx
from dlx import checkpoints, descriptions, files, identity, saving

RNG = np.random.default_rng(3)
X = RNG.standard_normal((90, 5)).astype("float32")
Y = np.arange(90) % 3
HOW = {"layer_dims": (5, 8, 3), "epochs": 4, "batch_size": 16, "rng": 5, "activation": "tanh"}


class Stop(Exception):
    """What ends a training in the middle, as nothing that dlx knows."""


def host(net):
    return [net.backend.to_host(each) for layer in net.params for each in layer]


def assert_same(found, net):
    """To the last bit, with the same history but for the clock's."""
    for a, b in zip(host(found), host(net), strict=True):
        np.testing.assert_array_equal(a, b, strict=True)
    figures = [{name: each for name, each in x.history.items() if name != "seconds"} for x in (found, net)]
    assert figures[0] == figures[1]
    assert len(found.history["seconds"]) == len(net.history["seconds"])


def interrupted(folder, y=Y, every=1, saves=3, X=X, **how):
    """The training, ended from outside after every few saves and called again, until it is through."""
    save, ends = checkpoints.Checkpoints.save, 0
    for _ in range(200):
        count = 0

        def dying(self, progress):
            nonlocal count
            save(self, progress)
            count += 1
            if count == saves and not progress.ended:
                raise Stop

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(checkpoints.Checkpoints, "save", dying)
            try:
                return dlx.fit(X, y, checkpoint=folder, checkpoint_every=every, **how), ends
            except Stop:
                ends += 1
    raise AssertionError("it never ended")


FITS = {
    "adam, dropout, validation, patience": {"dropout": 0.3, "validation": 0.2, "patience": 2, "epochs": 6},
    "lbfgs": {"optimizer": "lbfgs", "epochs": 9},
    "nesterov, clipping, L2, a schedule": {
        "optimizer": dlx.nesterov(),
        "learning_rate": dlx.schedules.one_cycle(0.1),
        "clip_norm": 1.0,
        "l2": 1e-3,
    },
    "plateau": {"learning_rate": dlx.schedules.reduce_on_plateau(0.1, patience=0, improvement=0.5), "epochs": 6},
    "adamw, weights, order kept": {
        "optimizer": dlx.adamw(weight_decay=0.1),
        "sample_weight": np.arange(1.0, 91.0),
        "shuffle": False,
        "class_weight": "balanced",
    },
    "all rows at once": {"batch_size": None},
    "no slots": {
        "optimizer": "gradient_descent",
        "init": [(np.full((5, 8), 0.1), np.zeros(8)), (np.eye(8, 3), [0, 0, 0])],
    },
}


@pytest.mark.parametrize("fit", FITS.values(), ids=FITS)
def test_a_training_goes_on_to_the_same_bits(fit, be, tmp_path):
    how = {**HOW, "backend": be, **fit}
    net, ends = interrupted(tmp_path, **how)
    assert ends >= 1
    assert_same(net, dlx.fit(X, Y, **how))
    assert_same(dlx.fit(X, Y, **how, checkpoint=tmp_path), net)  # what has ended is returned
    assert sorted(path.name for path in tmp_path.iterdir())[2:] == [files.LOCK]  # and two checkpoints


@pytest.mark.parametrize("every", ["epoch", 1, 5, datetime.timedelta(0), datetime.timedelta(days=1)], ids=str)
def test_how_often_it_is_saved_changes_no_bit(every, tmp_path):
    net = dlx.fit(X, Y, **HOW, dropout=0.2, checkpoint=tmp_path, checkpoint_every=every)
    assert_same(net, dlx.fit(X, Y, **HOW, dropout=0.2))
    last = sorted(path.name for path in tmp_path.glob("checkpoint-*"))[-1]
    saves = {"epoch": 4, 1: 24, 5: 5, datetime.timedelta(0): 24}.get(every, 1)
    assert last == checkpoints.NAME.format(saves)
    assert_same(dlx.load(tmp_path / last), net)


@pytest.mark.parametrize(
    "generator", [np.random.MT19937, np.random.Philox, np.random.SFC64, np.random.PCG64DXSM], ids=lambda x: x.__name__
)
def test_every_generator_goes_on_and_is_left_as_it_would_have_been(generator, tmp_path):
    def how():
        return HOW | {"rng": np.random.Generator(generator(4)), "dropout": 0.2, "validation": 0.1}

    whole = how()
    net = dlx.fit(X, Y, **whole)
    save, rngs = checkpoints.Checkpoints.save, []
    for _ in range(3):
        rngs.append(how())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                checkpoints.Checkpoints, "save", lambda self, p: (save(self, p), p.start.epoch == 2 and 1 / 0)
            )
            try:
                found = dlx.fit(X, Y, **rngs[-1], checkpoint=tmp_path, checkpoint_every=4)
            except ZeroDivisionError:
                continue
            break
    found = dlx.fit(X, Y, **(last := how()), checkpoint=tmp_path, checkpoint_every=4)
    assert_same(found, net)
    assert last["rng"].integers(1 << 60) == whole["rng"].integers(1 << 60)


def test_without_a_seed_the_first_draws_are_those_of_before(tmp_path):
    """The rows held out are the same, or validation would look at rows that were trained on."""
    how = HOW | {"rng": None, "validation": 0.3, "checkpoint": tmp_path}
    first = dlx.fit(X, Y, **how | {"epochs": 2})
    again = dlx.fit(X, Y, **how | {"epochs": 2})
    assert_same(again, first)
    description, _ = saving.read(max(tmp_path.glob("checkpoint-*")), descriptions.layout)
    drawn = description["training"]["first_drawn_from"]
    generator = np.random.default_rng()
    generator.bit_generator.state = drawn
    net = dlx.fit(X, Y, **how | {"epochs": 4})
    assert_same(net, dlx.fit(X, Y, **how | {"epochs": 4, "rng": generator, "checkpoint": None}))


def test_a_stream_goes_on(be, tmp_path):
    how = HOW | {"backend": be, "stream": True, "dropout": 0.1}
    net, ends = interrupted(tmp_path, **how)
    assert ends >= 1
    assert_same(net, dlx.fit(X, Y, **how))


def test_a_checkpoint_of_one_library_goes_on_in_another(be, tmp_path):
    half = dlx.fit(X, Y, **HOW | {"epochs": 2, "backend": be}, checkpoint=tmp_path)
    net = dlx.fit(X, Y, **HOW | {"backend": "numpy"}, checkpoint=tmp_path)
    whole = dlx.fit(X, Y, **HOW)
    assert net.history["loss"][:2] == half.history["loss"]
    for a, b in zip(host(net), host(whole), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)  # float32 of two libraries


def test_more_epochs_train_on(tmp_path):
    dlx.fit(X, Y, **HOW | {"epochs": 2}, checkpoint=tmp_path)
    assert_same(dlx.fit(X, Y, **HOW, checkpoint=tmp_path), dlx.fit(X, Y, **HOW))
    with pytest.raises(
        ValueError, match=r"`epochs` must be at least 4, of which the checkpoint tells; got 3\. Raise it"
    ):
        dlx.fit(X, Y, **HOW | {"epochs": 3}, checkpoint=tmp_path)


def test_patience_that_has_ended_a_training_has_ended_it(tmp_path):
    how = HOW | {"validation": (X[::-1], Y), "patience": 1, "epochs": 60, "learning_rate": 0.05}
    net = dlx.fit(X, Y, **how, checkpoint=tmp_path)
    assert len(net.history["loss"]) < 60
    assert_same(dlx.fit(X, Y, **how | {"epochs": 90}, checkpoint=tmp_path), net)


def test_a_callback_that_has_ended_a_training_has_ended_it(tmp_path):
    net = dlx.fit(X, Y, **HOW, checkpoint=tmp_path, callbacks=lambda net: len(net.history["loss"]) == 2)
    assert len(net.history["loss"]) == 2
    assert_same(dlx.fit(X, Y, **HOW, checkpoint=tmp_path), net)


def test_functions_of_ones_own_go_on_but_cannot_be_loaded(tmp_path):
    how = HOW | {"activation": (np.tanh, lambda z, a: 1 - a * a), "learning_rate": lambda step, steps, losses: 0.1}
    net, ends = interrupted(tmp_path, **how)
    assert ends >= 1
    assert_same(net, dlx.fit(X, Y, **how))
    with pytest.raises(dlx.FileError, match="of a training with functions of your own"):
        dlx.load(max(tmp_path.glob("checkpoint-*")))


# -- another training --

OTHERS = {
    "layer_dims": {"layer_dims": (5, 9, 3)},
    "activation": {"activation": "relu"},
    "loss": {"loss": dlx.losses.cross_entropy(0.1)},
    "optimizer": {"optimizer": dlx.adam(b1=0.8)},
    "batch_size": {"batch_size": 8},
    "learning_rate": {"learning_rate": 0.01},
    "learning_rate ": {"learning_rate": dlx.schedules.cosine(1e-3)},
    "l2": {"l2": 0.1},
    "l1": {"l1": 0.1},
    "dropout": {"dropout": 0.5},
    "init": {"init": "he_normal"},
    "validation": {"validation": 0.1},
    "validation ": {"validation": (X, Y)},
    "patience": {"patience": 3},
    "sample_weight": {"sample_weight": np.arange(1.0, 91.0)},
    "sample_weight ": {"class_weight": {0: 1, 1: 1, 2: 3}},
    "clip_norm": {"clip_norm": 1.0},
    "clip_value": {"clip_value": 1.0},
    "shuffle": {"shuffle": False},
    "dtype": {"dtype": "float64"},
    "rng": {"rng": 6},
    "rng ": {"rng": None},
    "X": {"X": np.where(X[7, 2] == X, np.nextafter(X, 9.0), X)},
    "X ": {"X": X[np.r_[1, 0, 2:90]]},
    "X  ": {"X": X[:, [1, 0, 2, 3, 4]]},
    "X   ": {"X": X.astype("float64"), "dtype": "float32"},
    "y": {"y": Y[::-1]},
}


@pytest.mark.parametrize(("name", "other"), OTHERS.items(), ids=lambda x: x if isinstance(x, str) else "")
def test_another_training_is_refused_and_the_difference_named(name, other, tmp_path):
    dlx.fit(X, Y, **HOW | {"epochs": 1}, checkpoint=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    settings = {"X": X, "y": Y, **HOW, **other}
    with pytest.raises(
        ValueError,
        match=rf"`checkpoint` must be of the same training; got .*, whose {name.strip()} was .+ and is .+ now\. Pass",
    ):
        dlx.fit(**settings, checkpoint=tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    again = dlx.fit(**settings, checkpoint=tmp_path, resume="ignore")
    assert_same(again, dlx.fit(**settings) if settings["rng"] is not None else again)
    assert dlx.load(max(tmp_path.glob("checkpoint-*"))).history == again.history


def test_rates_that_depend_on_the_number_of_epochs_hold_it_fast(tmp_path):
    how = HOW | {"learning_rate": dlx.schedules.cosine(0.1), "checkpoint": tmp_path}
    dlx.fit(X, Y, **how | {"epochs": 2})
    with pytest.raises(ValueError, match="whose learning_rate was"):
        dlx.fit(X, Y, **how)


@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (300, 1), (5000, 100), (40, 2, 3), (9,)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "bool", "int16"])
def test_a_fingerprint_sees_every_element_and_their_order(shape, dtype, be):
    x = (np.random.default_rng(0).random(shape) * 100).astype(dtype)
    if dtype != "float64":
        try:
            be.dtype(dtype)
        except TypeError:
            return
    here = identity.fingerprint(x, dlx.get_backend("numpy"))
    assert identity.fingerprint(be.asarray(x), be).split()[1:] == here.split()[1:]  # of whatever library
    assert identity.fingerprint(np.asfortranarray(x), be) == here
    other = x.copy()
    other.flat[-1] = not other.flat[-1] if dtype == "bool" else other.flat[-1] + 1
    assert identity.fingerprint(other, be) != here
    turned = x[::-1]
    assert (identity.fingerprint(turned, be) == here) == bool((turned == x).all())


# -- what is asked for --


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        ({"checkpoint": 3}, TypeError, "`checkpoint` must be the path of a folder, or None; got 3. For example"),
        ({"checkpoint_every": 0}, ValueError, "`checkpoint_every` must be an integer >= 1; got 0. It counts updates."),
        ({"checkpoint_every": 1.5}, TypeError, "`checkpoint_every` must be an integer >= 1; got 1.5."),
        ({"checkpoint_every": "hour"}, ValueError, "`checkpoint_every` must be one of 'epoch'; got 'hour'. Or pass"),
        ({"checkpoint_every": datetime.timedelta(-1)}, ValueError, "`checkpoint_every` must be at least no time; got"),
        ({"resume": True}, TypeError, "`resume` must be one of 'auto', 'ignore'; got True. 'auto' goes on"),
        ({"resume": "yes"}, ValueError, "`resume` must be one of 'auto', 'ignore'; got 'yes'."),
    ],
)
def test_what_is_refused(arguments, kind, text, tmp_path):
    with pytest.raises(kind) as caught:
        dlx.fit(X, Y, **HOW, **{"checkpoint": tmp_path, **arguments})
    assert str(caught.value).startswith(text)


def test_a_damaged_checkpoint_is_passed_over_and_two_are_an_error(tmp_path):
    dlx.fit(X, Y, **HOW | {"epochs": 3}, checkpoint=tmp_path)
    _, newer = sorted(tmp_path.glob("checkpoint-*"))
    newer.write_bytes(newer.read_bytes()[:-1])
    with pytest.warns(UserWarning, match=r"the checkpoint before is used: `path` must be a file .*, and whole; got"):
        net = dlx.fit(X, Y, **HOW, checkpoint=tmp_path)
    assert_same(net, dlx.fit(X, Y, **HOW))
    for path in tmp_path.glob("checkpoint-*"):
        path.write_bytes(b"")
    warned = pytest.warns(UserWarning, match="the checkpoint before is used")
    with warned, pytest.raises(dlx.FileError, match=r"Or pass resume='ignore' to start anew\."):
        dlx.fit(X, Y, **HOW, checkpoint=tmp_path)
    assert_same(dlx.fit(X, Y, **HOW, checkpoint=tmp_path, resume="ignore"), net)


CHANGES = {
    "negative updates": {"updates": -1},
    "an epoch that is none": {"epoch": "one"},
    "more epochs than there were": {"epoch": 3},
    "a best epoch beyond": {"best_epoch": 7},
    "another generator": {"drawn_from": {"bit_generator": "MT19937"}},
    "no generator": {"drawn_from": None},
    "a generator of numbers": {"drawn_from": 7},
    "a limit that is none": {"limit": "high"},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_training_that_does_not_fit_its_own_checkpoint(change, tmp_path):
    how = HOW | {"epochs": 2, "validation": 0.2, "patience": 5, "checkpoint": tmp_path}
    dlx.fit(X, Y, **how)
    for path in tmp_path.glob("checkpoint-*"):
        description, arrays = saving.read(path, descriptions.layout)
        description["training"] |= change
        saving.write(path, description, arrays)
    with pytest.raises(dlx.FileError):
        dlx.fit(X, Y, **how | {"epochs": 5})


def test_slots_that_are_not_finite_are_refused(tmp_path):
    dlx.fit(X, Y, **HOW, checkpoint=tmp_path)
    for path in tmp_path.glob("checkpoint-*"):
        description, arrays = saving.read(path, descriptions.layout)
        arrays["slots/0/W1"][0, 0] = math.nan
        saving.write(path, description, arrays)
    with pytest.raises(dlx.FileError, match="a number that is not finite"):
        dlx.fit(X, Y, **HOW | {"epochs": 9}, checkpoint=tmp_path)


# -- faults --


def test_a_training_that_diverges_leaves_the_last_good_checkpoint(tmp_path):
    how = {"learning_rate": lambda step, steps, losses: 1e-3 if step < 10 else 1e30, "optimizer": "gradient_descent"}
    how |= {"layer_dims": (5, 1), "loss": "squared_error", "batch_size": 16, "epochs": 9, "rng": 0}
    with pytest.raises(dlx.DivergenceError, match=r"The state before is in .*checkpoint-\d+\.safetensors: dlx\.load"):
        dlx.fit(X, X[:, 0], **how, checkpoint=tmp_path, checkpoint_every=1)
    (path,) = tmp_path.glob("checkpoint-*")  # the one after it held the weights that gave the bad loss
    assert dlx.load(path).score(X, X[:, 0]) > -10
    description, _ = saving.read(path, descriptions.layout)
    assert description["training"]["updates"] == 10


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), OSError(30, "Read-only file system")])
def test_a_disk_that_refuses_is_an_error_and_the_checkpoint_before_stays(error, tmp_path, monkeypatch):
    dlx.fit(X, Y, **HOW | {"epochs": 2}, checkpoint=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: (_ for _ in ()).throw(error))
        with pytest.raises(
            OSError, match=rf"update 18 was not saved: {error.strerror}\. What was saved before is as"
        ) as c:
            dlx.fit(X, Y, **HOW, checkpoint=tmp_path)
    assert c.value.errno == error.errno
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert_same(dlx.fit(X, Y, **HOW, checkpoint=tmp_path), dlx.fit(X, Y, **HOW))


def test_a_folder_that_vanishes_is_an_error(tmp_path):
    folder = tmp_path / "run"

    def vanish(net):
        if len(net.history["loss"]) == 2:
            for path in folder.iterdir():
                path.unlink()
            folder.rmdir()

    with pytest.raises(FileNotFoundError, match="update 12 was not saved: No such file or directory"):
        dlx.fit(X, Y, **HOW, checkpoint=folder, callbacks=vanish)
    assert not folder.exists()


def test_a_folder_that_is_a_file_is_an_error_before_any_work(tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(FileExistsError):
        dlx.fit(X, Y, **HOW, checkpoint=tmp_path / "run")
    assert (tmp_path / "run").read_text() == "mine"


# -- in a process of its own --

SCRIPT = """
import os, resource, signal, sys, threading, time
import numpy as np
import dlx
X = np.random.default_rng(3).standard_normal((90, 5)).astype("float32")
Y = np.arange(90) % 3
HOW = {"layer_dims": (5, 8, 3), "epochs": 4, "batch_size": 16, "rng": 5, "activation": "tanh"}
folder = sys.argv[1]
signal.signal(signal.SIGTERM, signal.SIG_DFL)
"""


def run_apart(code, folder):
    return subprocess.run(
        [sys.executable, "-c", SCRIPT + textwrap.dedent(code), str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


@pytest.mark.skipif(os.name != "posix", reason="signals and limits of POSIX systems")
class TestApart:
    def test_sigterm_saves_within_an_epoch_and_ends(self, tmp_path):
        code = """
        def slowly(step, steps, losses):  # the signal comes while an epoch is prepared, and is held
            if step == 14:
                signal.raise_signal(signal.SIGTERM)
            return 1e-3
        dlx.fit(X, Y, **HOW, checkpoint=folder, learning_rate=slowly)
        print("not reached")
        """
        run = run_apart(code, tmp_path)
        assert run.returncode == -signal.SIGTERM, run.stderr
        assert run.stdout == ""
        description, _ = saving.read(max(tmp_path.glob("checkpoint-*")), descriptions.layout)
        training = description["training"]
        assert (training["updates"], training["epoch"], training["position"]) == (13, 2, 1)

    def test_sigterm_while_validating_saves_the_whole_epoch(self, tmp_path):
        code = """
        dlx.fit(X, Y, **HOW, checkpoint=folder, callbacks=lambda net: os.kill(os.getpid(), signal.SIGTERM))
        """
        run = run_apart(code, tmp_path)
        assert run.returncode == -signal.SIGTERM, run.stderr
        assert_same(dlx.fit(X, Y, **HOW, checkpoint=tmp_path), dlx.fit(X, Y, **HOW))

    def test_a_full_disk(self, tmp_path):
        code = """
        def full(net):
            if len(net.history["loss"]) == 2:
                resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        try:
            dlx.fit(X, Y, **HOW, checkpoint=folder, callbacks=full)
        except OSError as error:
            print(error)
        """
        run = run_apart(code, tmp_path)
        assert "update 12 was not saved: File too large. What was saved before is as it was." in run.stdout, run.stderr
        assert sorted(path.name for path in tmp_path.iterdir()) == [checkpoints.NAME.format(1), files.LOCK]
        assert_same(dlx.fit(X, Y, **HOW, checkpoint=tmp_path), dlx.fit(X, Y, **HOW))

    def test_a_read_only_folder(self, tmp_path):
        code = """
        dlx.fit(X, Y, **HOW)  # imports what the next user may not read
        if os.getuid() == 0:
            os.setuid(65534)
        try:
            dlx.fit(X, Y, **HOW, checkpoint=folder)
        except PermissionError as error:
            print(error)
        """
        (tmp_path / "run").mkdir(mode=0o555)
        tmp_path.chmod(0o755)
        for folder in (tmp_path, *tmp_path.parents):
            if not os.stat(folder).st_mode & 0o001:
                folder.chmod(os.stat(folder).st_mode | 0o001)  # pytest's own folders are closed to others
        run = run_apart(code, tmp_path / "run")
        assert "Permission denied" in run.stdout, run.stderr

    def test_memory_that_ends(self, tmp_path):
        code = """
        X = np.repeat(X, 40, axis=1); Y = np.repeat(Y, 400); X = np.repeat(X, 400, axis=0)
        HOW = {"layer_dims": (200, 512, 3), "epochs": 4, "batch_size": 8192, "rng": 5}
        def tight(net):
            used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 20), resource.RLIM_INFINITY))
        try:
            dlx.fit(X, Y, **HOW, checkpoint=folder, callbacks=tight)
        except dlx.OutOfMemory as error:
            print(error)
        """
        run = run_apart(code, tmp_path)
        assert "`batch_size` must let a fit of about" in run.stdout, run.stderr
        assert len(dlx.load(tmp_path / checkpoints.NAME.format(1)).history["loss"]) == 1

    def test_two_trainings_of_one_folder(self, tmp_path):
        code = """
        dlx.fit(X, Y, **HOW | {"epochs": 10**6}, checkpoint=folder, callbacks=lambda net: print("epoch", flush=True))
        """
        command = [sys.executable, "-c", SCRIPT + textwrap.dedent(code), str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
            assert run.stdout.readline() == "epoch\n"
            try:
                with pytest.raises(ValueError, match=rf"no other training uses; got .*, which process {run.pid} on "):
                    dlx.fit(X, Y, **HOW, checkpoint=tmp_path)
            finally:
                run.kill()
        dlx.fit(X, Y, **HOW | {"epochs": 10**6}, checkpoint=tmp_path, callbacks=lambda net: True)


def test_ctrl_c_saves_and_gives_the_weights_so_far(tmp_path):
    def pressed(step, steps, losses):
        if step == 14 and not list(tmp_path.glob("pressed")):
            (tmp_path / "pressed").touch()
            signal.raise_signal(signal.SIGINT)
        return 1e-3

    how = HOW | {"learning_rate": pressed}
    with pytest.warns(UserWarning, match="training was interrupted after 3 epochs; the weights so far are kept"):
        net = dlx.fit(X, Y, **how, checkpoint=tmp_path)
    assert net.score(X, Y) > 0
    description, _ = saving.read(max(tmp_path.glob("checkpoint-*")), descriptions.layout)
    assert (description["training"]["updates"], description["training"]["position"]) == (13, 1)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert_same(dlx.fit(X, Y, **how, checkpoint=tmp_path), dlx.fit(X, Y, **HOW))


def test_a_handler_of_the_users_own_stays(tmp_path):
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
    try:
        dlx.fit(X, Y, **HOW, checkpoint=tmp_path, callbacks=lambda net: os.kill(os.getpid(), signal.SIGTERM))
        time.sleep(0.01)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert len(heard) == 4
