"""Dropout masks from a counter-based hash. They are equal to the bit on every array library, whatever its generator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dlx.backend import Array, Fuse, Namespace, unfused


def _mix(x: Array) -> Array:
    """Hash int32 numbers by the multiply-xorshift rounds of "lowbias32" (Wellons 2018), modulo 2^32."""
    x = x ^ ((x >> 16) & 0xFFFF)  # the standard shifts copies of the sign bit in, which the mask removes
    x = x * 0x7FEB352D
    x = x ^ ((x >> 15) & 0x1FFFF)
    return x * (0x846CA68B - 2**32)


def bind(xp: Namespace, dtype: Any, fuse: Fuse) -> Callable[..., Array]:
    """The elementwise formula of `mask`, fused: formula(i, j, threshold, scale) for int32 arrays (n, 1) and (1, d)."""

    def formula(i: Array, j: Array, threshold: int, scale: float) -> Array:
        return xp.astype(_mix(_mix(i) + _mix(j)) >= threshold, dtype) * scale

    fused: Callable[..., Array] = fuse(formula, "dropout")
    return fused


def mask(
    xp: Namespace, key: int, like: Array, rate: float, device: Any = None, formula: Callable[..., Array] | None = None
) -> Array:
    """A mask of inverted dropout: 0 with probability `rate`, else 1 / (1 - rate), so that its mean is 1.

    M[i, j] = (h[i, j] >= rate · 2^32 - 2^31) / (1 - rate),  h[i, j] = mix(mix(i xor key) + mix(j)) in int32

    Parameters
    ----------
    xp : module
        The namespace of `like`.
    key : int in [-2^31, 2^31)
        The seed of the mask: each key gives another mask.
    like : float array (..., n, d)
        Gives the mask its dtype and its last two axes; all leading axes share one mask.
    rate : float in [0, 1)
        The share of elements that are 0.
    device : object, default None
        The device of `like`. It has to be passed, as an array that JAX traces does not know its device.
    formula : function, default None
        The result of `bind`, which computes the mask in one kernel if the library can; None computes it unfused.

    Returns
    -------
    array (n, d) of the dtype of `like`

    Numerics: the hash is exact integer arithmetic, and so the same on every library. The threshold is at most 2^31 - 1,
    so that the largest rates keep an element with probability 2^-32.

    Source: Srivastava et al. 2014. This is the inverted form, which needs no scaling when predicting.

    Examples
    --------
    >>> import numpy as np
    >>> mask(np, key=7, like=np.ones((2, 4)), rate=0.5)
    array([[0., 0., 2., 2.],
           [2., 0., 0., 2.]])
    """
    n, d = like.shape[-2:]
    i = xp.expand_dims(xp.arange(n, dtype=xp.int32, device=device) ^ key, axis=1)
    j = xp.expand_dims(xp.arange(d, dtype=xp.int32, device=device), axis=0)
    threshold = min(round(rate * 2**32) - 2**31, 2**31 - 1)
    return (formula or bind(xp, like.dtype, unfused))(i, j, threshold, 1.0 / (1.0 - rate))
