"""A training's progress as a file holds it, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from dlx import quasi_newton
from dlx.backend import Backend
from dlx.data import parameters
from dlx.files import schema
from dlx.files.schema import BEST, SLOTS, TRAINING
from dlx.optimizers import State
from dlx.training.loop import ORDER, Progress
from dlx.training.steps import Start

Arrays = dict[str, np.ndarray[Any, Any]]


PLACES = {"pos": 624, "buffer_pos": 4, "has_uint32": 1}  # what NumPy's generators take unchecked, and read from


def plain(state: Any) -> Any:
    """A generator's state in the terms of JSON."""
    if isinstance(state, Mapping):
        return {name: plain(each) for name, each in state.items()}
    return state.tolist() if isinstance(state, np.ndarray | np.generic) else state


def restored(like: Any, state: Any) -> Any:
    """The state again, of the kind that a generator of the same sort has now."""
    if isinstance(like, Mapping):
        if sorted(like) != sorted(state):
            raise ValueError("a generator's state of another kind")
        if any(not 0 <= state[name] <= most for name, most in PLACES.items() if name in like):
            raise ValueError("a generator's state that points beyond its own numbers")
        return {name: restored(each, state[name]) for name, each in like.items()}
    if isinstance(like, np.ndarray):
        found = np.array(state, like.dtype)
        if found.shape != like.shape:
            raise ValueError("a generator's state of another size")
        return found
    if type(like) is not type(state) or (isinstance(like, str) and like != state):
        raise ValueError(f"a generator's state with {state!r} for {like!r}")
    return state


def to_file(progress: Progress, backend: Backend, dtype: str) -> tuple[dict[str, Any], Arrays]:
    """What a checkpoint says beside the network, and all its tensors."""
    start, slots = progress.start, progress.start.slots
    arrays = schema.tensors_of(progress.params)
    lbfgs = None
    if isinstance(slots, quasi_newton.Memory):
        lbfgs = {"f": slots.f, "length": slots.length, "sy": [sy for _, _, sy in slots.pairs]}
        arrays["gradient"] = slots.gradient
        s_and_y = [np.array([backend.to_host(pair[k]) for pair in slots.pairs], dtype) for k in (0, 1)]
        arrays |= {name: each.reshape(-1, slots.gradient.shape[0]) for name, each in zip("sy", s_and_y, strict=True)}
        slots = ()
    count = len(slots[0][0]) if slots else 0
    for k in range(count):
        arrays |= schema.tensors_of([(W[k], b[k]) for W, b in slots or ()], f"{SLOTS}{k}/")
    if progress.best is not None:
        arrays |= schema.tensors_of(progress.best, BEST)
    found = {name: each if isinstance(each, np.ndarray) else backend.to_host(each) for name, each in arrays.items()}
    found["losses"] = np.asarray(start.losses, dtype)
    return {
        "best_epoch": progress.best_epoch,
        "drawn_from": plain(progress.drawn),
        "ended": progress.ended,
        "epoch": start.epoch,
        "lbfgs": lbfgs,
        "limit": start.limit if math.isfinite(start.limit) else None,
        "position": start.position,
        "seconds": progress.seconds,
        "slots": count,
        "updates": start.updates,
    }, found


def from_file(
    description: Mapping[str, Any], arrays: Arrays, backend: Backend, dtype: str, optimizer: Any, per_epoch: int
) -> Progress:
    """What `to_file` was given, by a training with that optimizer and so many updates an epoch.

    Any error is the file's. A right digest is no proof: whoever can write the file can write that too.
    """
    training, layers = description[TRAINING], len(description["layer_dims"]) - 1
    updates, epoch, position = (schema.count(training[name]) for name in ("updates", "epoch", "position"))
    history = schema.history_of(description, arrays)
    if not all(np.isfinite(each).all() for name, each in arrays.items() if not name.startswith(schema.HISTORY)):
        raise ValueError("a number that is not finite")
    if any(len(history.get(name, [])) != epoch for name in ("loss", "learning_rate", "seconds")) or any(
        len(figures) != epoch for name, figures in history.items() if name in ORDER
    ):
        raise ValueError("a history of another length than there were epochs")
    best_epoch, limit, ended = (training[name] for name in ("best_epoch", "limit", "ended"))
    if (best_epoch is not None and schema.count(best_epoch) >= epoch) or type(ended) is not bool:
        raise ValueError(f"best epoch {best_epoch} of {epoch}, ended: {ended}")

    def params(prefix: str = "") -> Any:
        return parameters.own_params(schema.pairs_of(arrays, layers, prefix), backend, dtype)

    slots: State | quasi_newton.Memory
    if isinstance(optimizer, quasi_newton.LBFGS):
        slots = _memory(training, arrays, lambda x: backend.copy(backend.asarray(x, dtype)), optimizer)
    else:
        if (training["slots"], training["lbfgs"]) != (optimizer.slots, None):
            raise ValueError(f"{training['slots']} slots instead of {optimizer.slots}")
        if position > per_epoch or updates != epoch * per_epoch + position:
            raise ValueError(f"update {updates} at batch {position} of epoch {epoch}, of {per_epoch} batches each")
        each = [params(f"{SLOTS}{k}/") for k in range(optimizer.slots)]
        slots = tuple((tuple(slot[l].W for slot in each), tuple(slot[l].b for slot in each)) for l in range(layers))
    limit = math.inf if limit is None else _number(limit)
    start = Start(slots, updates, epoch, position, arrays["losses"], limit)
    best = None if best_epoch is None else params(BEST)
    return Progress(
        params(), start, history, best, best_epoch, _number(training["seconds"]), ended, training["drawn_from"]
    )


def _memory(
    training: Mapping[str, Any], arrays: Arrays, own: Any, optimizer: quasi_newton.LBFGS
) -> quasi_newton.Memory:
    """L-BFGS's, whose pairs have positive sᵀy."""
    memory = training["lbfgs"]
    if (training["slots"], training["position"]) != (0, 0) or training["updates"] < 1:
        raise ValueError("L-BFGS within an epoch")
    sy = [_number(each) for each in memory["sy"]]
    if len(sy) > optimizer.history or not all(sy) or type(memory["f"]) is not float:
        raise ValueError(f"{len(sy)} pairs for L-BFGS")
    pairs = zip(map(own, arrays["s"]), map(own, arrays["y"]), sy, strict=True)
    length = _number(memory["length"])
    return quasi_newton.Memory(memory["f"], own(arrays["gradient"]), tuple(pairs), length, training["updates"])


def _number(value: Any) -> float:
    """Finite and not negative; JSON has no other than finite ones."""
    if type(value) is not float or value < 0.0:
        raise TypeError(f"{value!r} for a number")
    return value
