"""Dropout masks from a counter-based hash: bit-identical on every array library, whatever its own generator."""

from __future__ import annotations

from typing import Any

from dlx.backend import Array, Namespace


def _mix(x: Array) -> Array:
    """Scramble int32 numbers: the multiply-xorshift rounds of "lowbias32" (Wellons 2018), products modulo 2^32.

    The standard shifts int32 arithmetically, so that the sign bits which come in are masked off.
    """
    x = x ^ ((x >> 16) & 0xFFFF)
    x = x * 0x7FEB352D
    x = x ^ ((x >> 15) & 0x1FFFF)
    return x * (0x846CA68B - 2**32)


def mask(xp: Namespace, key: int, like: Array, rate: float, device: Any = None) -> Array:
    """Inverted dropout: 0 with probability `rate`, else 1 / (1 - rate), so that the mean stays 1.

    M[i, j] = (h[i, j] >= rate · 2^32 - 2^31) / (1 - rate),  h[i, j] = mix(mix(i xor key) + mix(j)), int32

    Parameters
    ----------
    key : int in [-2^31, 2^31)
        Another key, another mask.
    like : array (..., n, d)
        Gives the mask's dtype and last two axes; leading axes share one mask.
    rate : float in [0, 1)
    device : object, optional
        That of `like`, which while JAX traces does not know it.

    Returns
    -------
    array (n, d)

    Source: Srivastava et al. 2014; inverted, so that prediction needs no change.
    """
    n, d = like.shape[-2:]
    i = xp.arange(n, dtype=xp.int32, device=device)
    j = xp.arange(d, dtype=xp.int32, device=device)
    h = _mix(xp.expand_dims(_mix(i ^ key), axis=1) + xp.expand_dims(_mix(j), axis=0))
    threshold = min(round(rate * 2**32) - 2**31, 2**31 - 1)
    return xp.astype(h >= threshold, like.dtype) * (1.0 / (1.0 - rate))
