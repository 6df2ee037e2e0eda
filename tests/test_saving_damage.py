"""A file that is not a whole network of dlx is refused by `FileError`, whatever is wrong with it."""

import json
import struct

import numpy as np
import pytest
import safetensors.numpy

import dlx
from dlx import saving

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
    description, arrays = saving.read(path)
    arrays = dict(arrays)
    change(description, arrays)
    saving.write(path, description, arrays)
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
    "a history of words": put(history={"loss": ["low"]}),
    "a history that is none": put(history=[1.0]),
    "dtype int64": put(dtype="int64"),
    "dtype None": put(dtype=None),
}


@pytest.mark.parametrize("change", DESCRIPTIONS.values(), ids=DESCRIPTIONS)
def test_a_description_that_does_not_fit(change, path):
    with pytest.raises(dlx.FileError, match=WHOLE):
        dlx.load(rewritten(path, change))


def header(path, **entries):
    """The file with another safetensors header."""
    blob = path.read_bytes()
    (size,) = struct.unpack("<Q", blob[:8])
    changed = json.dumps(json.loads(blob[8 : 8 + size]) | entries).encode()
    return struct.pack("<Q", len(changed)) + changed + blob[8 + size :]


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


def test_no_flipped_bit_goes_unnoticed(path):
    """Neither in a weight nor in the description; safetensors itself has no checksum."""
    blob = path.read_bytes()
    for place in range(8, len(blob)):
        damaged = bytearray(blob)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(dlx.FileError):
            dlx.load(path)


def test_what_the_system_refuses_is_an_OSError(tmp_path):
    with pytest.raises(FileNotFoundError):
        dlx.load(tmp_path / "nothing")
    with pytest.raises(IsADirectoryError):
        dlx.load(tmp_path)
    assert issubclass(dlx.FileError, ValueError)
