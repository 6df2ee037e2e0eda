"""The benchmarks run, on few rows; how long they take is asserted nowhere. Memory is."""

import importlib.util
import json
import os
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
        beside = [figures["ratio_to_scan"] for figures in row.values() if "ratio_to_scan" in figures]
        assert len(beside) == (len(names) if "JAX + optax, scan" in names else 0)
        assert not beside or row["JAX + optax, scan"]["ratios_to_scan"] == [1.0]
        assert (tmp_path / "peers.png").stat().st_size > 10_000
        assert {"processor", "NumPy's BLAS", "numpy", "date"} <= found["facts"].keys()

    def test_peers_train_with_other_activations(tmp_path):
        """Those who can: scikit-learn is measured with relu only."""
        names = ["dlx numpy", "scikit-learn"]
        names += ["torch eager"] if importlib.util.find_spec("torch") else []
        names += ["JAX + optax, scan"] if importlib.util.find_spec("optax") else []
        options = ["--items", "", "--activations", "tanh", "selu", "--rows", "400", "--rounds", "1"]
        printed = run("peers.py", *options, "--output", str(tmp_path), "--only", *names)
        found = json.loads((tmp_path / "peers.json").read_text())["seconds an epoch"]
        assert list(found) == ["A tanh", "A selu"]
        names.remove("scikit-learn")
        assert all(list(row) == names for row in found.values())
        assert "| seconds an epoch | A tanh | A selu |" in printed
        for row in found.values():
            losses = [figures["loss"] for figures in row.values()]
            assert max(losses) - min(losses) < 0.1  # of 0.8 to 1.2, in other orders of the rows

    def test_the_script_for_a_gpu_measures_draws_and_notes_who_cannot(tmp_path):
        """On the CPU, where PyTorch cannot make a graph."""
        output, picture = tmp_path / "gpu.json", tmp_path / "gpu.svg"
        options = ["--device", "cpu", "--rows", "300", "--rounds", "1", "--output", output]
        drawn = ["--picture", picture] if importlib.util.find_spec("optax") else []  # it is drawn beside JAX's scan
        printed = run("gpu.py", *options, "--only", "C", "--parts", "items,predict", *drawn)
        found = json.loads(output.read_text())
        row = found["items"]["C"]
        present = {"dlx numpy"}
        present |= {"dlx torch:cpu", "PyTorch eager"} if importlib.util.find_spec("torch") else set()
        present |= {"dlx jax:cpu"} if importlib.util.find_spec("jax") else set()
        present |= {"JAX scan", "JAX step"} if importlib.util.find_spec("optax") else set()
        assert {name for name, figures in row.items() if "median" in figures} == present
        assert {"PyTorch graph"} <= {name for name, figures in row.items() if "error" in figures}
        losses = [figures["loss"] for figures in row.values() if "loss" in figures]
        assert max(losses) - min(losses) < 0.05  # after one epoch from the same weights
        assert all(figures["first"] > 0 for name, figures in found["predict"]["C, 1 rows"].items() if name in present)
        assert {"device", "date", "numpy", "torch", "jax", "optax"} <= found["facts"].keys()
        assert all(name in printed for name in row)
        ratios = {(bar["who"], bar["beside"]): bar["ratio"] for bar in found["bars"]}
        assert ratios["dlx numpy", "PyTorch graph"] is None
        if drawn:
            assert picture.stat().st_size > 5_000
            again = tmp_path / "again.svg"
            run("gpu.py", "--picture-from", output, "--picture", again)
            assert again.read_bytes() == picture.read_bytes()

    def test_the_script_for_a_gpu_measures_a_stream_and_tf32(tmp_path):
        """TF32 is refused by dlx where there is none, which is noted. Without time nothing is begun."""
        output = tmp_path / "gpu.json"
        options = ["--device", "cpu", "--rows", "300", "--rounds", "1", "--output", output]
        options += ["--only", "A,B", "--parts", "stream,tf32", "--who", "numpy,PyTorch eager"]
        run("gpu.py", *options)
        found = json.loads(output.read_text())
        stream = found["stream"]["A, batch 2048"]
        alone = [stream[f"{what} alone"].get("median", 0.0) for what in ("computing", "gathering", "copying")]
        assert stream["slowest alone"]["median"] == max(alone) > 0
        assert "error" in found["tf32"]["B"]["dlx numpy"]
        assert "no time was left" in run("gpu.py", *options, "--seconds", "0")


def test_the_script_for_a_gpu_says_where_there_is_none(tmp_path):
    hidden = os.environ | {"CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(
        [sys.executable, FOLDER / "gpu.py", "--output", tmp_path / "none.json"],
        capture_output=True,
        text=True,
        env=hidden,
    )
    assert done.returncode == 1
    assert "CuPy cannot compute here: " in done.stderr
    assert not (tmp_path / "none.json").exists()


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
