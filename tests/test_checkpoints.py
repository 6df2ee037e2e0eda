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
import safetensors.numpy

import dlx
from dlx.files import atomic, checkpoints, container, fingerprint, schema

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
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names[:1] == [atomic.LOCK]
    assert len(names) == 3  # it, and two checkpoints


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
            patch.setattr(checkpoints.Checkpoints, "save", lambda self, p: (save(self, p), p.epoch == 2 and 1 / 0))
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
    description, _ = container.read(max(tmp_path.glob("checkpoint-*")), schema.layout)
    drawn = description["training"]["first_drawn_from"]
    generator = np.random.default_rng()
    generator.bit_generator.state = drawn
    net = dlx.fit(X, Y, **how | {"epochs": 4})
    assert_same(net, dlx.fit(X, Y, **how | {"epochs": 4, "rng": generator, "checkpoint": None}))


def test_every_update_is_saved_where_that_is_asked_for(be, tmp_path):
    """Also by a library that computes many updates in one compiled loop."""
    dlx.fit(X, Y, **HOW | {"backend": be}, checkpoint=tmp_path, checkpoint_every=1)
    assert max(tmp_path.glob("checkpoint-*")).name == checkpoints.NAME.format(24)


def test_the_seconds_of_an_epoch_are_those_before_and_after_the_stop(tmp_path):
    with pytest.raises(Stop):
        dlx.fit(X, Y, **HOW, checkpoint=tmp_path, checkpoint_every=9, callbacks=[stop_at(2)])
    path = max(tmp_path.glob("checkpoint-*"))
    description, arrays = container.read(path, schema.layout)
    assert 0 < description["training"]["seconds"] < 60
    description["training"]["seconds"] += 1000.0
    container.write(path, description, arrays)
    net = dlx.fit(X, Y, **HOW, checkpoint=tmp_path)
    assert 1000 < net.history["seconds"][1] < 1060
    assert max(net.history["seconds"][0], *net.history["seconds"][2:]) < 60


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


def test_fewer_epochs_than_were_begun_are_refused(tmp_path):
    with pytest.raises(Stop):
        dlx.fit(X, Y, **HOW, checkpoint=tmp_path, checkpoint_every=9, callbacks=[stop_at(2)])
    with pytest.raises(ValueError, match="`epochs` must be at least 2, which the checkpoint has begun; got 1"):
        dlx.fit(X, Y, **HOW | {"epochs": 1}, checkpoint=tmp_path)
    assert_same(dlx.fit(X, Y, **HOW, checkpoint=tmp_path), dlx.fit(X, Y, **HOW))


def test_a_generator_is_left_as_it_came_where_the_training_is_refused(tmp_path):
    dlx.fit(X, Y, **HOW | {"rng": np.random.default_rng(5)}, checkpoint=tmp_path)
    generator = np.random.default_rng(5)
    with pytest.raises(ValueError, match="`epochs` must be at least 4"):
        dlx.fit(X, Y, **HOW | {"epochs": 1, "rng": generator}, checkpoint=tmp_path)
    assert generator.bit_generator.state == np.random.default_rng(5).bit_generator.state


def stop_at(epoch):
    def stop(net):
        if len(net.history["loss"]) == epoch:
            raise Stop

    return stop


def test_more_epochs_train_on(tmp_path):
    dlx.fit(X, Y, **HOW | {"epochs": 2}, checkpoint=tmp_path)
    assert_same(dlx.fit(X, Y, **HOW, checkpoint=tmp_path), dlx.fit(X, Y, **HOW))
    with pytest.raises(
        ValueError, match=r"`epochs` must be at least 4, which the checkpoint has begun; got 3\. Raise it"
    ):
        dlx.fit(X, Y, **HOW | {"epochs": 3}, checkpoint=tmp_path)


