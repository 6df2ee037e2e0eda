"""Files: what is saved comes back on every library, and the old file survives a failure."""

import json
import math
import os

import numpy as np
import pytest
import safetensors.numpy

import dlx
from dlx import activations, losses
from dlx.files import container

RNG = np.random.default_rng(8)
X = RNG.standard_normal((7, 4))
PAIRS = [
    (RNG.standard_normal((4, 5)), RNG.standard_normal(5)),
    (RNG.standard_normal((5, 3)), RNG.standard_normal((1, 3))),
]
ACTIVATIONS = [*activations.ACTIVATIONS, activations.leaky_relu(0.3), activations.elu(0.7)]
LOSSES = [
    *losses.LOSSES,
    losses.quantile(0.9),
    losses.quantile([0.1, 0.5, 0.9]),
    losses.huber(2.5),
    losses.cross_entropy(0.1),
]
HISTORY = {"loss": [3.5, math.inf, 0.1 + 0.2], "seconds": [1e-300, 0.0, -math.inf]}


def network(**settings):
    return dlx.Network(PAIRS, **{"history": HISTORY, "classes": None, **settings})


def host(net):
    return [net.backend.to_host(each) for layer in net.params for each in layer]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.safetensors"


def saved(path, **settings):
    network(**settings).save(path)
    return path


def assert_equal(found, net):
    for a, b in zip(host(found), host(net), strict=True):
        np.testing.assert_array_equal(a, b, strict=True)
    assert [each[:3] for each in found.activation] == [each[:3] for each in net.activation]
    assert found.loss[:3] == net.loss[:3]
    assert found.history == net.history
    assert (found.dtype, found.layer_dims) == (net.dtype, net.layer_dims)
    if net.classes is not None:
        np.testing.assert_array_equal(found.classes, net.classes, strict=net.classes.dtype.kind != "U")
    np.testing.assert_array_equal(found.to("numpy").predict(X), net.to("numpy").predict(X))


# -- round trip --


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_every_activation_comes_back(activation, be, path):
    net = network(activation=activation, backend=be)
    net.save(path)
    found = dlx.load(path, backend=be)
    assert found.backend == be
    assert type(found.params[0].W) is type(be.asarray(1.0))
    assert_equal(found, net)


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_loss_comes_back(loss, dtype, be, path):
    net = network(loss=loss, dtype=dtype, backend=be)
    net.save(path)
    assert_equal(dlx.load(path), net)


WIDE = np.array([3, 1 << 63, (1 << 64) - 1], np.uint64)
CLASSES = [None, [5, 3, 4], ["ann", "bob", "ünï"], np.arange(3, dtype=np.uint8), WIDE]


@pytest.mark.parametrize("classes", CLASSES, ids=str)
def test_classes_of_every_kind_come_back(classes, path):
    net = network(loss="cross_entropy", classes=classes)
    net.save(path)
    found = dlx.load(path)
    np.testing.assert_array_equal(found.classes, net.classes)
    np.testing.assert_array_equal(found.predict(X), net.predict(X))


@pytest.mark.parametrize("labels", [[False, True], ["n", "y"], [1, 7]], ids=str)
def test_two_classes_of_one_output_come_back(labels, path):
    y = np.array(labels)[np.arange(7) % 2]
    net = dlx.Network([(RNG.standard_normal((4, 1)), [0.0])], loss="binary_cross_entropy", classes=labels)
    net.save(path)
    found = dlx.load(path)
    assert found.classes.dtype == net.classes.dtype
    np.testing.assert_array_equal(found.predict(X), net.predict(X))
    assert found.score(X, y) == net.score(X, y)


def test_a_fitted_network_comes_back_and_trains_on(path):
    y = np.arange(7) % 2 > 0
    net = dlx.fit(X, y, (4, 3, 2), validation=0.3, epochs=3, rng=0, activation=["mish"])
    net.save(str(path))
    found = dlx.load(str(path))
    assert_equal(found, net)
    how = {"epochs": 2, "rng": 1, "activation": "mish"}
    for a, b in zip(*(host(dlx.fit(X, y, (4, 3, 2), init=each.params, **how)) for each in (net, found)), strict=True):
        np.testing.assert_array_equal(a, b)


ARRAYS = {
    "Fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "strided": np.arange(24.0).reshape(3, 8)[:, ::2],
    "reversed": np.arange(12.0).reshape(3, 4)[::-1],
    "transposed": np.arange(12, dtype="f4").reshape(3, 4).T,
    "broadcast": np.broadcast_to(np.arange(4.0), (3, 4)),
    "big-endian": np.arange(12.0).reshape(3, 4).astype(">f8"),
    "no rows": np.empty((0, 4)),
    "a number": np.array(2.5),
    "one": np.ones((1, 1), "f4"),
}


