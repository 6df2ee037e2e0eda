"""Files of format 1 stay readable: those in tests/data were written when it was made."""

import shutil
from pathlib import Path

import numpy as np
import pytest

import dlx

DATA = Path(__file__).parent / "data"
PAIRS = [
    (np.arange(12.0).reshape(3, 4) / 8 - 0.5, np.arange(4.0) / 4),
    (np.arange(8.0).reshape(4, 2) / 8 - 0.25, np.array([[0.5, -0.5]])),
]
SETTINGS = {
    "activation": [dlx.activations.leaky_relu(0.25)],
    "loss": dlx.losses.cross_entropy(0.125),
    "classes": ["no", "yes"],
    "history": {"loss": [0.75, 0.5], "validation_loss": [1.0, float("inf")]},
    "feature_names": ["a", "b", "c"],
}
X = np.arange(60.0).reshape(20, 3) / 60
Y = np.array(["no", "yes"])[np.arange(20) % 2]
FIT = {"layer_dims": (3, 4, 2), "activation": "tanh", "dropout": 0.25, "batch_size": 8, "rng": 1, "validation": 0.2}


def make():
    """Write the files; they are not to be made again while the format stays."""
    dlx.Network(PAIRS, **SETTINGS).save(DATA / "format-1.safetensors")
    dlx.fit(X, Y, **FIT, epochs=2, patience=5, checkpoint=DATA / "run", checkpoint_every=1)


def test_a_network_of_format_1():
    found, net = dlx.load(DATA / "format-1.safetensors"), dlx.Network(PAIRS, **SETTINGS)
    np.testing.assert_array_equal(found.predict_proba(X), net.predict_proba(X))
    np.testing.assert_array_equal(found.predict(X), net.predict(X))
    for name in ("layer_dims", "feature_names", "history", "dtype", "classes"):
        np.testing.assert_equal(getattr(found, name), getattr(net, name))
    assert [found.loss[:3], found.activation[0][:3]] == [net.loss[:3], net.activation[0][:3]]


def test_a_checkpoint_of_format_1(tmp_path):
    shutil.copytree(DATA / "run", tmp_path / "run")
    net = dlx.fit(X, Y, **FIT, epochs=4, patience=5, checkpoint=tmp_path / "run")
    whole = dlx.fit(X, Y, **FIT, epochs=4, patience=5)
    assert net.history["loss"] == pytest.approx(whole.history["loss"], rel=1e-12)  # of another processor, perhaps
    assert net.history["validation_loss"] == pytest.approx(whole.history["validation_loss"], rel=1e-12)