def test_patience_that_has_ended_a_training_has_ended_it(tmp_path):
    how = HOW | {"validation": (X[::-1], Y), "patience": 1, "epochs": 60, "learning_rate": 0.05}
    net = dlx.fit(X, Y, **how, checkpoint=tmp_path)
    assert len(net.history["loss"]) < 60
    assert_same(dlx.fit(X, Y, **how, checkpoint=tmp_path), net)
    with pytest.warns(UserWarning, match=r"ended by a rule after \d+ epochs and is returned as it is; resume='ignore'"):
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
    with pytest.raises(
        dlx.FileError, match=r"`path` must be of dlx's own functions; got .*, of functions of your own\. Go on by"
    ):
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
    "learning_rate  ": {"learning_rate": dlx.schedules.reduce_on_plateau(1e-3)},
    "learning_rate   ": {"learning_rate": lambda step, steps, losses: 1e-3},
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
    text = (
        rf"`checkpoint` must be of the same training; got .*, of one with a {name.strip()} that (was .+ and )?is .+ now"
    )
    with pytest.raises(ValueError, match=text):
        dlx.fit(**settings, checkpoint=tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    again = dlx.fit(**settings, checkpoint=tmp_path, resume="ignore")
    assert_same(again, dlx.fit(**settings) if settings["rng"] is not None else again)
    assert dlx.load(max(tmp_path.glob("checkpoint-*"))).history == again.history


def test_rates_that_depend_on_the_number_of_epochs_hold_it_fast(tmp_path):
    how = HOW | {"learning_rate": dlx.schedules.cosine(0.1), "checkpoint": tmp_path}
    dlx.fit(X, Y, **how | {"epochs": 2})
    with pytest.raises(ValueError, match="with a learning_rate that had other values in the epochs so far"):
        dlx.fit(X, Y, **how)


def test_a_schedule_of_ones_own_is_known_by_its_rates_so_far(tmp_path):
    """Where they depend on the number of epochs, or on losses, all those of finished epochs are compared."""

    def by_share(step, steps, losses):
        return 0.01 if step < 0.6 * steps else 0.001

    def by_loss(factor):
        return lambda step, steps, losses: 0.01 * factor ** len(losses)

    how = HOW | {"learning_rate": by_share, "epochs": 10}
    dlx.fit(X, Y, **how, checkpoint=tmp_path / "a", callbacks=lambda net: len(net.history["loss"]) == 9)
    with pytest.raises(ValueError, match="with a learning_rate that had other values in the epochs so far"):
        dlx.fit(X, Y, **how | {"epochs": 11}, checkpoint=tmp_path / "a")
    how = HOW | {"learning_rate": by_loss(0.5)}
    dlx.fit(X, Y, **how | {"epochs": 2}, checkpoint=tmp_path / "b")
    with pytest.raises(ValueError, match="with a learning_rate that had other values in the epochs so far"):
        dlx.fit(X, Y, **how | {"learning_rate": by_loss(0.6)}, checkpoint=tmp_path / "b")
    assert_same(dlx.fit(X, Y, **how, checkpoint=tmp_path / "b"), dlx.fit(X, Y, **how))


SAME = {
    "the whole batch": ({"batch_size": 90}, {"batch_size": None}),
    "numbers of NumPy": (
        {"learning_rate": 0.5, "l2": 0.25},
        {"learning_rate": np.float32(0.5), "l2": np.float64(0.25)},
    ),
    "a schedule made twice": tuple({"learning_rate": dlx.schedules.step_decay(0.1, 0.5, 3)} for _ in range(2)),
    "a rate of the optimizer's": ({"learning_rate": 0.5}, {"optimizer": dlx.adam(0.5)}),
    "another order in memory": ({"X": X}, {"X": np.asfortranarray(X)}),
    "a data frame": ({"X": X}, {"X": "frame"}),
    "one rate a layer": ({"dropout": 0.5}, {"dropout": [0.5]}),
    "weights twice as large": ({"sample_weight": np.ones(90)}, {"sample_weight": np.full(90, 2.0)}),
    "labels in a list": ({"y": Y}, {"y": Y.tolist()}),
}


@pytest.mark.parametrize(("first", "second"), SAME.values(), ids=SAME)
def test_what_is_the_same_said_otherwise_goes_on(first, second, tmp_path):
    if isinstance(second.get("X"), str):
        second = {"X": pytest.importorskip("pandas").DataFrame(X, columns=list("abcde"))}
    base = {"X": X, "y": Y, **HOW}
    dlx.fit(**base | first | {"epochs": 2}, checkpoint=tmp_path)
    net = dlx.fit(**base | second, checkpoint=tmp_path)
    assert_same(net, dlx.fit(**base | first))


def test_columns_that_are_called_otherwise_are_refused(tmp_path):
    pandas = pytest.importorskip("pandas")
    dlx.fit(pandas.DataFrame(X, columns=list("abcde")), Y, **HOW, checkpoint=tmp_path)
    with pytest.raises(ValueError, match="with a feature_names that was"):
        dlx.fit(pandas.DataFrame(X, columns=list("bacde")), Y, **HOW, checkpoint=tmp_path)


def test_rows_shuffled_against_their_labels_are_refused_whatever_their_sums(tmp_path):
    hot = np.eye(5, dtype="float32")[np.arange(90) % 5]
    dlx.fit(hot, Y, **HOW, checkpoint=tmp_path)
    with pytest.raises(ValueError, match="with a X that was"):
        dlx.fit(hot[::-1], Y, **HOW, checkpoint=tmp_path)


@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (300, 1), (5000, 100), (40, 2, 3), (9,)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "bool", "int16"])
def test_a_fingerprint_sees_every_element_and_their_order(shape, dtype, be):
    x = (np.random.default_rng(0).random(shape) * 100).astype(dtype)
    if dtype != "float64":
        try:
            be.dtype(dtype)
        except TypeError:
            return
    here = fingerprint.fingerprint(x, dlx.get_backend("numpy"))
    assert fingerprint.fingerprint(be.asarray(x), be).split()[1:] == here.split()[1:]  # of whatever library
    assert fingerprint.fingerprint(np.asfortranarray(x), be) == here
    assert fingerprint.fingerprint(x[np.arange(len(x))], be) == here
    other = x.copy()
    other.flat[-1] = not other.flat[-1] if dtype == "bool" else other.flat[-1] + 1
    assert fingerprint.fingerprint(other, be) != here
    turned = x[::-1]
    assert (fingerprint.fingerprint(turned, be) == here) == bool((turned == x).all())


