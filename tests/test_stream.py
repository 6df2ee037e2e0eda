"""Data that stay on the host: the same training, a batch at a time."""

import numpy as np
import pytest

import dlx

RNG = np.random.default_rng(0)
X = RNG.integers(0, 255, (203, 6)).astype(np.uint8)
Y = RNG.integers(0, 3, 203)
W = RNG.uniform(0.5, 1.5, 203)
HOW = {"layer_dims": (6, 8, 3), "batch_size": 32, "epochs": 4, "rng": 1, "dropout": 0.2, "learning_rate": 1e-4}


def weights(net):
    return np.concatenate([net.backend.to_host(each).ravel() for layer in net.params for each in layer])


@pytest.mark.parametrize(
    "more",
    [{}, {"sample_weight": W}, {"validation": 0.2}, {"batch_size": None}, {"shuffle": False}],
    ids=["plain", "weighted", "validated", "one batch", "in order"],
)
def test_trains_the_same_as_data_on_the_device(be, more):
    nets = [dlx.fit(X, Y, **{**HOW, **more}, backend=be, stream=stream) for stream in (False, True)]
    np.testing.assert_allclose(weights(nets[1]), weights(nets[0]), rtol=0, atol=1e-6)
    for name in set(nets[0].history) - {"seconds"}:
        np.testing.assert_allclose(nets[1].history[name], nets[0].history[name], rtol=1e-5)


def test_only_batches_reach_the_device(be, monkeypatch):
    """They come by `staging`, and what is judged afterwards by `asarray`."""
    seen, staged = [], []
    asarray, staging = type(be).asarray, type(be).staging

    def spy(self, x, dtype=None):
        seen.append(getattr(x, "shape", None))
        return asarray(self, x, dtype)

    def spied_staging(self):
        stage = staging(self)
        return lambda fill, shape, dtype: (staged.append(shape), stage(fill, shape, dtype))[1]

    monkeypatch.setattr(type(be), "staging", spied_staging)
    if be.name != "numpy":
        monkeypatch.setattr(type(be), "fewest_rows", 32)  # of the blocks in which what is returned is judged
        monkeypatch.setattr(type(be), "elements_at_once", 32)
        monkeypatch.setattr(type(be), "asarray", spy)
        dlx.fit(X, Y, **HOW, backend=be, stream=True)
        assert (32, 6) in [*seen, *staged]
        assert X.shape not in [*seen, *staged]
        assert bool(staged) is (be.padded(1) is None)  # rows are extended before they are brought over
    else:
        assert dlx.fit(X, Y, **HOW, stream=True).history["loss"]


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"stream": 1}, TypeError, r"^`stream` must be True or False; got 1\. True keeps X on the host\.$"),
        (
            {"optimizer": "lbfgs", "dropout": 0.0},
            ValueError,
            r"^`stream` must be False with lbfgs; got True\. It needs",
        ),
    ],
)
def test_what_cannot_stream(arguments, error, text):
    with pytest.raises(error, match=text):
        dlx.fit(X, Y, **{**HOW, "stream": True, **arguments})


def test_data_on_a_device_cannot_stream(be):
    if be.name != "numpy":
        with pytest.raises(ValueError, match=r"^`stream` must be False where X lies on a device; got True\. Pass X as"):
            dlx.fit(be.asarray(X), be.asarray(Y), **HOW, stream=True)
    else:
        assert dlx.fit(X, Y, **HOW, stream=True).history["loss"]
