"""Initial weights: their distributions beside the papers' and torch.nn.init's, their stream, users' own."""

import math

import numpy as np
import pytest
import scipy.stats

import oracles
from dlx import initializers

D_IN, D_OUT = 200, 300
N = D_IN * D_OUT
GLOROT, HE, LECUN = 2.0 / (D_IN + D_OUT), 2.0 / D_IN, 1.0 / D_IN
DRAWS = {  # variance, kurtosis of the law: 3 of a normal one, 9/5 of a uniform one
    "glorot_normal": (GLOROT, 3.0),
    "glorot_uniform": (GLOROT, 1.8),
    "he_normal": (HE, 3.0),
    "he_uniform": (HE, 1.8),
    "lecun_normal": (LECUN, 3.0),
    "lecun_uniform": (LECUN, 1.8),
    "normal": (0.01**2, 3.0),
}
every_draw = pytest.mark.parametrize("name", DRAWS)


def drawn(name, seed=11):
    return initializers.get(name)(np.random.default_rng(seed), D_IN, D_OUT)


@every_draw
def test_moments_are_those_of_the_paper(name):
    """Within five standard deviations of the estimates: sqrt(v / n) and v sqrt((kurtosis - 1) / n)."""
    W, (variance, kurtosis) = drawn(name), DRAWS[name]
    assert abs(np.mean(W)) < 5.0 * math.sqrt(variance / N)
    assert abs(np.mean(W * W) / variance - 1.0) < 5.0 * math.sqrt((kurtosis - 1.0) / N)
    rows, columns = np.corrcoef(W), np.corrcoef(W.T)
    assert np.max(np.abs(rows - np.eye(D_IN))) < 6.0 / math.sqrt(D_OUT)
    assert np.max(np.abs(columns - np.eye(D_OUT))) < 6.0 / math.sqrt(D_IN)


@every_draw
def test_the_law_is_normal_or_uniform(name):
    variance, kurtosis = DRAWS[name]
    a = math.sqrt(3.0 * variance)
    law = scipy.stats.norm(0.0, math.sqrt(variance)) if kurtosis == 3.0 else scipy.stats.uniform(-a, 2.0 * a)
    W = drawn(name)
    assert scipy.stats.kstest(W.ravel(), law.cdf).pvalue > 1e-3
    if kurtosis == 1.8:
        assert (1.0 - 20.0 / N) * a < np.max(np.abs(W)) <= a


TORCH = {
    "glorot_normal": ("xavier_normal_", {}),
    "glorot_uniform": ("xavier_uniform_", {}),
    "he_normal": ("kaiming_normal_", {"nonlinearity": "relu"}),
    "he_uniform": ("kaiming_uniform_", {"nonlinearity": "relu"}),
    "lecun_normal": ("kaiming_normal_", {"nonlinearity": "linear"}),
    "lecun_uniform": ("kaiming_uniform_", {"nonlinearity": "linear"}),
    "normal": ("normal_", {"std": 0.01}),
}


@oracles.by_library(oracles.installed({"torch": "torch"}))
@every_draw
def test_the_law_is_that_of_torch(name, library):
    import torch

    peer, settings = TORCH[name]
    theirs = torch.empty((D_OUT, D_IN), dtype=torch.float64)  # torch keeps W transposed
    getattr(torch.nn.init, peer)(theirs, generator=torch.Generator().manual_seed(3), **settings)
    assert scipy.stats.ks_2samp(drawn(name).ravel(), theirs.numpy().ravel()).pvalue > 1e-3
    kurtosis = DRAWS[name][1]  # the estimate of a variance varies by (kurtosis - 1) / n, and there are two
    assert abs(np.var(drawn(name)) / np.var(theirs.numpy()) - 1.0) < 5.0 * math.sqrt(2.0 * (kurtosis - 1.0) / N)


