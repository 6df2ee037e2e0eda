"""Networks are written to binary streams and read from them: io, gzip, zipfile, tempfile, pipes and sockets."""

import gzip
import io
import lzma
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import zipfile

import numpy as np
import pytest

import dlx
from dlx.files import inspection, streams

RNG = np.random.default_rng(5)
NET = dlx.Network(
    [(RNG.standard_normal((300, 500)), np.zeros(500)), (RNG.standard_normal((500, 2)), np.ones(2))],
    loss="cross_entropy", classes=["no", "yes"], history={"loss": [1.0, 0.5]},
)  # fmt: skip
X = RNG.standard_normal((4, 300))
CONTENT = io.BytesIO()
NET.save(CONTENT)
CONTENT = CONTENT.getvalue()
SMALL = io.BytesIO()
dlx.Network([(np.eye(2), np.zeros(2))]).save(SMALL)
SMALL = SMALL.getvalue()
posix = pytest.mark.skipif(os.name != "posix", reason="pipes that do not block")


def assert_is_net(found):
    for one, other in zip(found.params, NET.params, strict=True):
        np.testing.assert_array_equal(one.W, other.W)
    assert (found.classes.tolist(), found.history) == (["no", "yes"], NET.history)
    np.testing.assert_array_equal(found.predict_proba(X), NET.predict_proba(X))


def test_a_stream_holds_what_a_file_holds(tmp_path):
    NET.save(tmp_path / "net")
    assert (tmp_path / "net").read_bytes() == CONTENT


def test_bytes_of_memory(be):
    stream = io.BytesIO()
    stream.write(b"before")
    NET.to(be, "float32").save(stream)
    stream.seek(len(b"before"))
    found = dlx.load(stream, backend=be)
    assert found.backend == be
    assert not stream.closed
    assert stream.read() == b""
    np.testing.assert_array_equal(be.to_host(found.params[1].b), np.ones((1, 2), "f4"))


@pytest.mark.parametrize("module", [gzip, lzma])
def test_compressed_files(module, tmp_path):
    with module.open(tmp_path / "net", "wb") as stream:
        NET.save(stream)
    with module.open(tmp_path / "net", "rb") as stream:
        assert_is_net(dlx.load(stream))


def test_members_of_a_zip_file(tmp_path):
    with zipfile.ZipFile(tmp_path / "nets.zip", "w") as archive:
        for name in "ab":
            with archive.open(name, "w") as stream:
                NET.save(stream)
    with zipfile.ZipFile(tmp_path / "nets.zip") as archive:
        assert archive.testzip() is None
        for name in "ab":
            with archive.open(name) as stream:
                assert_is_net(dlx.load(stream))


@pytest.mark.parametrize("make", [tempfile.TemporaryFile, tempfile.SpooledTemporaryFile, tempfile.NamedTemporaryFile])
def test_temporary_files(make):
    with make() as stream:
        NET.save(stream)
        stream.seek(0)
        assert_is_net(dlx.load(stream))


@pytest.mark.parametrize("buffering", [0, -1], ids=["raw", "buffered"])
def test_a_pipe(buffering):
    """It takes 64 KiB at a time, gives what there is, and nobody can seek in it."""
    source, target = os.pipe()

    def write():
        with os.fdopen(target, "wb", buffering) as stream:
            NET.save(stream)

    thread = threading.Thread(target=write)
    thread.start()
    with os.fdopen(source, "rb", buffering) as stream:
        assert not stream.seekable()
        assert_is_net(dlx.load(stream))
    thread.join()


@posix
@pytest.mark.parametrize("buffering", [0, -1], ids=["raw", "buffered"])
def test_a_pipe_that_does_not_block(buffering):
    """`write` and `read` say None, or raise BlockingIOError, where the pipe is full or empty."""
    source, target = os.pipe()
    os.set_blocking(source, False)
    os.set_blocking(target, False)

    def write():
        with os.fdopen(target, "wb", buffering) as stream:
            NET.save(stream)
            os.set_blocking(target, True)

    thread = threading.Thread(target=write)
    with os.fdopen(source, "rb", 0) as stream:
        thread.start()
        assert_is_net(dlx.load(stream))
    thread.join()


def test_the_input_of_another_process(tmp_path):
    code = "import sys, dlx; print(dlx.load(sys.stdin.buffer).layer_dims)"
    run = subprocess.run([sys.executable, "-c", code], input=CONTENT, capture_output=True, check=True)
    assert run.stdout.strip() == b"(300, 500, 2)"