# -- what is asked for --

MANY_SLOTS = dlx.optimizers.gradient_descent()._replace(slots=9)


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        ({"checkpoint": 3}, TypeError, "`checkpoint` must be the path of a folder, or None; got 3. For example"),
        ({"checkpoint_every": 0}, ValueError, "`checkpoint_every` must be an integer >= 1; got 0. It counts updates."),
        ({"checkpoint_every": 1.5}, TypeError, "`checkpoint_every` must be an integer >= 1; got 1.5."),
        *(
            ({"checkpoint_every": span}, ValueError, "`checkpoint_every` must be a datetime.timedelta, or convert to")
            for span in (
                np.timedelta64(60, "ns"),
                np.timedelta64(1, "Y"),
                np.timedelta64(5, "M"),
                np.timedelta64("NaT", "s"),
            )
        ),
        ({"optimizer": MANY_SLOTS}, ValueError, "`optimizer` must have at most 8 slots to be saved; got 9. Use fewer"),
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


def forged(folder, change):
    """The checkpoints with another training, and a right digest."""
    for path in folder.glob("checkpoint-*"):
        description, arrays = container.read(path, schema.layout)
        change(description, arrays)
        container.write(path, description, arrays)


def put(**entries):
    return lambda description, arrays: description["training"].update(entries)


def drawn(part=None, **state):
    def change(description, arrays):
        found = description["training"]["drawn_from"]
        (found if part is None else found[part]).update(state)

    return change


def widened(description, arrays):
    description["layer_dims"] = [5, 9, 3]
    for name, array in arrays.items():
        if name[-2:] in ("W1", "b1"):
            arrays[name] = np.pad(array, ((0, 0), (0, 1)))
        if name[-2:] == "W2":
            arrays[name] = np.pad(array, ((0, 1), (0, 0)))


def resized(name, size):
    def change(description, arrays):
        description["history"][name] = size
        arrays["history/" + name] = np.ones(size)

    return change


def placed(position):
    def change(description, arrays):
        description["training"]["position"] = position
        arrays["losses"] = np.ones(position, "f4")

    return change


def slots(count):
    def change(description, arrays):
        description["training"]["slots"] = count
        for name in [name for name in arrays if name.startswith("slots/1/")]:
            if count == 1:
                del arrays[name]
            for k in range(2, count):
                arrays[f"slots/{k}/{name[8:]}"] = arrays[name]

    return change


