"""A training's progress as a file holds it, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from dlx import descriptions, quasi_newton
from dlx.backend import Backend
from dlx.descriptions import BEST, SLOTS, TRAINING
from dlx.model import own_params
from dlx.optimizers import State
from dlx.steps import Start
from dlx.training import Progress

Arrays = dict[str, np.ndarray[Any, Any]]


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
    arrays = descriptions.named(progress.params)
    lbfgs = None
    if isinstance(slots, quasi_newton.Memory):
        lbfgs = {"f": slots.f, "length": slots.length, "sy": [sy for _, _, sy in slots.pairs]}
        arrays["gradient"] = slots.gradient
        s_and_y = [np.array([backend.to_host(pair[k]) for pair in slots.pairs], dtype) for k in (0, 1)]
        arrays |= {name: each.reshape(-1, slots.gradient.shape[0]) for name, each in zip("sy", s_and_y, strict=True)}
        slots = ()
    count = len(slots[0][0]) if slots else 0
    for k in range(count):
        arrays |= descriptions.named([(W[k], b[k]) for W, b in slots or ()], f"{SLOTS}{k}/")
    if progress.best is not None:
        arrays |= descriptions.named(progress.best, BEST)
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
    }, found | descriptions.history_arrays(progress.history)


def from_file(description: Mapping[str, Any], arrays: Arrays, backend: Backend, dtype: str) -> Progress:
    """What `to_file` was given."""
    training, layers = description[TRAINING], len(description["layer_dims"]) - 1
    if not all(np.isfinite(each).all() for name, each in arrays.items() if not name.startswith(descriptions.HISTORY)):
        raise ValueError("a number that is not finite")

    def params(prefix: str = "") -> Any:
        return own_params(descriptions.pairs_of(arrays, layers, prefix), backend, dtype)

    def own(x: Any) -> Any:
        return backend.copy(backend.asarray(x, dtype))

    slots: State | quasi_newton.Memory
    if (memory := training["lbfgs"]) is not None:
        pairs = zip(map(own, arrays["s"]), map(own, arrays["y"]), map(float, memory["sy"]), strict=True)
        f, length = float(memory["f"]), float(memory["length"])
        slots = quasi_newton.Memory(f, own(arrays["gradient"]), tuple(pairs), length, training["updates"])
    else:
        each = [params(f"{SLOTS}{k}/") for k in range(training["slots"])]
        slots = tuple((tuple(slot[l].W for slot in each), tuple(slot[l].b for slot in each)) for l in range(layers))
    counts = [training[name] for name in ("updates", "epoch", "position")]
    if any(type(each) is not int or each < 0 for each in counts):
        raise ValueError(f"counts {counts}")
    limit = math.inf if training["limit"] is None else float(training["limit"])
    best = None if training["best_epoch"] is None else params(BEST)
    history = {name: arrays[descriptions.HISTORY + name].tolist() for name in description["history"]}
    if len(history.get("loss", [])) != training["epoch"]:
        raise ValueError("a history of another length than there were epochs")
    return Progress(
        params(),
        Start(slots, counts[0], counts[1], counts[2], arrays["losses"], limit),
        history,
        best,
        None if best is None else range(training["epoch"])[training["best_epoch"]],
        float(training["seconds"]),
        bool(training["ended"]),
        training["drawn_from"],
    )