def test_a_socket():
    here, there = socket.socketpair()

    def write():
        with here, here.makefile("wb") as stream:
            NET.save(stream)

    thread = threading.Thread(target=write)
    thread.start()
    with there, there.makefile("rb") as stream:
        assert_is_net(dlx.load(stream))
    thread.join()


class Short(io.RawIOBase):
    """Takes and gives 1,000 bytes at most; where it is asked the first time, none yet."""

    def __init__(self, content=b""):
        self.content, self.asked = bytearray(content), 0

    def writable(self):
        return True

    def readable(self):
        return True

    def write(self, content):
        self.asked += 1
        self.content += bytes(content[:1000])
        return min(1000, len(content)) if self.asked > 1 else self.content.clear()

    def read(self, size=-1):
        self.asked += 1
        if self.asked == 1:
            return None
        found, self.content = bytes(self.content[: min(size, 1000)]), self.content[min(size, 1000) :]
        return found


def test_short_writes_and_reads(monkeypatch):
    monkeypatch.setattr(streams, "NOT_YET", 0.0)
    stream = Short()
    NET.save(stream)
    assert bytes(stream.content) == CONTENT
    assert_is_net(dlx.load(Short(CONTENT)))


class Sink:
    """No stream of Python's: only `write`, which says nothing."""

    def __init__(self):
        self.parts = []

    def write(self, part):
        assert type(part) is bytes
        self.parts.append(part)


def test_what_only_writes():
    sink = Sink()
    NET.save(sink)
    assert b"".join(sink.parts) == CONTENT


def test_a_path_that_can_write_is_a_path(tmp_path):
    py = pytest.importorskip("py")
    path = py.path.local(tmp_path / "net")
    NET.save(path)
    assert_is_net(dlx.load(path))


# -- what is refused, before the first byte --

STREAM = "`path` must be the path of a file, or a binary stream; got"


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("work", ["save", "to_onnx", "load", "estimator"])
def test_text_streams_are_refused(work, tmp_path):
    pytest.importorskip("onnx")
    (tmp_path / "text").write_text("")
    mode = "rb" if work == "load" else "wb"

    def run(stream):
        if work == "load":
            dlx.load(stream)
        elif work == "estimator":
            dlx.MLPRegressor((2,), max_iter=1, random_state=0).fit(X, X[:, 0]).to_onnx(stream)
        else:
            getattr(NET, work)(stream)

    with open(tmp_path / "text", "r+") as file:
        kinds = {"StringIO": io.StringIO(), "TextIOWrapper": file}
        for kind, stream in kinds.items():
            text = f"{STREAM} a {kind}, which holds text. Open the file in mode '{mode}', or use io.BytesIO."
            with pytest.raises(TypeError, match=re.escape(text)):
                run(stream)
    with tempfile.NamedTemporaryFile("w") as stream, pytest.raises(TypeError, match="which holds text"):
        NET.save(stream) if mode == "wb" else dlx.load(stream)


def test_streams_that_are_closed_or_of_the_other_kind(tmp_path):
    closed = io.BytesIO()
    closed.close()
    for work in (NET.save, dlx.load):
        with pytest.raises(ValueError, match=r"`path` must be an open stream; got a BytesIO that is closed\. Open it"):
            work(closed)
    path = tmp_path / "net"
    with open(path, "wb") as stream, pytest.raises(ValueError, match=r"be a stream that is readable; .*mode 'rb'\."):
        dlx.load(stream)
    with open(path, "rb") as stream, pytest.raises(ValueError, match=r"be a stream that is writable; .*mode 'wb'\."):
        NET.save(stream)
    for other in (3, None, ["net"], io.BytesIO, np.ones(3)):
        with pytest.raises(TypeError, match=re.escape(STREAM)):
            NET.save(other)
        with pytest.raises(TypeError, match=re.escape(STREAM)):
            dlx.load(other)


def test_a_stream_at_its_end_says_the_way_back():
    """What one gets who loads what was just saved."""
    stream = io.BytesIO()
    NET.save(stream)
    with pytest.raises(dlx.FileError, match=r"is at its end\. Go back to its beginning: seek\(0\)\.$"):
        dlx.load(stream)
    stream.seek(0)
    assert dlx.load(stream).layer_dims == NET.layer_dims