def lbfgs(description, arrays):
    description["training"]["lbfgs"] = {"f": 1.0, "length": 1.0, "sy": []}
    size = sum(arrays[name].size for name in ("W1", "b1", "W2", "b2"))
    arrays |= {"gradient": np.ones(size, "f4"), "s": np.ones((0, size), "f4"), "y": np.ones((0, size), "f4")}


CHANGES = {
    "negative updates": put(updates=-1),
    "few updates": put(updates=3),
    "many updates": put(updates=10**30),
    "an epoch that is none": put(epoch="one"),
    "more epochs than there were": put(epoch=3),
    "a best epoch beyond": put(best_epoch=7),
    "a best epoch that is true": put(best_epoch=True),
    "another generator": put(drawn_from={"bit_generator": "MT19937"}),
    "no generator": put(drawn_from=None),
    "a generator of numbers": put(drawn_from=7),
    "a generator beyond its numbers": drawn("state", state=1 << 128),
    "a generator below its numbers": drawn("state", inc=-1),
    "a generator with more than a number left": drawn(has_uint32=1 << 40),
    "first draws beyond": lambda d, a: d["training"]["first_drawn_from"]["state"].update(inc=-1),
    "a limit that is none": put(limit="high"),
    "a negative limit": put(limit=-1.0),
    "an end that is a text": put(ended="x"),
    "seconds in a text": put(seconds="1"),
    "settings that are none": put(settings=None),
    "batches of the next epoch": placed(1),
    "more batches than there are": placed(100),
    "one slot": slots(1),
    "three slots": slots(3),
    "L-BFGS's memory": lbfgs,
    "another width": widened,
    "another dtype": lambda d, a: (d.update(dtype="float64"), a.update({k: x.astype("f8") for k, x in a.items()})),
    "another loss": lambda d, a: d.update(loss={"name": "squared_error", "settings": {"half": False}}),
    "a short history": resized("validation_loss", 1),
    "a history of no validation": lambda d, a: [
        (d["history"].pop(name), a.pop("history/" + name)) for name in ("validation_loss", "validation_score")
    ],
}


@pytest.mark.filterwarnings("ignore:the checkpoint before is used")
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_forged_checkpoint_is_refused(change, tmp_path):
    """A right digest is no proof: whoever can write the file can write that too."""
    how = HOW | {"epochs": 2, "validation": 0.2, "patience": 5, "checkpoint": tmp_path}
    dlx.fit(X, Y, **how)
    forged(tmp_path, change)
    with pytest.raises(dlx.FileError):
        dlx.fit(X, Y, **how | {"epochs": 5})


@pytest.mark.filterwarnings("ignore:the checkpoint before is used")
@pytest.mark.parametrize(("kind", "part", "name"), [("MT19937", "state", "pos"), ("Philox", None, "buffer_pos")])
@pytest.mark.parametrize("place", [-5, 100_000])
def test_a_generator_s_place_beyond_its_numbers_is_refused(kind, part, name, place, tmp_path):
    """NumPy takes it, and reads what lies there in memory."""
    how = HOW | {"epochs": 2, "checkpoint": tmp_path}
    dlx.fit(X, Y, **how | {"rng": getattr(np.random, kind)(3)})
    forged(tmp_path, drawn(part, **{name: place}))
    with pytest.raises(dlx.FileError):
        dlx.fit(X, Y, **how | {"epochs": 5, "rng": getattr(np.random, kind)(3)})


FORGED = {
    "no pairs for a number": {"sy": "123"},
    "a negative pair": {"sy": [-1.0]},
    "a pair of nothing": {"sy": [0.0]},
    "a value in a text": {"f": "1"},
    "a length in a text": {"length": "1"},
}


