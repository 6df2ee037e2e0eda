"""The examples, run as a person runs them: their exit, their picture and the figures that they print."""

import functools
import gzip
import hashlib
import http.server
import importlib.util
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import dlx

EXAMPLES = Path(__file__).parents[1] / "examples"
LARGEST = 80_000  # bytes of a picture
MISSING = [name for name in ("matplotlib", "sklearn") if not importlib.util.find_spec(name)]


def example(test):
    """The test; nothing, which is not collected, where a library that the examples need is not installed."""
    return None if MISSING else test


def test_what_the_examples_need_is_there_where_all_is_required(pytestconfig):
    assert not (pytestconfig.getoption("--require-all") and MISSING)


def run(name, folder, *options, **environment):
    """What the example printed, run in `folder` with warnings as errors; there it must leave its picture."""
    # one BLAS thread: threads that wait for each other are slow where other work takes the cores from them
    settings = {"MPLBACKEND": "Agg", "OPENBLAS_NUM_THREADS": "1", "PYTHONWARNINGS": "error", **environment}
    command = [sys.executable, EXAMPLES / f"{name}.py", *options]
    done = subprocess.run(command, cwd=folder, env=os.environ | settings, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    return done.stdout


def picture_size(path):
    """The width and height of a PNG file, which must be small."""
    assert path.stat().st_size < LARGEST
    head = path.read_bytes()[:24]
    assert head.startswith(b"\x89PNG\r\n\x1a\n")
    return int.from_bytes(head[16:20]), int.from_bytes(head[20:24])


def number(pattern, text):
    """The number that the group of `pattern` finds."""
    found = re.search(pattern, text)
    assert found, text
    return float(found[1])


@example
def test_digits(tmp_path):
    said = run("digits", tmp_path)
    assert number(r"accuracy on 360 held-out images: (0\.\d{4})\n", said) >= 0.97
    table = re.findall(r"^ +(\d)  +(\d+)  +(\d+)  ", said, re.MULTILINE)
    assert [digit for digit, _, _ in table] == list("0123456789")
    assert sum(int(images) for _, images, _ in table) == 360
    assert number(r"training took ([\d.]+) s on numpy\n", said) > 0
    assert "epoch  60  loss 0." in said
    assert picture_size(tmp_path / "digits.png") == (600, 500)


@example
def test_digits_with_few_epochs_and_another_picture(tmp_path):
    said = run("digits", tmp_path, "--epochs", "1", "--picture", "other.png")
    assert 0.1 < number(r"held-out images: (0\.\d{4})\n", said) < 0.97  # more mistakes than there is place for
    assert picture_size(tmp_path / "other.png") == (600, 500)


@example
def test_learning_rate(tmp_path):
    said = run("learning_rate", tmp_path)
    found = number(r"falls most steeply at ([\d.e-]+) ", said)
    assert 1e-4 < found < 1e-1 < number(r"above its start from ([\d.e-]+)\n", said)
    rows = re.findall(r"^ +([\d.e-]+) +([\d.e-]+) +(0\.\d+)$", said, re.MULTILINE)
    rates, losses, accuracies = np.array(rows, dtype=float).T
    assert rates == pytest.approx([factor * found for factor in (0.01, 0.1, 1, 10, 100)], rel=0.05)
    assert max(losses[2], losses[3]) < min(losses[0], losses[1], losses[4])  # as its docstring says
    assert accuracies[2] >= 0.95
    assert picture_size(tmp_path / "learning_rate.png") == (600, 540)


@example
def test_activations(tmp_path):
    said = run("activations", tmp_path, "--epochs", "60")
    right = dict(re.findall(r"^(\w+) +0\.\d+ +0\.\d+ +([\d.]+)%$", said, re.MULTILINE))
    assert set(right) == set(dlx.activations.ACTIVATIONS) - {"none", "logistic"}  # which are other names
    assert float(right["relu"]) > 99
    assert float(right["identity"]) < 75  # a line
    assert picture_size(tmp_path / "activations.png") == (600, 680)


@example
def test_quantiles(tmp_path):
    said = run("quantiles", tmp_path, "--epochs", "60")
    rows = re.findall(r"^ *(-?\d) to +(-?\d)" + 4 * r" +([\d.]+)%" + "$", said, re.MULTILINE)
    assert [row[:2] for row in rows] == [(str(k), str(k + 1)) for k in range(-3, 3)] + [("-3", "3")]
    assert [float(share) for share in rows[-1][2:]] == pytest.approx([5, 50, 95, 90], abs=3)
    assert picture_size(tmp_path / "quantiles.png") == (600, 400)


@example
def test_grid_search(tmp_path):
    said = run("grid_search", tmp_path)
    assert len(re.findall(r"^ +0\.\d{4} ", said, re.MULTILINE)) == 16
    assert number(r"accuracy on 360 held-out images: (0\.\d{4})\n", said) >= 0.95
    assert picture_size(tmp_path / "grid_search.png") == (600, 400)


@example
def test_resume(tmp_path):
    said = run("resume", tmp_path, "--epochs", "12", "--kill-after", "3")
    saved = number(r"killed by SIGKILL with (\d+) of 12 epochs on the disk\n", said)
    assert 3 <= saved < 12
    assert number(r"resumed: epochs (\d+) to 12, ", said) == saved + 1
    assert "epochs with another loss: 0 of 12\n" in said
    assert "weights and biases with another bit: 0 of 167178\n" in said
    assert picture_size(tmp_path / "resume.png") == (600, 400)


@example
def test_article(tmp_path):
    said = run("article", tmp_path)
    right = dict(re.findall(r"^([-\d]+ +\w+) .* ([\d.]+)% ", said, re.MULTILINE))
    assert float(right["2-1-1-1    line"]) >= 98
    assert float(right["2-1-1-1    spiral"]) <= 80  # parallel lines
    assert float(right["2-64-32-1  spiral"]) >= 95
    assert picture_size(tmp_path / "article.png") == (600, 390)


@example
def test_every_backend(tmp_path):
    said = run("every_backend", tmp_path, "--epochs", "4")
    assert said.startswith("numpy: accuracy 0.")
    assert number(r"largest difference in any of 4 epochs: ([\d.e+-]+)\n", said) < 1e-12
    losses = [row.split()[1:-1] for row in said.splitlines() if re.match(r" +\d+ ", row)]
    assert len(losses) == 4
    assert all(0 < float(loss) < 2 for row in losses for loss in row)
    assert picture_size(tmp_path / "every_backend.png") == (600, 450)


@example
def test_every_backend_or_only_one(tmp_path):
    said = run("every_backend", tmp_path, "--epochs", "2", "--backend", "numpy")
    assert "largest difference in any of 2 epochs: 0.0e+00\n" in said


def write_idx(path, array):
    """The array of unsigned bytes as a packed IDX file."""
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    path.write_bytes(gzip.compress(head + array.tobytes()))


def write_clothes(folder, kind, n, rng):
    """Images with a bright square for each class at a place of its own, and their labels."""
    labels = (np.arange(n) % 10).astype(np.uint8)
    images = rng.integers(0, 100, (n, 28, 28)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        row, column = 14 * (label // 5), 5 * (label % 5)
        image[row : row + 5, column : column + 5] += 150
    write_idx(folder / f"{kind}-images-idx3-ubyte.gz", images)
    write_idx(folder / f"{kind}-labels-idx1-ubyte.gz", labels)


@example
def test_fashion_mnist(tmp_path, rng):
    write_clothes(tmp_path, "train", 300, rng)
    write_clothes(tmp_path, "t10k", 50, rng)
    said = run("fashion_mnist", tmp_path, "--epochs", "10", FASHION_MNIST_DIR=str(tmp_path))
    assert number(r"accuracy on 50 test images: ([01]\.\d{4})\n", said) >= 0.9
    assert said.count("is not the published file") == 4
    assert "epoch 10/10  loss " in said
    assert picture_size(tmp_path / "fashion_mnist.png") == (600, 700)


@example
def test_fashion_mnist_chooses_settings_without_the_test_images(tmp_path, rng):
    write_clothes(tmp_path, "train", 60, rng)  # and no others
    said = run("fashion_mnist", tmp_path, "--tune", "--epochs", "2", FASHION_MNIST_DIR=str(tmp_path))
    rows = re.findall(r"^ +([01]\.\d{4})  (\d\.\d{4}) +[\d.]+  \{", said, re.MULTILINE)
    assert len(rows) == 6


def imported(name):
    """The example as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def fashion_mnist(tmp_path, monkeypatch):
    """The example as a module, with a cache of its own."""
    module = imported("fashion_mnist")
    monkeypatch.setattr(module, "CACHE", tmp_path / "cache" / "fashion-mnist")
    return module


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A folder, and the address of a web server for what it holds."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    with server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


LABELS = "t10k-labels-idx1-ubyte"


@example
def test_a_download_is_verified_and_kept(fashion_mnist, served, monkeypatch, capsys):
    folder, address = served
    labels = np.arange(7, dtype=np.uint8)
    write_idx(folder / f"{LABELS}.gz", labels)
    content = gzip.decompress((folder / f"{LABELS}.gz").read_bytes())
    monkeypatch.setitem(fashion_mnist.SHA256, LABELS, hashlib.sha256(content).hexdigest())
    monkeypatch.setenv("FASHION_MNIST_DIR", "/an/address/is/stronger")
    assert np.array_equal(fashion_mnist.read(LABELS, address), labels)
    assert capsys.readouterr().out.startswith(f"downloading {address}/{LABELS}.gz to ")
    (folder / f"{LABELS}.gz").unlink()
    assert np.array_equal(fashion_mnist.read(LABELS, address), labels)  # from the cache, where it was kept
    assert capsys.readouterr().out == ""


@example
@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (gzip.compress(b"\0\0\x08\x01\0\0\0\x01\x07"), "is not the published file: its SHA-256 is "),
        (b"<html>Please log in</html>", "cannot be had: Not a gzipped file"),
        (gzip.compress(b"12345")[:-6], "cannot be had: .*ended before"),
        (None, "cannot be had: HTTP Error 404"),
    ],
    ids=["another file", "a page", "a part", "nothing"],  # gzip writes the time: tests side by side need one name each
)
def test_a_wrong_download_is_refused(fashion_mnist, served, sent, message):
    folder, address = served
    if sent is not None:
        (folder / f"{LABELS}.gz").write_bytes(sent)
    with pytest.raises(SystemExit, match=message):
        fashion_mnist.read(LABELS, address)
    assert not fashion_mnist.CACHE.exists()


@example
def test_a_file_of_the_cache_that_has_changed_is_refused(fashion_mnist, served):
    fashion_mnist.CACHE.mkdir(parents=True)
    write_idx(fashion_mnist.CACHE / f"{LABELS}.gz", np.arange(7, dtype=np.uint8))
    with pytest.raises(SystemExit, match="is not the published file: remove it"):
        fashion_mnist.read(LABELS, served[1])