@pytest.mark.parametrize("name", initializers.INITIALIZERS)
def test_shape_dtype_and_determinism(name):
    W = drawn(name)
    assert W.shape == (D_IN, D_OUT)
    assert W.dtype == np.float64
    np.testing.assert_array_equal(W, drawn(name))
    assert name == "zeros" or not np.array_equal(W, drawn(name, seed=12))
    assert initializers.get(name)(np.random.default_rng(0), 1, 1).shape == (1, 1)


@pytest.mark.parametrize("std", [0.01, 0.3, 1e-200, 0.0])
def test_normal_is_the_stream_of_the_generator(std):
    expected = std * np.random.default_rng(4).standard_normal((5, 3))
    found = initializers.normal(std)(np.random.default_rng(4), 5, 3)
    np.testing.assert_array_equal(found, expected)
    assert np.all(found != 0.0) == (std > 0.0)


def test_fixed_weights():
    np.testing.assert_array_equal(initializers.constant(-0.5)(np.random.default_rng(0), 3, 2), np.full((3, 2), -0.5))
    np.testing.assert_array_equal(initializers.zeros(np.random.default_rng(0), 3, 2), np.zeros((3, 2)))


# -- a whole network's --


def test_draw_goes_layer_by_layer_through_one_stream():
    found = initializers.draw(None, np.random.default_rng(9), (5, 4, 3, 2), ["he_normal", "lecun_uniform"])
    rng = np.random.default_rng(9)
    expected = [
        initializers.he_normal(rng, 5, 4),
        initializers.lecun_uniform(rng, 4, 3),
        initializers.glorot_uniform(rng, 3, 2),  # the output layer
    ]
    for (W, b), each in zip(found, expected, strict=True):
        np.testing.assert_array_equal(W, each)
        np.testing.assert_array_equal(b, np.zeros((1, each.shape[1])))


def test_one_initialiser_serves_every_layer():
    found = initializers.draw(initializers.constant(2.0), np.random.default_rng(9), (3, 2, 1), ["he_normal"])
    assert [W.tolist() for W, _ in found] == [[[2.0, 2.0]] * 3, [[2.0]] * 2]


@pytest.mark.parametrize("shape", [(2, 3), (3,), (3, 2, 1), ()])
def test_a_users_own_of_a_wrong_shape_is_rejected(shape):
    text = rf"^`init` must return W of shape \(3, 2\); got \({', '.join(map(str, shape))},?\)\. It is called as init\("
    with pytest.raises(ValueError, match=text):
        initializers.draw(lambda rng, d_in, d_out: np.zeros(shape), np.random.default_rng(0), (3, 2), [])


def test_a_users_own_may_be_a_list():
    ((W, _),) = initializers.draw(lambda rng, d_in, d_out: [[1, 2]], np.random.default_rng(0), (1, 2), [])
    np.testing.assert_array_equal(W, [[1.0, 2.0]])


# -- names --


def test_get():
    own = initializers.constant(1.0)
    assert initializers.get("auto") is None
    assert initializers.get(own) is own
    assert all(initializers.get(name) is make for name, make in initializers.INITIALIZERS.items())


@pytest.mark.parametrize(("given", "error", "got"), [("xavier", ValueError, "'xavier'"), (0.1, TypeError, r"0\.1")])
def test_get_rejects(given, error, got):
    text = (
        rf"^`init` must be one of 'auto', 'glorot_normal', .*, 'zeros'; got {got}\. Or pass dlx\.initializers\.normal"
    )
    with pytest.raises(error, match=text):
        initializers.get(given)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: initializers.normal(-0.1), ValueError, r"`std` must be a number >= 0; got -0\.1\. Use 0\.01"),
        (lambda: initializers.normal("wide"), TypeError, r"`std` must be a number >= 0; got 'wide'\. Use 0\.01"),
        (lambda: initializers.constant(math.inf), ValueError, r"`value` must be finite; got inf\. Use 0\.1"),
        (lambda: initializers.constant(None), TypeError, r"`value` must be a number; got None\. Use 0\.1"),
    ],
)
def test_settings_reject(make, error, text):
    with pytest.raises(error, match=f"^{text}"):
        make()