def test_a_failing_stream_tells_its_own_error():
    class Full(io.BytesIO):
        def write(self, content):
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        NET.save(Full())


# -- what is read from a stream and is not a network --

BAD = {
    "nothing": b"",
    "zeros": bytes(1000),
    "a text": b"no network at all, but a text of some length",
    "half a header": CONTENT[:100],
    "half": SMALL[:-9],
    "more": SMALL + b"\0",
    "two": SMALL * 2,
    "a bit": SMALL[:-3] + bytes([SMALL[-3] ^ 4]) + SMALL[-2:],
    "a promise": (8).to_bytes(8, "little") + b'{"a":{}}',
}


@pytest.mark.parametrize("read", [dlx.load, inspection.inspect_file])
@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_what_is_no_network_is_a_FileError_that_names_the_stream(content, read):
    with pytest.raises(dlx.FileError, match=r"^`path` must .*; got the stream\b") as caught:
        read(io.BytesIO(content))
    assert str(caught.value).isprintable()
    with pytest.raises(dlx.FileError, match="the stream"):
        read(Short(content))


def test_an_endless_stream_is_not_read_to_its_end():
    class Endless(io.RawIOBase):
        given = 0

        def readable(self):
            return True

        def read(self, size=-1):
            self.given += size
            return b"\xff" * size

    stream = Endless()
    with pytest.raises(dlx.FileError, match="a header of"):
        dlx.load(stream)
    assert stream.given <= 2 * streams.AT_ONCE


def test_a_promise_takes_no_memory():
    """A header of a few bytes may promise 2^50; what has not come is not allocated."""
    header = b'{"__metadata__":{"dlx":"{}"},"W1":{"dtype":"F64","shape":[%d],"data_offsets":[0,%d]}}' % (2**47, 2**50)
    content = len(header).to_bytes(8, "little") + header + bytes(100)
    with pytest.raises(dlx.FileError, match="the stream"):
        dlx.load(io.BytesIO(content))


@pytest.mark.parametrize("module", [gzip, lzma])
def test_a_compressed_file_that_is_cut(module, tmp_path):
    """EOFError of the module's own; what is no compressed file at all is an OSError, or lzma's error."""
    (tmp_path / "net").write_bytes(module.compress(CONTENT)[:-1000])
    with module.open(tmp_path / "net") as stream, pytest.raises(dlx.FileError, match=r"the stream .*EOFError"):
        dlx.load(stream)


def test_a_checksum_of_a_zip_file_that_is_wrong(tmp_path):
    with zipfile.ZipFile(tmp_path / "z", "w") as archive, archive.open("net", "w") as stream:
        NET.save(stream)
    content = bytearray((tmp_path / "z").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "z").write_bytes(content)
    with (
        zipfile.ZipFile(tmp_path / "z") as archive,
        archive.open("net") as stream,
        pytest.raises(dlx.FileError, match="the stream"),
    ):
        dlx.load(stream)


def test_inspection_of_a_stream():
    assert inspection.inspect_file(io.BytesIO(SMALL)).startswith("file      the stream\nverified  format 1, checksum")


# -- ONNX --


def test_onnx_models(tmp_path):
    onnx = pytest.importorskip("onnx")
    NET.to_onnx(tmp_path / "net.onnx")
    stream, raw = io.BytesIO(), Short()
    NET.to_onnx(stream)
    NET.to_onnx(raw)
    assert stream.getvalue() == bytes(raw.content) == (tmp_path / "net.onnx").read_bytes()
    onnx.checker.check_model(onnx.load_model_from_string(stream.getvalue()))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_onnx_models_of_estimators():
    onnx = pytest.importorskip("onnx")
    stream = io.BytesIO()
    dlx.MLPClassifier((2,), max_iter=1, random_state=0).fit(X, [0, 1, 0, 1]).to_onnx(stream)
    onnx.checker.check_model(onnx.load_model_from_string(stream.getvalue()))


@pytest.mark.parametrize("content", [CONTENT, bytearray(CONTENT), memoryview(CONTENT)], ids=lambda x: type(x).__name__)
def test_the_content_of_a_file_is_no_path(content):
    with pytest.raises(TypeError, match=r"^`path` must be .*; got the content of one\. Pass io.BytesIO"):
        dlx.load(content)