def test_arrays_of_every_layout_are_written_right(path):
    """safetensors by itself writes wrong bytes of some of them."""
    container.write(path, {}, ARRAYS)
    _, found = container.read(path, lambda _: {k: (x.dtype.newbyteorder("="), x.shape) for k, x in ARRAYS.items()})
    assert sorted(found) == sorted(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].shape == array.shape
        assert found[name].dtype == array.dtype.newbyteorder("=")


def test_the_same_network_gives_the_same_bytes(tmp_path):
    paths = [tmp_path / f"{k}.safetensors" for k in range(4)]
    for k, path in enumerate(paths):
        net = network(history=dict(sorted(HISTORY.items(), reverse=bool(k % 2))))
        (net if k < 3 else dlx.load(paths[0])).save(path)
    assert len({path.read_bytes() for path in paths}) == 1


def test_a_file_is_byte_for_byte_what_the_library_writes(path):
    arrays = {
        **{name: np.ascontiguousarray(x).astype(x.dtype.newbyteorder("=")) for name, x in ARRAYS.items()},
        **{
            dtype: np.arange(3).astype(dtype)
            for dtype in ("bool", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2")
        },
        'a "name" \\ with \n, \x01, ü and \u2028': np.ones(2),
    }
    arrays["a number"] = np.array(2.5)
    container.write(path, {"text": 'ü "quoted" \\'}, arrays)
    content = path.read_bytes()
    (size,) = np.frombuffer(content[:8], "<u8")
    metadata = json.loads(content[8 : 8 + int(size)])["__metadata__"]
    assert content == safetensors.numpy.save(arrays, metadata)


def test_other_tools_can_read_the_tensors(path):
    found = safetensors.numpy.load_file(saved(path))
    assert sorted(found) == ["W1", "W2", "b1", "b2", "history/loss", "history/seconds"]
    np.testing.assert_array_equal(found["W1"], PAIRS[0][0])


# -- failing writes --


def leave(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("step", ["open", "fsync", "replace"])
def test_a_failing_write_leaves_the_old_file_and_nothing_else(step, path, monkeypatch):
    before = leave(saved(path).parent)

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    if step == "open":
        monkeypatch.setattr("builtins.open", fail)
    else:
        monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="No space left"):
        network(activation="tanh").save(path)
    monkeypatch.undo()
    assert leave(path.parent) == before
    assert dlx.load(path).activation[0].name == "relu"


def test_a_write_cut_short_leaves_the_old_file(path, monkeypatch):
    before = leave(saved(path).parent)

    def cut(file):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", cut)
    with pytest.raises(KeyboardInterrupt):
        network(activation="tanh").save(path)
    assert leave(path.parent) == before


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        network().save(tmp_path / "nowhere" / "net.safetensors")
    with pytest.raises(IsADirectoryError):
        network().save(tmp_path)
    assert leave(tmp_path) == {}


def test_the_new_file_replaces_the_old_and_is_forced_to_disk(path, monkeypatch):
    forced, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: (forced.append(os.fstat(number).st_size), fsync(number))[1])
    saved(saved(path, loss="huber"), loss="poisson")
    assert dlx.load(path).loss.name == "poisson"
    assert list(leave(path.parent)) == [path.name]
    assert path.stat().st_size in forced


@pytest.mark.parametrize(
    "own",
    [
        {"activation": (np.tanh, lambda z, a: 1 - a * a)},
        {"loss": (lambda Z, Y: ((Z - Y) ** 2).sum(-1, keepdims=True), lambda Z, Y: 2 * (Z - Y))},
        {"activation": activations.tanh()._replace(name="my own")},
        {"loss": losses.huber()._replace(name="my own")},
    ],
)
def test_own_functions_are_refused(own, path):
    with pytest.raises(
        ValueError, match=r"`save` must be of a network with dlx's own .*; got functions of your own\. No"
    ):
        network(**own).save(path)
    assert not path.exists()


def test_memory_that_does_not_suffice_is_no_damage(tmp_path, monkeypatch):
    dlx.Network([(np.eye(2), np.zeros(2))]).save(tmp_path / "net")

    def full(*_):
        raise MemoryError

    monkeypatch.setattr(container, "_payload", full)
    with pytest.raises(MemoryError):
        dlx.load(tmp_path / "net")


@pytest.mark.parametrize("path", [None, 3, ["net"]])
def test_a_path_is_asked_for(path):
    text = f"`path` must be the path of a file, or a binary stream; got {path!r}. For example 'net.safetensors'."
    with pytest.raises(TypeError) as caught:
        dlx.Network([(np.eye(2), np.zeros(2))]).save(path)
    assert str(caught.value) == text
