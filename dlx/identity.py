"""What tells one training from another: its settings by name and number, its data by their fingerprint."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dlx import data, descriptions, quasi_newton
from dlx.activations import Activation
from dlx.backend import Backend, library_of
from dlx.losses import Loss
from dlx.optimizers import Optimizer
from dlx.schedules import Schedule

WORDS = 1 << 17  # of 8 bytes, which stay in cache


def told(value: Any, backend: Backend) -> Any:
    """A setting in the terms of JSON: data by their fingerprint, functions by their name."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Activation | Loss):
        return descriptions.described(value) or descriptions.OWN
    if isinstance(value, Optimizer):
        return {"name": value.name, "weight_decay": value.weight_decay, **told(value.settings, backend)}
    if isinstance(value, quasi_newton.LBFGS):
        return {"name": "lbfgs", **told(value._asdict(), backend)}
    if isinstance(value, Mapping):
        return {str(name): told(each, backend) for name, each in value.items()}
    if isinstance(value, tuple):
        return [told(each, backend) for each in value]
    if callable(value):
        return getattr(value, "__qualname__", type(value).__qualname__)
    return fingerprint(data.as_array(value, "checkpoint"), backend)


def fingerprint(x: Any, backend: Backend) -> str:
    """Shape, dtype and a digest of the data, wherever they lie: another value, or order, gives another.

    The digest is of the sums modulo 2^64 of the bytes in words, over each row and over each column.
    """
    rows, columns = hashlib.sha256(), []
    if x.ndim < 2:
        x = backend.xp.reshape(x, (-1, 1)) if library_of(x) == backend.name else x.reshape(-1, 1)
    at_once = max(1, WORDS * 8 // max(1, math.prod(x.shape[1:]) * 8))
    for first in range(0, x.shape[0], at_once):
        part = x[first : min(first + at_once, x.shape[0]), ...]
        host = np.ascontiguousarray(part if isinstance(part, np.ndarray) else backend.to_host(part))
        host = host.astype(str) if host.dtype.kind in "OT" else host  # labels
        octets = host.reshape(len(host), -1).view(np.uint8)
        width = next(size for size in (8, 4, 2, 1) if octets.shape[1] % size == 0)
        words = octets.view(f"u{width}")
        rows.update(words.sum(axis=1, dtype=np.uint64).data)
        columns.append(words.sum(axis=0, dtype=np.uint64))
    rows.update(np.sum(columns, axis=0, dtype=np.uint64).tobytes())
    return f"{data.dtype_name(x)} {tuple(x.shape)} {rows.hexdigest()[:12]}"


def short(text: str) -> str:
    """A digest of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def rates(schedule: Schedule, at: Sequence[int], planned: int) -> list[float] | None:
    """What tells one schedule from another; None where it cannot be asked so early."""
    try:
        return [float(schedule(step, planned, [])) for step in at]
    except Exception:  # a schedule of the user's own may want losses
        return None
