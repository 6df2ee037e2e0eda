"""What tells one training from another: its settings by name and number, its data by their fingerprint."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dlx.activations import Activation
from dlx.backend import Backend
from dlx.data import features, sparse
from dlx.files import schema
from dlx.losses import Loss
from dlx.schedules import Losses, Schedule
from dlx.training import loop

BYTES = 1 << 20  # hashed at once, which stay in cache


def told(value: Any, backend: Backend) -> Any:
    """A setting in the terms of JSON: data by their fingerprint, functions by their name."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Activation | Loss):
        return schema.described(value) or schema.OWN
    if isinstance(value, Mapping):
        return {str(name): told(each, backend) for name, each in value.items()}
    if isinstance(value, tuple):
        return [told(each, backend) for each in value]
    if features.compressed(value):
        found = " ".join(fingerprint(each, backend) for each in sparse.canonical_parts(value))
        return f"sparse {features.dtype_name(value)} {tuple(value.shape)} {short(found)}"
    if callable(value):
        return getattr(value, "__qualname__", type(value).__qualname__)
    return fingerprint(features.as_array(value, "checkpoint"), backend)


def fingerprint(x: Any, backend: Backend) -> str:
    """Shape, dtype and a digest of the data, wherever they lie: another value, or order, gives another."""
    found = hashlib.sha256()
    if x.ndim == 0:
        x = x[None]
    at_once = max(1, BYTES // max(1, 8 * math.prod(x.shape[1:])))
    for first in range(0, x.shape[0], at_once):
        part = x[first : min(first + at_once, x.shape[0]), ...]
        host = np.ascontiguousarray(part if isinstance(part, np.ndarray) else backend.to_host(part))
        if host.dtype.kind in "OT":  # labels; in a plain dtype, NULs at their end would be lost
            host = np.frombuffer(json.dumps(host.tolist(), default=str).encode(), np.uint8)
        found.update(host.reshape(-1).view(np.uint8).data)
    return f"{features.dtype_name(x)} {tuple(x.shape)} {found.hexdigest()[:16]}"


def short(text: str) -> str:
    """A digest of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def told_rates(schedule: Schedule, planned: int, before: Any) -> Any:
    """A schedule in the terms of JSON: what it tells of itself, or some of its rates.

    Those are at the steps that were asked for `before`, in another call.
    """
    known = getattr(schedule, "description", None)
    if known is not None:
        return known
    at = before["steps"] if isinstance(before, Mapping) and "steps" in before else None
    if not (isinstance(at, list) and all(type(step) is int for step in at)):
        at = sorted({planned * k // 4 for k in range(4)} | {planned - 1})
    try:
        return {"steps": at, "rates": [float(schedule(step, planned, [])) for step in at]}
    except Exception:  # it may want losses
        return {"steps": at, "rates": None}


def kept_rates(
    schedule: Schedule, plans: tuple[int, int], per_epoch: int, history: Mapping[str, Sequence[float]], updates: int
) -> bool:
    """Whether a schedule gives the rates so far under both plans, of so many updates, and those of finished epochs."""
    before, now = plans
    seen, losses, ends = Losses(), loop.watched(history), history.get("learning_rate", [])
    for first in range(0, max(updates, len(ends) * per_epoch), per_epoch):
        epoch = first // per_epoch
        if epoch < len(ends) and float(schedule(first + per_epoch - 1, now, seen)) != ends[epoch]:
            return False
        steps = range(first, min(first + per_epoch, updates)) if before != now else ()
        for step in steps:
            if float(schedule(step, before, seen)) != float(schedule(step, now, seen)):
                return False
        seen.extend(losses[epoch : epoch + 1])
    return True
