"""The state of a training as a file holds it, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from dlx.backend import Array, Backend
from dlx.data import parameters
from dlx.files import schema
from dlx.files.schema import BEST, SLOTS, TRAINING
from dlx.network import Params
from dlx.optimizers import AnyOptimizer
from dlx.quasi_newton import Parts
from dlx.training.loop import ORDER
from dlx.training.state import TrainingState

Arrays = dict[str, np.ndarray[Any, Any]]
VECTORS = ("gradient", "s", "y")  # the tensors of an optimizer's state that are as long as all parameters together
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


def to_file(
    state: TrainingState, optimizer: AnyOptimizer, backend: Backend, dtype: str
) -> tuple[dict[str, Any], Arrays]:
    """What a checkpoint says beside the network, and all its tensors."""
    parts = optimizer.parts(state.optimizer_state)
    arrays = schema.tensors_of(state.params)
    for k, slot in enumerate(parts.slots):
        arrays |= schema.tensors_of(slot, f"{SLOTS}{k}/")
    arrays |= {name: _matrix(x, state.params, backend, dtype) for name, x in parts.vectors.items()}
    if state.best is not None:
        arrays |= schema.tensors_of(state.best, BEST)
    found = {name: each if isinstance(each, np.ndarray) else backend.to_host(each) for name, each in arrays.items()}
    found["losses"] = np.asarray(state.losses, dtype)
    return {
        "best_epoch": state.best_epoch,
        "drawn_from": plain(state.drawn),
        "ended": state.ended,
        "epoch": state.epoch,
        "lbfgs": parts.numbers,
        "limit": state.limit if math.isfinite(state.limit) else None,
        "position": state.position,
        "seconds": state.seconds,
        "slots": len(parts.slots),
        "updates": state.updates,
    }, found


def from_file(
    description: Mapping[str, Any],
    arrays: Arrays,
    backend: Backend,
    dtype: str,
    optimizer: AnyOptimizer,
    per_epoch: int,
) -> TrainingState:
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

    if optimizer.full_batch:
        if position:
            raise ValueError("L-BFGS within an epoch")
    elif position > per_epoch or updates != epoch * per_epoch + position:
        raise ValueError(f"update {updates} at batch {position} of epoch {epoch}, of {per_epoch} batches each")
    parts = Parts(
        [params(f"{SLOTS}{k}/") for k in range(training["slots"])],
        {name: _own(arrays[name], backend, dtype) for name in VECTORS if name in arrays},
        _numbers(training["lbfgs"]),
    )
    return TrainingState(
        params(),
        optimizer.state_of(parts, layers, updates),
        updates,
        epoch,
        position,
        arrays["losses"],
        math.inf if limit is None else _number(limit),
        history,
        None if best_epoch is None else params(BEST),
        best_epoch,
        _number(training["seconds"]),
        ended,
        training["drawn_from"],
    )


def _matrix(vectors: Array | list[Array], params: Params, backend: Backend, dtype: str) -> Array:
    """A list of vectors, as long as all parameters, as the rows of a matrix on the host; a vector alone stays."""
    if not isinstance(vectors, list):
        return vectors
    size = sum(math.prod(each.shape) for layer in params for each in layer)
    return np.array([backend.to_host(each) for each in vectors], dtype).reshape(len(vectors), size)


def _own(x: np.ndarray[Any, Any], backend: Backend, dtype: str) -> Any:
    """A vector on the backend, in memory of its own; of a matrix, the list of its rows."""
    if x.ndim == 2:
        return [_own(row, backend, dtype) for row in x]
    return backend.copy(backend.asarray(x, dtype))


def _numbers(memory: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The numbers of L-BFGS; of them only the loss `f` may be negative."""
    if memory is None:
        return None
    if type(memory["f"]) is not float:
        raise TypeError(f"{memory['f']!r} for a loss")
    return {"f": memory["f"], "length": _number(memory["length"]), "sy": [_number(each) for each in memory["sy"]]}


def _number(value: Any) -> float:
    """Finite and not negative; JSON has no other than finite ones."""
    if type(value) is not float or value < 0.0:
        raise TypeError(f"{value!r} for a number")
    return value