@pytest.mark.filterwarnings("ignore:the checkpoint before is used")
@pytest.mark.parametrize("change", FORGED.values(), ids=FORGED)
def test_a_forged_memory_of_lbfgs_is_refused(change, tmp_path):
    how = HOW | {"optimizer": "lbfgs", "checkpoint": tmp_path}
    dlx.fit(X, Y, **how | {"epochs": 2})

    def forge(description, arrays):
        memory = description["training"]["lbfgs"]
        memory.update({name: each for name, each in change.items() if name != "sy"})
        if "sy" in change:
            memory["sy"] = [*change["sy"], *memory["sy"]][: len(memory["sy"])] or change["sy"]
            memory["sy"] = change["sy"] if isinstance(change["sy"], str) else memory["sy"]
            arrays.update({name: np.resize(arrays[name], (len(memory["sy"]), arrays[name].shape[1])) for name in "sy"})

    forged(tmp_path, forge)
    with pytest.raises(dlx.FileError):
        dlx.fit(X, Y, **how | {"epochs": 5})


def test_slots_that_are_not_finite_are_refused(tmp_path):
    dlx.fit(X, Y, **HOW, checkpoint=tmp_path)
    for path in tmp_path.glob("checkpoint-*"):
        description, arrays = container.read(path, schema.layout)
        arrays["slots/0/W1"][0, 0] = math.nan
        container.write(path, description, arrays)
    with pytest.raises(dlx.FileError, match="a number that is not finite"):
        dlx.fit(X, Y, **HOW | {"epochs": 9}, checkpoint=tmp_path)


# -- faults --


def test_a_training_that_diverges_leaves_the_last_good_checkpoint(tmp_path):
    how = {"learning_rate": lambda step, steps, losses: 1e-3 if step < 10 else 1e30, "optimizer": "gradient_descent"}
    how |= {"layer_dims": (5, 1), "loss": "squared_error", "batch_size": 16, "epochs": 9, "rng": 0}
    with pytest.raises(dlx.DivergenceError, match=r"The state before is in .*checkpoint-\d+\.safetensors: dlx\.load"):
        dlx.fit(X, X[:, 0], **how, checkpoint=tmp_path, checkpoint_every=1)
    path = max(tmp_path.glob("checkpoint-*"))  # weights that give a bad loss are not saved
    assert dlx.load(path).score(X, X[:, 0]) > -10
    description, _ = container.read(path, schema.layout)
    assert description["training"]["updates"] == 10


def test_a_training_that_starts_anew_and_diverges_leaves_the_one_before(tmp_path):
    how = HOW | {"layer_dims": (5, 1), "activation": [], "loss": "squared_error", "checkpoint": tmp_path}
    net = dlx.fit(X, X[:, 0], **how)
    for other in ({"y": X[:, 0] * 1e30}, {"y": X[:, 0], "optimizer": "gradient_descent", "learning_rate": 1e30}):
        with pytest.raises(dlx.DivergenceError) as caught:
            dlx.fit(X, **how | other, resume="ignore")
        assert str(tmp_path) not in str(caught.value)  # it is no state of this training
    assert_same(dlx.fit(X, X[:, 0], **how), net)
    assert len(list(tmp_path.glob("checkpoint-*"))) == 2


def test_foreign_files_stay(tmp_path):
    """Whatever they are called, and whatever they point to."""
    (tmp_path / "precious").write_text("mine")
    run = tmp_path / "run"
    run.mkdir()
    for name in (
        "lock",
        "checkpoint-best.safetensors",
        "checkpoint-00000001.txt",
        f"checkpoint-{'9' * 200}.safetensors",
    ):
        (run / name).write_text("mine")
    (run / "checkpoint-00000000.safetensors").mkdir()
    (run / "checkpoint-00000099.safetensors").symlink_to(tmp_path / "nothing")
    before = {path.name for path in run.iterdir()}
    dlx.fit(X, Y, **HOW, checkpoint=run)
    assert {path.name for path in run.iterdir()} - before == {
        atomic.LOCK,
        checkpoints.NAME.format(3),
        checkpoints.NAME.format(4),
    }
    assert all(path.read_text() == "mine" for path in run.iterdir() if path.name in before and path.is_file())
    (run / atomic.LOCK).unlink()
    (run / atomic.LOCK).symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic links"):
        dlx.fit(X, Y, **HOW, checkpoint=run)
    assert (tmp_path / "precious").read_text() == "mine"


def test_another_working_folder_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    dlx.fit(X, Y, **HOW, checkpoint="run", callbacks=lambda net: os.chdir(tmp_path / "other"))
    assert len(list((tmp_path / "run").glob("checkpoint-*"))) == 2


