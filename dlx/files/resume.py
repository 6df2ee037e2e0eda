"""The state of a training as a checkpoint holds it, and the way back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from dlx.backend import Array, Backend
from dlx.data import parameters
from dlx.files import schema
from dlx.files.container import NamedArrays
from dlx.files.schema import BEST, SLOTS, TRAINING
from dlx.host import HostArray
from dlx.network import Params
from dlx.optimizers import AnyOptimizer
from dlx.quasi_newton import Parts
from dlx.training.loop import ORDER
from dlx.training.state import TrainingState

VECTORS = ("gradient", "s", "y")  # tensors of L-BFGS that are as long as all parameters together
LARGEST_PLACES = {"pos": 624, "buffer_pos": 4, "has_uint32": 1}  # NumPy does not check them before it reads there


def generator_to_json(state: Any) -> Any:
    """The state of a generator as JSON can hold it."""
    if isinstance(state, Mapping):
        return {name: generator_to_json(part) for name, part in state.items()}
    return state.tolist() if isinstance(state, np.ndarray | np.generic) else state


def generator_from_json(like: Any, state: Any) -> Any:
    """The state that was turned into JSON, checked against `like`, the present state of a generator of this kind."""
    if isinstance(like, Mapping):
        if sorted(like) != sorted(state):
            raise ValueError("a generator's state of another kind")
        if any(not 0 <= state[name] <= most for name, most in LARGEST_PLACES.items() if name in like):
            raise ValueError("a generator's state that points beyond its own numbers")
        return {name: generator_from_json(part, state[name]) for name, part in like.items()}
    if isinstance(like, np.ndarray):
        array = np.array(state, like.dtype)
        if array.shape != like.shape:
            raise ValueError("a generator's state of another size")
        return array
    if type(like) is not type(state) or (isinstance(like, str) and like != state):
        raise ValueError(f"a generator's state with {state!r} for {like!r}")
    return state


def to_file(
    state: TrainingState, optimizer: AnyOptimizer, backend: Backend, dtype: str
) -> tuple[dict[str, Any], dict[str, HostArray]]:
    """The description of the training in a checkpoint, and all tensors of the checkpoint."""
    parts = optimizer.parts(state.optimizer_state)
    arrays = schema.tensors_of(state.params)
    for k, slot in enumerate(parts.slots):
        arrays |= schema.tensors_of(slot, f"{SLOTS}{k}/")
    arrays |= {name: _matrix(x, state.params, backend, dtype) for name, x in parts.vectors.items()}
    if state.best is not None:
        arrays |= schema.tensors_of(state.best, BEST)
    tensors = {name: x if isinstance(x, np.ndarray) else backend.to_host(x) for name, x in arrays.items()}
    tensors["losses"] = np.asarray(state.losses, dtype)
    return {
        "best_epoch": state.best_epoch,
        "drawn_from": generator_to_json(state.drawn),
        "ended": state.ended,
        "epoch": state.epoch,
        "lbfgs": parts.numbers,
        "limit": state.limit if math.isfinite(state.limit) else None,
        "position": state.position,
        "seconds": state.seconds,
        "slots": len(parts.slots),
        "updates": state.updates,
    }, tensors


def from_file(
    description: Mapping[str, Any],
    arrays: NamedArrays,
    backend: Backend,
    dtype: str,
    optimizer: AnyOptimizer,
    per_epoch: int,
) -> TrainingState:
    """The state that `to_file` was given, by a training with this optimizer and `per_epoch` updates in an epoch.

    Every error is the fault of the file. The correct checksum does not prove that the content makes sense, because
    whoever can write the file can write the checksum too.
    """
    training, layers = description[TRAINING], len(description["layer_dims"]) - 1
    updates, epoch, position = (schema.count(training[name]) for name in ("updates", "epoch", "position"))
    history = schema.history_of(description, arrays)
    if not all(np.isfinite(x).all() for name, x in arrays.items() if not name.startswith(schema.HISTORY)):
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
        {name: _own_vectors(arrays[name], backend, dtype) for name in VECTORS if name in arrays},
        _lbfgs_numbers(training["lbfgs"]),
    )
    return TrainingState(
        params(),
        optimizer.state_of(parts, layers, updates),
        updates,
        epoch,
        position,
        arrays["losses"],
        math.inf if limit is None else _checked_number(limit),
        history,
        None if best_epoch is None else params(BEST),
        best_epoch,
        _checked_number(training["seconds"]),
        ended,
        training["drawn_from"],
    )


def _matrix(vectors: Array | list[Array], params: Params, backend: Backend, dtype: str) -> Array:
    """A list of vectors, each as long as all parameters, as rows of a matrix on the host; one vector as it is."""
    if not isinstance(vectors, list):
        return vectors
    size = sum(math.prod(array.shape) for layer in params for array in layer)
    return np.array([backend.to_host(vector) for vector in vectors], dtype).reshape(len(vectors), size)


def _own_vectors(x: HostArray, backend: Backend, dtype: str) -> Any:
    """A copy of a vector on the backend, because an optimizer may consume it; for a matrix, a list of its rows."""
    if x.ndim == 2:
        return [_own_vectors(row, backend, dtype) for row in x]
    return backend.copy(backend.asarray(x, dtype))


def _lbfgs_numbers(entry: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The numbers in the state of L-BFGS, checked. Only the loss `f` may be negative."""
    if entry is None:
        return None
    if type(entry["f"]) is not float:
        raise TypeError(f"{entry['f']!r} for a loss")
    length, sy = _checked_number(entry["length"]), [_checked_number(value) for value in entry["sy"]]
    return {"f": entry["f"], "length": length, "sy": sy}


def _checked_number(value: Any) -> float:
    """A float that is not negative; it is finite, because `container.read` accepts no other in JSON."""
    if type(value) is not float or value < 0.0:
        raise TypeError(f"{value!r} for a number")
    return value
