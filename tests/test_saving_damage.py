"""A file that is not a whole network of dlx is refused by `FileError`, whatever is wrong with it."""

import json
import os
import struct
import tracemalloc

import numpy as np
import pytest
import safetensors.numpy

import dlx
from dlx.files import container, inspection, schema

RNG = np.random.default_rng(8)
PAIRS = [(RNG.standard_normal((4, 5)), RNG.standard_normal(5)), (RNG.standard_normal((5, 3)), np.zeros((1, 3)))]
WHOLE = r"`path` must be a file that dlx saved, and whole; got .*net\.safetensors"


@pytest.fixture
def path(tmp_path):
    """Of a good file."""
    found = tmp_path / "net.safetensors"
    dlx.Network(PAIRS, history={"loss": [2.0, 1.0]}).save(found)
    return found


def rewritten(path, change):
    """The file with another description or other arrays; its checksum fits again."""
    description, arrays = container.read(path, schema.layout)
    change(description, arrays)
    container.write(path, description, arrays)
    return path


def put(**entries):
    return lambda description, arrays: description.update(entries)


def drop(name):
    return lambda description, arrays: (description if name in description else arrays).pop(name)


def tensor(name, value):
    return lambda description, arrays: arrays.update({name: value})


DESCRIPTIONS = {
    "no W2": drop("W2"),
    "no b2": drop("b2"),
    "one more tensor": tensor("W3", np.ones((3, 3))),
    "a flat W1": tensor("W1", np.ones(20)),
    "W1 of another width": tensor("W1", np.ones((4, 6))),
    "b1 of another width": tensor("b1", np.ones((1, 6))),
    "float32 tensors": tensor("W1", np.ones((4, 5), "f4")),
    "integer tensors": tensor("b2", np.ones((1, 3), int)),
    "nan": tensor("b2", np.full((1, 3), np.nan)),
    "W1 and b1 of another width": lambda description, arrays: arrays.update(W1=np.ones((4, 6)), b1=np.ones((1, 6))),
    "other layers": put(layer_dims=[4, 6, 3]),
    "a layer of no units": put(layer_dims=[4, 0, 3]),
    "a layer of half a unit": put(layer_dims=[4, 5.0, 3]),
    "one layer": put(layer_dims=[4]),
    "layers in a text": put(layer_dims="453"),
    "no layers": put(layer_dims=None),
    "many layers": put(layer_dims=[1] * 20_000),
    "names of features that are too few": put(feature_names=["a", "b", "c"]),
    "names of features that are none": put(feature_names=[1, 2, 3, 4]),
    "names of features in a text": put(feature_names="abcd"),
    "a training of other things": put(training={"slots": 1}),
    "no activation": drop("activation"),
    "no loss": drop("loss"),
    "no history": drop("history"),
    "an unknown key": put(extra=1),
    "an unknown activation": put(activation=[{"name": "os.system", "settings": {}}]),
    "unknown settings": put(activation=[{"name": "relu", "settings": {"slope": 1}}]),
    "settings out of range": put(activation=[{"name": "elu", "settings": {"alpha": -1}}]),
    "settings of another kind": put(loss={"name": "huber", "settings": {"width": "wide"}}),
    "settings that are none": put(loss={"name": "huber", "settings": 3}),
    "an unknown loss": put(loss={"name": "hinge", "settings": {}}),
    "two activations": put(activation=[{"name": "relu", "settings": {}}] * 2),
    "activations in a dict": put(activation={"name": "relu"}),
    "a number of activations": put(activation=3),
    "two classes": put(loss={"name": "cross_entropy", "settings": {}}, classes=[1, 2]),
    "a class for a number": put(classes=3),
    "labels of which one is long": put(
        loss={"name": "cross_entropy", "settings": {}}, classes=["a" * 3_000_000, "b", "c"]
    ),
    "labels of several kinds": put(loss={"name": "cross_entropy", "settings": {}}, classes=[1, "a" * 3_000_000, "b"]),
    "labels in lists": put(loss={"name": "cross_entropy", "settings": {}}, classes=[["a"], ["b"], ["c"]]),
    "a history without end": put(history={"loss": 1 << 40}),
    "a history of another length": put(history={"loss": 3}),
    "a history of no length": put(history={"loss": None}),
    "no history/loss": drop("history/loss"),
    "a history that is none": put(history=[1.0]),
    "dtype int64": put(dtype="int64"),
    "dtype None": put(dtype=None),
}