def test_a_checkpoint_of_a_newer_format_is_not_passed_over(tmp_path):
    dlx.fit(X, Y, **HOW, checkpoint=tmp_path)
    newest = max(tmp_path.glob("checkpoint-*"))
    newest.write_bytes(safetensors.numpy.save({}, metadata={"dlx": '{"format": 2}'}))
    with pytest.raises(dlx.FileError, match=r"`path` must have format 1; got .* of format 2\. Update dlx"):
        dlx.fit(X, Y, **HOW, checkpoint=tmp_path)


def test_a_history_that_no_file_holds_is_named(tmp_path):
    with pytest.raises(ValueError, match="`history` must be a dict of lists of numbers to be saved"):
        dlx.fit(X, Y, **HOW, checkpoint=tmp_path, callbacks=lambda net: net.history.update(mine=3))


@pytest.mark.parametrize("figures", [[10**400], [1j], ["a"]], ids=["too large", "complex", "a text"])
def test_figures_that_no_file_holds_are_named(figures, tmp_path):
    with pytest.raises(ValueError, match="`history` must be a dict of lists of numbers to be saved"):
        dlx.fit(X, Y, **HOW, checkpoint=tmp_path, callbacks=lambda net: net.history.update(mine=figures))


def test_a_name_that_no_file_holds_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"`history` must be a dict of lists of numbers to be saved.*surrogates"):
        dlx.fit(X, Y, **HOW, checkpoint=tmp_path, callbacks=lambda net: net.history.update({"\ud800": []}))


