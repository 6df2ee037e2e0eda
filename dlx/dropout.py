"""Dropout masks from a counter-based hash: bit-identical on every array library, whatever its own generator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dlx.backend import Array, Fuse, Namespace, unfused


def _mix(x: Array) -> Array:
    """Scramble int32 numbers: the multiply-xorshift rounds of "lowbias32" (Wellons 2018), products modulo 2^32.

    The standard shifts int32 arithmetically, so that the sign bits which come in are masked off.
    """
    x = x ^ ((x >> 16) & 0xFFFF)
    x = x * 0x7FEB352D
    x = x ^ ((x >> 15) & 0x1FFFF)
    return x * (0x846CA68B - 2**32)


def bind(xp: Namespace, dtype: Any, fuse: Fuse) -> Callable[..., Array]:
    """The elementwise formula of `mask`: kept(i, j, threshold, scale) of int32 arrays (n, 1) and (1, d)."""

    def kept(i: Array, j: Array, threshold: int, scale: float) -> Array:
        return xp.astype(_mix(_mix(i) + _mix(j)) >= threshold, dtype) * scale

    fused: Callable[..., Array] = fuse(kept, "dropout")
    return fused


def mask(
    xp: Namespace, key: int, like: Array, rate: float, device: Any = None, kept: Callable[..., Array] | None = None
) -> Array:
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
    kept : function, optional
        What `bind` gave, for a mask in one kernel where the library can.

    Returns
    -------
    array (n, d)

    Source: Srivastava et al. 2014; inverted, so that prediction needs no change.
    """
    n, d = like.shape[-2:]
    i = xp.expand_dims(xp.arange(n, dtype=xp.int32, device=device) ^ key, axis=1)
    j = xp.expand_dims(xp.arange(d, dtype=xp.int32, device=device), axis=0)
    threshold = min(round(rate * 2**32) - 2**31, 2**31 - 1)
    return (kept or bind(xp, like.dtype, unfused))(i, j, threshold, 1.0 / (1.0 - rate))