@pytest.mark.parametrize("read", [dlx.load, inspection.inspect_file])
@pytest.mark.parametrize("change", DESCRIPTIONS.values(), ids=DESCRIPTIONS)
def test_a_description_that_does_not_fit(change, read, path):
    with pytest.raises(dlx.FileError, match=WHOLE):
        read(rewritten(path, change))


@pytest.mark.parametrize("change", [put(dtype="\x1b[31m"), put(format="\x1b[31m")], ids=["dtype", "format"])
def test_no_error_passes_on_what_a_terminal_would_obey(change, path):
    with pytest.raises(dlx.FileError, match=r"\\(x|u00)1b\[31m") as caught:
        dlx.load(rewritten(path, change))
    assert str(caught.value).isprintable()


def test_no_error_passes_on_all_of_a_long_text(path):
    long = ["a" * 1_000_000] * 3
    with pytest.raises(dlx.FileError, match=WHOLE) as caught:
        dlx.load(rewritten(path, put(loss={"name": "cross_entropy", "settings": {}}, classes=long)))
    assert len(str(caught.value)) < 1000


def test_functions_of_ones_own(path):
    for change in (put(activation=[None]), put(loss=None)):
        with pytest.raises(
            dlx.FileError, match=r"`path` must be of dlx's own functions; got .*, of functions of your own"
        ):
            dlx.load(rewritten(path, change))


def test_what_a_file_would_be_refused_for_is_not_saved(path, monkeypatch):
    net = dlx.Network([(np.ones((1, 3)), np.zeros(3))], loss="cross_entropy", classes=["a" * 3_000_000, "b", "c"])
    with pytest.raises(ValueError, match=r"`classes` must have at most \d+ letters, all as long as the longest; got"):
        net.save(path)
    monkeypatch.setattr(schema, "MOST_FIGURES", 1 << 22)  # of the true limit, a list would take 2 GB
    net = dlx.Network([(np.ones((1, 3)), np.zeros(3))], history={"loss": [1.0] * ((1 << 22) + 1)})
    with pytest.raises(ValueError, match=r"`history` must hold at most \d+ numbers; got"):
        net.save(path)


def header(path, **entries):
    """The file with another safetensors header."""
    blob = path.read_bytes()
    (size,) = struct.unpack("<Q", blob[:8])
    changed = json.dumps(json.loads(blob[8 : 8 + size]) | entries).encode()
    return struct.pack("<Q", len(changed)) + changed + blob[8 + size :]


def packed(text):
    """A file of that header alone."""
    return struct.pack("<Q", len(text)) + text


