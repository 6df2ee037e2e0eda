"""The benchmarks run, on few rows; how long they take is asserted nowhere. Memory is."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "benchmarks"


def run(script, *arguments):
    return subprocess.run(
        [sys.executable, FOLDER / script, *arguments], capture_output=True, text=True, check=True
    ).stdout


if importlib.util.find_spec("matplotlib"):

    def test_peers_learn_the_same_and_leave_a_table_and_a_picture(tmp_path):
        names = ["products alone", "dlx numpy", "scikit-learn"]
        names += ["dlx numpy + fast"] if importlib.util.find_spec("numba") else []
        names += ["torch eager", "dlx torch"] if importlib.util.find_spec("torch") else []
        names += ["JAX + optax, scan", "dlx jax"] if importlib.util.find_spec("optax") else []
        options = ["--items", "C", "--rows", "900", "--rounds", "1", "--output", str(tmp_path)]
        printed = run("peers.py", *options, "--only", *names)
        found = json.loads((tmp_path / "peers.json").read_text())
        row = found["seconds an epoch"]["C"]
        assert list(row) == names
        assert all(f"| {name} |" in printed for name in names)
        losses = [figures["loss"] for name, figures in row.items() if name != "products alone"]
        assert max(losses) - min(losses) < 0.05  # of 0.55 to 0.69 after so few updates
        assert (tmp_path / "peers.png").stat().st_size > 10_000
        assert {"processor", "NumPy's BLAS", "numpy", "date"} <= found["facts"].keys()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts memory as Linux does")
def test_a_fit_stays_within_its_memory():
    """The data + 4 times the parameters + 6 batches + 100 MB, for 784-256-10 on 60,000 x 784 uint8."""
    peak = int(run("memory.py", "--process", "dlx numpy").split()[-1])
    data, parameters, batch = 60_000 * 784, 4 * 203_530, 4 * 128 * 784
    assert data < peak <= data + 4 * parameters + 6 * batch + 100_000_000


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts memory as Linux does")
def test_what_users_reported_is_measured(tmp_path):
    cases = ["20 predictions, numpy", "TimeSeriesSplit(10), scikit-learn", "mapped file, score, numpy"]
    printed = run("field.py", "--output", str(tmp_path), "--rows", "2000", "--only", *cases)
    found = json.loads((tmp_path / "field.json").read_text())["cases"]
    assert list(found) == cases
    assert all(case in printed for case in cases)
    assert found["mapped file, score, numpy"]["MB"] < 30  # of 6 MB of data
