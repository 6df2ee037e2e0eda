"""Files of whatever content: a network or a `FileError`, never another exception and never a wrong array.

DLX_FUZZ sets how many files each test tries, in parts that may run side by side.
"""

import json
import os
import struct

import numpy as np
import pytest

import dlx
from dlx.files import container, schema

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies

CASES = int(os.environ.get("DLX_FUZZ", "2000"))
RNG = np.random.default_rng(8)
PAIRS = [(RNG.standard_normal((2, 3)), RNG.standard_normal(3)), (RNG.standard_normal((3, 2)), np.zeros((1, 2)))]
NET = dlx.Network(PAIRS, loss="cross_entropy", classes=["a", "b"], history={"loss": [2.0, 1.0]})
X = RNG.standard_normal((4, 2))
AT_ONCE = min(CASES, 1000)  # hypothesis remembers all that it has tried in one run, in gigabytes for many

parts = pytest.mark.parametrize("part", range(-(-CASES // AT_ONCE)))


def fuzz(strategy, run, part):
    """`run` of so many examples, the same each time, and others in each part."""
    given = hypothesis.given(strategy)(lambda example: run(example))
    settings = hypothesis.settings(
        max_examples=AT_ONCE, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
    )
    hypothesis.seed(part)(settings(given))()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "net.safetensors"


@pytest.fixture(scope="module")
def blob(path):
    NET.save(path)
    return path.read_bytes()


def outcome(path, content):
    """Whether the file loads; then it is the network that was saved."""
    path.write_bytes(content)
    try:
        found = dlx.load(path)
    except dlx.FileError:
        return False
    np.testing.assert_array_equal(found.predict_proba(X), NET.predict_proba(X))
    return True


EDITS = st.lists(
    st.tuples(
        st.sampled_from(["flip", "set", "cut", "insert", "repeat", "swap"]),
        st.floats(0, 1, exclude_max=True),
        st.floats(0, 1, exclude_max=True),
        st.binary(min_size=1, max_size=9),
    ),
    min_size=1,
    max_size=4,
)


def edited(blob, edits):
    """The bytes after some edits at places that are shares of the whole."""
    for kind, place, length, content in edits:
        first = int(place * len(blob))
        last = min(len(blob), first + 1 + int(length * 40))
        match kind:
            case "flip":
                blob = blob[:first] + bytes([blob[first] ^ 1 << content[0] % 8] if blob else []) + blob[first + 1 :]
            case "set":
                blob = blob[:first] + content + blob[first + len(content) :]
            case "cut":
                blob = blob[:first] + blob[last:]
            case "insert":
                blob = blob[:first] + content + blob[first:]
            case "repeat":
                blob = blob[:last] + blob[first:last] + blob[last:]
            case "swap":
                blob = blob[:first] + blob[last:] + blob[first:last]
        if not blob:
            return blob
    return blob


@parts
def test_edited_bytes(blob, path, part):
    loaded = []

    def run(edits):
        content = edited(blob, edits)
        loaded.append(outcome(path, content))
        assert loaded[-1] == (content == blob)

    fuzz(EDITS, run, part)
    assert len(loaded) >= 0.9 * AT_ONCE
    assert sum(loaded) < 0.5 * len(loaded)


NAMES = sorted([*schema.KEYS, *schema.TRAINING_KEYS, "training", "name", "settings", "sha256", "format"])
WORDS = [*dlx.activations.ACTIVATIONS, *dlx.losses.LOSSES, "float32", "float64", "W1", "b2", "", "os.system", "loss"]
NUMBERS = st.one_of(
    st.integers(-3, 5), st.sampled_from([1 << 31, 1 << 63, 10**30]), st.floats(allow_nan=False, allow_infinity=False)
)
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, st.sampled_from([*WORDS, *NAMES]), st.text(max_size=3))
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from([*NAMES, *WORDS]), inner, max_size=3)
    ),
    max_leaves=8,
)


def places(value, here=()):
    """The paths to every part of a JSON value."""
    yield here
    for key, each in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(each, (*here, key))


def put(value, here, new):
    """The value with another part at one path; None takes the part out."""
    if not here:
        return new
    found = value.copy()
    if new is None and len(here) == 1:
        del found[here[0]]
    else:
        found[here[0]] = put(value[here[0]], here[1:], new)
    return found


def changed(value, changes):
    """The value with other parts in the places of those numbers."""
    for number, new in changes:
        every = list(places(value))[1:]
        value = put(value, every[number % len(every)], new) if every else value
    return value


def signed(entries, arrays):
    """A file of this description, whose digest is right."""
    from safetensors.numpy import save

    text = container._text({**entries, "sha256": container._digest(entries, arrays)})
    return save(arrays, metadata={container.KEY: text})


CHANGES = st.lists(st.tuples(st.integers(0, 10_000), VALUES), min_size=1, max_size=3)


@parts
@pytest.mark.parametrize("checkpoint", [False, True], ids=["network", "checkpoint"])
def test_other_descriptions_under_a_right_digest(checkpoint, path, tmp_path, part):
    """What a hostile hand may write: it loads only if it says of the same arrays what a network may say."""
    NET.save(path)
    if checkpoint:
        dlx.fit(X, [0, 1, 0, 1], (2, 3, 2), epochs=1, patience=3, rng=0, checkpoint=tmp_path / "run")
        path.write_bytes(next((tmp_path / "run").glob("checkpoint-*")).read_bytes())
    description, arrays = container.read(path, schema.layout)
    entries = json.loads(json.dumps({"format": container.FORMAT, **description}))
    loaded = []

    def run(changes):
        path.write_bytes(signed(changed(entries, changes), arrays))
        try:
            net = dlx.load(path)
            loaded.append(net.predict(X).shape[0] == 4)
        except dlx.FileError:
            loaded.append(None)

    fuzz(CHANGES, run, part)
    assert None in loaded
    assert len(loaded) >= 0.9 * AT_ONCE


@parts
def test_other_headers(blob, path, part):
    """What safetensors' own header says of dtypes, shapes and places."""
    (size,) = struct.unpack("<Q", blob[:8])
    header, payload = json.loads(blob[8 : 8 + size]), blob[8 + size :]
    loaded = []

    def run(changes):
        text = json.dumps(changed(header, changes)).encode()
        loaded.append(outcome(path, struct.pack("<Q", len(text)) + text + payload))
        assert loaded[-1] == (text == json.dumps(header).encode())  # in Python, 1 == 1.0 == True

    fuzz(CHANGES, run, part)
    assert len(loaded) >= 0.9 * AT_ONCE