TEXT = {"__metadata__": {"dlx": "no json"}}
FILES = {
    "empty": lambda path: b"",
    "text": lambda path: b"weights, weights, weights",
    "a pickle": lambda path: b"\x80\x04N.",
    "half": lambda path: path.read_bytes()[: path.stat().st_size // 2],
    "all but a byte": lambda path: path.read_bytes()[:-1],
    "header alone": lambda path: path.read_bytes()[:8],
    "a byte too many": lambda path: path.read_bytes() + b"\0",
    "a huge header": lambda path: struct.pack("<Q", 1 << 62) + path.read_bytes()[8:],
    "a header of no bytes": lambda path: struct.pack("<Q", 0) + path.read_bytes()[8:],
    "not JSON": lambda path: path.read_bytes().replace(b'{"__metadata__"', b'["__metadata__"'),
    "not UTF-8": lambda path: path.read_bytes().replace(b"relu", b"\xff\xfe\xfd\xfc"),
    "overlapping tensors": lambda path: header(path, b2={"dtype": "F64", "shape": [1, 3], "data_offsets": [0, 24]}),
    "a shape too large": lambda path: header(
        path, W1={"dtype": "F64", "shape": [2, 1 << 63], "data_offsets": [0, 160]}
    ),
    "another safetensors file": lambda path: safetensors.numpy.save({"x": np.ones(3)}),
    "other metadata": lambda path: safetensors.numpy.save({"x": np.ones(3)}, metadata={"format": "pt"}),
    "a description that is no JSON": lambda path: safetensors.numpy.save({}, metadata={"dlx": "{"}),
    "a description that is a list": lambda path: safetensors.numpy.save({}, metadata={"dlx": "[]"}),
    "a description too deep": lambda path: safetensors.numpy.save({}, metadata={"dlx": "[" * 100_000}),
    "no format": lambda path: safetensors.numpy.save({}, metadata={"dlx": "{}"}),
    "no checksum": lambda path: safetensors.numpy.save({}, metadata={"dlx": '{"format": 1}'}),
    "two entries": lambda path: safetensors.numpy.save({}, metadata={"dlx": "{}", "format": "pt"}),
    "a tensor named twice": lambda path: path.read_bytes().replace(b'"W1"', b'"b1"'),
    "a hole": lambda path: header(path, b2={"dtype": "F64", "shape": [1, 2], "data_offsets": [344, 360]}),
    "a tensor beyond the end": lambda path: header(
        path, W1={"dtype": "F64", "shape": [4, 5], "data_offsets": [1 << 40, (1 << 40) + 160]}
    ),
    "a negative shape": lambda path: header(path, W1={"dtype": "F64", "shape": [-4, -5], "data_offsets": [0, 160]}),
    "a shape of many axes": lambda path: header(path, W1={"dtype": "F64", "shape": [1] * 99, "data_offsets": [0, 8]}),
    "a shape of large numbers": lambda path: header(
        path, W1={"dtype": "F64", "shape": [10**4000] * 50, "data_offsets": [0, 160]}
    ),
    "a shape that is true": lambda path: header(
        path, W1={"dtype": "F64", "shape": [True, 20], "data_offsets": [0, 160]}
    ),
    "a dtype of its own": lambda path: header(path, W1={"dtype": "object", "shape": [4, 5], "data_offsets": [0, 160]}),
    "an entry too many": lambda path: header(
        path, W1={"dtype": "F64", "shape": [4, 5], "data_offsets": [0, 160], "code": "os.system"}
    ),
    "a header of a million lists": lambda path: packed(b'{"a":[' + b"[]," * 1_000_000 + b"[]]}"),
    "a header too deep": lambda path: packed(b'{"a":' * 100_000),
    "a description of a million lists": lambda path: safetensors.numpy.save({}, metadata={"dlx": "[" + "[]," * 10**6}),
}


@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
def test_a_file_that_is_none_of_ours(content, path):
    path.write_bytes(content(path))
    with pytest.raises(dlx.FileError, match=WHOLE):
        dlx.load(path)


def test_another_format(path):
    text = json.dumps({"format": 2})
    path.write_bytes(safetensors.numpy.save({}, metadata={"dlx": text}))
    with pytest.raises(dlx.FileError, match=r"`path` must have format 1; got .* of format 2\. Update dlx to read it\."):
        dlx.load(path)


def refused(path, content):
    path.write_bytes(content)
    with pytest.raises(dlx.FileError):
        dlx.load(path)


def test_no_flipped_bit_goes_unnoticed(path):
    """Neither in a weight nor in the description nor in the header; safetensors itself has no checksum."""
    blob = path.read_bytes()
    for bit in range(8 * len(blob)):
        damaged = bytearray(blob)
        damaged[bit // 8] ^= 1 << bit % 8
        refused(path, damaged)


def test_a_description_written_otherwise_is_refused(path):
    """1E-05 is 1e-05, and a flipped bit away from it."""
    dlx.Network(PAIRS, activation=dlx.activations.elu(1e-5)).save(path)
    blob = path.read_bytes()
    assert blob.count(b"1e-05") == 1
    refused(path, blob.replace(b"1e-05", b"1E-05"))


def test_no_truncation_goes_unnoticed(path):
    blob = path.read_bytes()
    for size in range(len(blob)):
        refused(path, blob[:size])


@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
def test_no_file_takes_more_memory_than_its_size_and_a_constant(content, path):
    path.write_bytes(content(path))
    tracemalloc.start()
    try:
        with pytest.raises(dlx.FileError):
            dlx.load(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    size = path.stat().st_size
    assert peak < size + 4 * min(size, container.MOST_BYTES) + 2_000_000  # a header is there as bytes, text and JSON


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a kind of file that only POSIX systems have")
def test_a_pipe_is_refused_and_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(dlx.FileError, match=r"`path` must be a file; got .*, a device or pipe\. Save"):
            dlx.load(path)


def test_what_the_system_refuses_is_an_OSError(tmp_path):
    with pytest.raises(FileNotFoundError):
        dlx.load(tmp_path / "nothing")
    with pytest.raises(IsADirectoryError):
        dlx.load(tmp_path)
    assert issubclass(dlx.FileError, ValueError)
