"""What a full device does to a fit."""

import contextlib
import json
import pickle
import subprocess
import sys

import cupy
import numpy as np
import pytest
import sklearn

import dlx
from cupy_on_cpu import emulate


def test_a_full_device_is_said_in_terms_of_the_batch():
    X = np.random.default_rng(0).standard_normal((16384, 50)).astype("float32")
    y = X[:, 0]
    cupy.get_default_memory_pool().free_all_blocks()
    with (
        emulate.memory_limit(24 << 20),
        pytest.raises(dlx.OutOfMemory, match=r"into the memory of cupy:0; got 16384\. Use a smaller batch_size"),
    ):
        dlx.fit(X, y, (50, 256, 1), batch_size=None, epochs=1, backend="cupy", rng=0)
    with emulate.memory_limit(24 << 20):  # the same in smaller batches fits, after what was held is given back
        net = dlx.fit(X, y, (50, 256, 1), batch_size=64, epochs=1, backend="cupy", rng=0)
    assert np.isfinite(net.history["loss"]).all()


def test_a_device_that_fills_up_leaves_the_checkpoint_before(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((5000, 50)).astype("float32")  # the last batch is captured in the second epoch
    how = {"layer_dims": (50, 256, 1), "batch_size": 2048, "epochs": 3, "backend": "cupy", "rng": 0}
    limits = contextlib.ExitStack()

    def fill(net):
        cupy.get_default_memory_pool().free_all_blocks()
        free, total = cupy.cuda.runtime.memGetInfo()
        limits.enter_context(emulate.memory_limit(total - free + (1 << 16)))

    with limits, pytest.raises(dlx.OutOfMemory, match="into the memory of cupy:0; got 2048"):
        dlx.fit(X, X[:, 0], **how, checkpoint=tmp_path, callbacks=fill)
    assert len(dlx.load(next(tmp_path.glob("checkpoint-*"))).history["loss"]) == 1
    net, whole = dlx.fit(X, X[:, 0], **how, checkpoint=tmp_path), dlx.fit(X, X[:, 0], **how)
    assert net.history["loss"] == whole.history["loss"]
    np.testing.assert_array_equal(cupy.asnumpy(net.params[0].W), cupy.asnumpy(whole.params[0].W))


def test_data_that_the_device_does_not_hold_are_streamed():
    X = np.random.default_rng(0).integers(0, 255, (60_000, 64)).astype("uint8")
    y = (X[:, 0] > 99).astype("int32")
    how = {"layer_dims": (64, 8, 1), "batch_size": 500, "epochs": 1, "backend": "cupy", "rng": 0, "learning_rate": 1e-5}
    cupy.get_default_memory_pool().free_all_blocks()
    with emulate.memory_limit(3 << 20), pytest.raises(dlx.OutOfMemory):
        dlx.fit(X, y, **how)
    cupy.get_default_memory_pool().free_all_blocks()
    with emulate.memory_limit(3 << 20), emulate.counting() as done:
        net = dlx.fit(X, y, **how, stream=True)
    assert np.isfinite(net.history["loss"]).all()
    assert done.syncs < 40  # none waits for a batch: there are 120 of them
    assert done.graph_launches > 100


def test_a_network_trained_on_cupy_loads_where_cupy_is_not_installed(tmp_path):
    X = np.random.default_rng(0).standard_normal((60, 5)).astype("float32")
    net = dlx.fit(X, X[:, 0] > 0, (5, 8, 2), epochs=3, backend="cupy", rng=0)
    net.save(tmp_path / "net.safetensors")
    (tmp_path / "net.pickle").write_bytes(pickle.dumps(net))
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "P.npy", net.predict_proba(X))
    script = """
import pickle, sys, warnings
sys.modules["cupy"] = None  # as if it were not installed
import numpy as np, dlx
X, P = np.load("X.npy"), np.load("P.npy")
saved = dlx.load("net.safetensors")
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    pickled = pickle.load(open("net.pickle", "rb"))
assert "cupy" in str(caught[0].message), caught
print([float(np.abs(each.predict_proba(X) - P).max()) for each in (saved, pickled)])
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert max(json.loads(done.stdout)) < 1e-6


@pytest.mark.parametrize("given", ["NumPy arrays", "CuPy arrays"])
def test_an_estimator_trained_on_cupy_loads_where_cupy_is_not_installed(given, tmp_path):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 5)).astype("float32")
    y = (X[:, 0] > 0).astype(int)
    stays = given == "CuPy arrays"
    with sklearn.config_context(array_api_dispatch=stays):
        clf = dlx.MLPClassifier(
            (8,), solver="lbfgs", max_iter=20, tol=0.1, random_state=0, backend=None if stays else "cupy"
        ).fit(cupy.asarray(X) if stays else X, y)
        P = clf.predict_proba(cupy.asarray(X) if stays else X)
    assert isinstance(P, cupy.ndarray if stays else np.ndarray)
    (tmp_path / "clf.pickle").write_bytes(pickle.dumps(clf))
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "P.npy", cupy.asnumpy(P))
    script = """
import pickle, sys, warnings
sys.modules["cupy"] = None  # as if it were not installed
import numpy as np
X, P = np.load("X.npy"), np.load("P.npy")
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    clf = pickle.load(open("clf.pickle", "rb"))
assert any("on numpy, not on cupy" in str(each.message) for each in caught), caught
print(float(np.abs(clf.predict_proba(X) - P).max()))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1e-6