SPOILT = {
    "no history": lambda history: history.clear(),
    "the last loss alone": lambda history: history.update(loss=history["loss"][-1:]),
    "no seconds": lambda history: history.pop("seconds"),
    "a validation of one's own": lambda history: history.update(validation_loss=list(history["loss"])),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_a_history_that_could_not_be_resumed_is_not_saved(spoil, tmp_path):
    def once(net):
        if len(net.history["loss"]) == 2:
            spoil(net.history)

    with pytest.raises(ValueError, match="`history` must keep each of fit's own figures, 2 epochs of them"):
        dlx.fit(X, Y, **HOW, checkpoint=tmp_path, callbacks=once)
    assert_same(dlx.fit(X, Y, **HOW, checkpoint=tmp_path), dlx.fit(X, Y, **HOW))


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


def damaged(path, at=-1):
    """One bit of the file, counted from its end, is another."""
    content = bytearray(path.read_bytes())
    content[at] ^= 4
    path.write_bytes(content)


@pytest.mark.filterwarnings("ignore:the checkpoint before is used")
def test_after_a_damaged_checkpoint_the_good_ones_are_kept(tmp_path):
    dlx.fit(X, Y, **HOW, checkpoint=tmp_path)
    damaged(max(tmp_path.glob("checkpoint-*")))

    def ends(net):
        if len(net.history["loss"]) == 5:
            raise SystemExit

    with pytest.raises(SystemExit):
        dlx.fit(X, Y, **HOW | {"epochs": 6}, checkpoint=tmp_path, callbacks=ends)
    epochs = [len(dlx.load(path).history["loss"]) for path in sorted(tmp_path.glob("checkpoint-*"))]
    assert epochs == [3, 4]


def test_a_damaged_number_of_the_format_is_damage_and_no_newer_file(tmp_path):
    dlx.fit(X, Y, **HOW, checkpoint=tmp_path)
    newest = max(tmp_path.glob("checkpoint-*"))
    mark = b'\\"format\\": 1'
    assert newest.read_bytes().count(mark) == 1
    damaged(newest, newest.read_bytes().index(mark) + len(mark) - 1)
    with pytest.raises(container.FileError, match="that dlx saved, and whole") as caught:
        dlx.load(newest)
    assert type(caught.value) is container.FileError
    with pytest.warns(UserWarning, match="the checkpoint before is used"):
        assert_same(dlx.fit(X, Y, **HOW, checkpoint=tmp_path), dlx.fit(X, Y, **HOW))


def test_a_handler_that_is_set_meanwhile_stays(tmp_path):
    def mine(number, frame):
        raise AssertionError

    before = signal.getsignal(signal.SIGTERM)
    try:
        dlx.fit(X, Y, **HOW, checkpoint=tmp_path, callbacks=lambda net: signal.signal(signal.SIGTERM, mine))
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_folder_that_is_a_file_is_an_error_before_any_work(tmp_path):
    (tmp_path / "run").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    for name in (tmp_path / "run", tmp_path / "link", "", "a\0b"):
        with pytest.raises(
            ValueError, match=r"`checkpoint` must be a folder, or a name for one; got '.*'\. Choose another"
        ):
            dlx.fit(X, Y, **HOW, checkpoint=name)
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


def run_apart(code, folder, **environment):
    return subprocess.run(
        [sys.executable, "-c", SCRIPT + textwrap.dedent(code), str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env=os.environ | environment,
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
        description, _ = container.read(max(tmp_path.glob("checkpoint-*")), schema.layout)
        training = description["training"]
        assert (training["updates"], training["epoch"], training["position"]) == (13, 2, 1)

    def test_sigterm_while_validating_saves_the_whole_epoch(self, tmp_path):
        code = """
        dlx.fit(X, Y, **HOW, checkpoint=folder, callbacks=lambda net: os.kill(os.getpid(), signal.SIGTERM))
        """
        run = run_apart(code, tmp_path)
        assert run.returncode == -signal.SIGTERM, run.stderr
        assert_same(dlx.fit(X, Y, **HOW, checkpoint=tmp_path), dlx.fit(X, Y, **HOW))

    def test_sigterm_ends_a_forked_child(self, tmp_path):
        code = """
        ended = []
        def forks(net):
            if ended:
                return
            number = os.fork()
            if number == 0:
                time.sleep(20)
                os._exit(0)
            time.sleep(0.5)  # Python drops what comes before a fork is done
            os.kill(number, signal.SIGTERM)
            ended.append(os.waitpid(number, 0)[1])
        dlx.fit(X, Y, **HOW, checkpoint=folder, callbacks=forks)
        print(ended)
        """
        run = run_apart(code, tmp_path)
        assert run.stdout == f"[{int(signal.SIGTERM)}]\n", run.stderr

    def test_a_forked_child_saves_nothing(self, tmp_path):
        code = """
        children = []
        def forks(net):
            if not children:
                children.append(os.fork())
                if children[0] == 0:
                    os.close(1)
                else:
                    print(os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]), os.listdir(folder), flush=True)
                    os._exit(0)
        dlx.fit(X, Y, **HOW, checkpoint=folder, callbacks=forks)
        """
        run = run_apart(code, tmp_path)
        assert run.stdout == "1 ['.dlx-lock']\n"
        assert "`checkpoint` must be saved to by the process that called fit; got a forked child of it." in run.stderr

    def test_sigterm_ends_a_training_that_cannot_save_and_says_why(self, tmp_path):
        code = """
        def full(net):
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
            os.kill(os.getpid(), signal.SIGTERM)
        dlx.fit(X, Y, **HOW, checkpoint=folder, callbacks=full)
        """
        run = run_apart(code, tmp_path)
        assert run.returncode == -signal.SIGTERM
        assert "was not saved: File too large" in run.stderr

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
        assert sorted(path.name for path in tmp_path.iterdir()) == [atomic.LOCK, checkpoints.NAME.format(1)]
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
        # with a second thread OpenBLAS may want memory of its own just then, and ends the process
        run = run_apart(code, tmp_path, OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")
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
    with pytest.warns(UserWarning, match="training was interrupted after 2 epochs; the weights so far are kept"):
        net = dlx.fit(X, Y, **how, checkpoint=tmp_path)
    description, arrays = container.read(max(tmp_path.glob("checkpoint-*")), schema.layout)
    np.testing.assert_array_equal(net.params[0].W, arrays["W1"])  # what is returned is what was saved
    assert len(net.history["loss"]) == 2
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


def test_what_is_refused_leaves_no_folder(tmp_path):
    with pytest.raises(ValueError, match="`y` must have"):
        dlx.fit(X, Y[1:], **HOW, checkpoint=tmp_path / "new")
    assert not (tmp_path / "new").exists()
