"""Dropout masks: the same bits on every library as in plain integers, and as random as coins."""

import math

import numpy as np
import pytest

import dlx
import oracles
from dlx import dropout

NUMPY = dlx.get_backend("numpy")
KEYS = [0, 1, -1, 12345, -(2**31), 2**31 - 1]
RATES = [0.1, 0.5, 0.9]
ALMOST_ONE = math.nextafter(1.0, 0.0)


def hashed(key, n, d):
    """h[i, j] as a number in [0, 2^32), in Python's integers, with the logical shifts of the source."""

    def mix(x):
        x ^= x >> 16
        x = x * 0x7FEB352D % 2**32
        x ^= x >> 15
        return x * 0x846CA68B % 2**32

    h = [[mix((mix((i ^ key) % 2**32) + mix(j)) % 2**32) for j in range(d)] for i in range(n)]
    return (np.array(h, dtype=np.uint64).reshape(n, d) + 2**31) % 2**32  # dlx compares them as signed


def reference(key, n, d, rate):
    """0 with probability `rate`, else 1 / (1 - rate)."""
    kept = hashed(key, n, d) >= min(round(rate * 2**32), 2**32 - 1)
    return np.where(kept, 1.0 / (1.0 - rate), 0.0)


def mask(be, key, shape, rate, dtype="float64"):
    like = be.asarray(np.zeros(shape), dtype)
    with np.errstate(all="raise"):
        found = dropout.mask(be.xp, key, like, rate, be.device)
    assert found.dtype == be.dtype(dtype)
    return be.to_host(found)


# -- bits --


@pytest.mark.parametrize("rate", [1e-12, *RATES, ALMOST_ONE])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("key", KEYS)
def test_bits_are_those_of_plain_integers(key, dtype, rate, be):
    expected = reference(key, 37, 23, rate).astype(dtype)
    np.testing.assert_array_equal(mask(be, key, (37, 23), rate, dtype), expected)


def test_there_is_something_to_compare():
    """At 0.5 both sides of the threshold, at the extremes one; the hash is the same for signed and unsigned keys."""
    kept = {rate: np.count_nonzero(reference(7, 100, 100, rate)) for rate in (1e-12, 0.5, ALMOST_ONE)}
    assert kept[1e-12] == 10000
    assert 4700 < kept[0.5] < 5300
    assert kept[ALMOST_ONE] == 0
    np.testing.assert_array_equal(hashed(-3, 5, 5), hashed(2**32 - 3, 5, 5))


def test_rate_0_drops_nothing(be):
    np.testing.assert_array_equal(mask(be, 99, (64, 64), 0.0), 1.0)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (1, 1)])
def test_small_shapes(shape, be):
    np.testing.assert_array_equal(mask(be, -5, shape, 0.5), reference(-5, *shape, 0.5))


@pytest.mark.parametrize("lead", [(3,), (2, 3)])
def test_leading_axes_share_one_mask(lead, be):
    np.testing.assert_array_equal(mask(be, 8, (*lead, 9, 4), 0.3), mask(be, 8, (9, 4), 0.3))


@oracles.by_library(oracles.installed({"jax": "jax"}))
@pytest.mark.parametrize("key", KEYS)
def test_compiled_with_a_traced_key_the_bits_are_the_same(key, library):
    import jax

    be, traces = dlx.get_backend(library), []

    @jax.jit
    def traced(key, like):
        traces.append(key)
        return dropout.mask(be.xp, key, like, 0.4, be.device)

    for wide in (True, False):  # with JAX's 64-bit types and without
        with jax.enable_x64(wide):
            for each in (key, 77):
                found = be.to_host(traced(each, be.asarray(np.zeros((19, 8)), "float32")))
                np.testing.assert_array_equal(found, reference(each, 19, 8, 0.4).astype("float32"))
    assert len(traces) == 2  # another key compiles nothing anew


# -- randomness: every bound is five standard deviations of a fair coin's figure, or six for the worst of hundreds --

N, D = 512, 384


def signs(key, rate):
    """Mean 0 and variance 1, if every element is kept with probability 1 - rate."""
    kept = mask(NUMPY, key, (N, D), rate) != 0.0
    return (kept - (1.0 - rate)) / math.sqrt(rate * (1.0 - rate))


def deviations(products):
    """The sum of independent products of mean 0 and variance 1, in standard deviations."""
    return np.sum(products) / math.sqrt(products.size)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("key", KEYS)
def test_the_rate_of_the_whole_and_of_every_row_and_column(key, rate):
    m = signs(key, rate)
    assert abs(deviations(m)) < 5.0
    assert np.max(np.abs(np.sum(m, axis=1))) < 6.0 * math.sqrt(D)
    assert np.max(np.abs(np.sum(m, axis=0))) < 6.0 * math.sqrt(N)
    mean = np.mean(mask(NUMPY, key, (N, D), rate))
    assert abs(mean - 1.0) < 5.0 * math.sqrt(rate / (1.0 - rate) / (N * D))


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("lag", [(0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (0, 16), (16, 0), (256, 0), (0, 256), (3, 5)])
def test_neighbours_are_independent(lag, key, rate):
    m, (down, right) = signs(key, rate), lag
    assert abs(deviations(m[down:, right:] * m[: N - down, : D - right])) < 5.0
    # h mixes a number of the row plus one of the column: the four corners of a rectangle must not tell it
    corners = m[down:, right:] * m[: N - down, right:] * m[down:, : D - right] * m[: N - down, : D - right]
    assert not (down and right) or abs(deviations(corners)) < 5.0


@pytest.mark.parametrize("rate", RATES)
def test_rows_and_columns_are_uncorrelated(rate):
    m = signs(4711, rate)
    assert np.max(np.abs(np.triu(m @ m.T, 1))) < 6.5 * math.sqrt(D)
    assert np.max(np.abs(np.triu(m.T @ m, 1))) < 6.5 * math.sqrt(N)


@pytest.mark.parametrize("rate", RATES)
def test_other_keys_give_other_masks(rate):
    keys = [*KEYS, 2, 3, 2**16, 2**30, 12346]
    masks = np.stack([signs(key, rate).ravel() for key in keys])
    assert np.max(np.abs(np.triu(masks @ masks.T, 1))) < 5.0 * math.sqrt(N * D)
