"""Descriptions by which two trainings are compared: settings by names and numbers, data by fingerprints."""

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

BYTES_AT_ONCE = 1 << 20  # that are hashed, so that they stay in cache


def as_json(value: Any, backend: Backend) -> Any:
    """A setting as JSON can hold it: data by their fingerprint, functions by their name."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Activation | Loss):
        return schema.described(value) or schema.OWN
    if isinstance(value, Mapping):
        return {str(name): as_json(setting, backend) for name, setting in value.items()}
    if isinstance(value, tuple):
        return [as_json(setting, backend) for setting in value]
    if features.compressed(value):
        parts = " ".join(fingerprint(part, backend) for part in sparse.canonical_parts(value))
        return f"sparse {features.dtype_name(value)} {tuple(value.shape)} {digest_of(parts)}"
    if callable(value):
        return getattr(value, "__qualname__", type(value).__qualname__)
    return fingerprint(features.as_array(value, "checkpoint"), backend)


def fingerprint(x: Any, backend: Backend) -> str:
    """Dtype, shape and a digest of data, wherever they lie. Other values, or another order, give another one."""
    digest = hashlib.sha256()
    if x.ndim == 0:
        x = x[None]
    at_once = max(1, BYTES_AT_ONCE // max(1, 8 * math.prod(x.shape[1:])))
    for first in range(0, x.shape[0], at_once):
        part = x[first : min(first + at_once, x.shape[0]), ...]
        host = np.ascontiguousarray(part if isinstance(part, np.ndarray) else backend.to_host(part))
        if host.dtype.kind in "OT":  # labels, which would lose NULs at their end in a dtype of strings
            host = np.frombuffer(json.dumps(host.tolist(), default=str).encode(), np.uint8)
        digest.update(host.reshape(-1).view(np.uint8).data)
    return f"{features.dtype_name(x)} {tuple(x.shape)} {digest.hexdigest()[:16]}"


def digest_of(text: str) -> str:
    """The first twelve hexadecimal digits of the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def schedule_as_json(schedule: Schedule, planned: int, earlier: Any) -> Any:
    """A schedule as JSON can hold it: its own description, or else some of its rates in `planned` updates.

    `earlier` is what an earlier call returned for the checkpoint, so that the rates are compared at the same steps.
    """
    description = getattr(schedule, "description", None)
    if description is not None:
        return description
    steps = earlier["steps"] if isinstance(earlier, Mapping) and "steps" in earlier else None
    if not (isinstance(steps, list) and all(type(step) is int for step in steps)):
        steps = sorted({planned * k // 4 for k in range(4)} | {planned - 1})
    try:
        return {"steps": steps, "rates": [float(schedule(step, planned, [])) for step in steps]}
    except Exception:  # a function of the user's that needs losses may raise anything without them
        return {"steps": steps, "rates": None}


def keeps_rates(
    schedule: Schedule, plans: tuple[int, int], per_epoch: int, history: Mapping[str, Sequence[float]], updates: int
) -> bool:
    """Whether a schedule gives the same rates so far under both plans of so many updates, and those in the history."""
    before, now = plans
    past_losses, losses, ends = Losses(), loop.watched(history), history.get("learning_rate", [])
    for first in range(0, max(updates, len(ends) * per_epoch), per_epoch):
        epoch = first // per_epoch
        if epoch < len(ends) and float(schedule(first + per_epoch - 1, now, past_losses)) != ends[epoch]:
            return False
        steps = range(first, min(first + per_epoch, updates)) if before != now else ()
        for step in steps:
            if float(schedule(step, before, past_losses)) != float(schedule(step, now, past_losses)):
                return False
        past_losses.extend(losses[epoch : epoch + 1])
    return True
