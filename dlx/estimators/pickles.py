"""How an estimator is pickled: as host arrays and names, so that the pickle loads without the array library."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dlx import activations, checks, losses
from dlx.backend import HOST, Backend, BackendNotInstalled, BackendUnavailable, backend_of, get_backend, library_of
from dlx.estimators import hyperparameters
from dlx.files import schema


def picklable(state: Mapping[str, Any], with_slots: bool) -> dict[str, Any]:
    """The attributes of an estimator as a pickle holds them; a user's own functions stay as they are.

    The slots of the optimizer, which take twice the memory of the weights for "adam", are left out unless `with_slots`.
    """
    attributes = dict(state)
    if isinstance(state["backend"], types.ModuleType | Backend):
        attributes["backend"] = get_backend(state["backend"]).selector
        attributes["tf32"] = hyperparameters.asks_for_tf32(state) or state["tf32"]
    if "coefs_" not in state:
        return attributes
    hidden, loss = state["_hidden"], state["_fitted_loss"]
    attributes["_hidden"] = [schema.described(activation) or tuple(activation.bind(None)) for activation in hidden]
    attributes["_fitted_loss"] = schema.described(loss) or tuple(loss.bind(None, np.asarray))
    optimizing = state.get("_optimizer")
    if optimizing is not None and not with_slots:
        attributes["_optimizer"] = optimizing._replace(slots=None)
    W = state["coefs_"][0]
    if library_of(W) == HOST:
        return attributes
    backend = backend_of(W)
    return _with_arrays(attributes, lambda x: np.array(backend.to_host(x))) | {"_home": backend.selector}


def unpickled(state: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes on the backends that the pickle names, or on NumPy with a warning if one of them is unusable."""
    attributes = {"tf32": None, **state}  # which older pickles lack
    home = attributes.pop("_home", None)
    if "_hidden" in attributes:
        hidden, loss = attributes["_hidden"], attributes["_fitted_loss"]
        parts = [schema.activation_from(part) if isinstance(part, Mapping) else part for part in hidden]
        attributes["_hidden"] = tuple(activations.get(part) for part in parts)
        attributes["_fitted_loss"] = schema.loss_from(loss) if isinstance(loss, Mapping) else losses.get(loss)
    if isinstance(attributes["backend"], str) and _usable(attributes["backend"]) is None:
        attributes["backend"] = None
    backend = None if home is None else _usable(home)
    return attributes if backend is None else _with_arrays(attributes, backend.asarray)


def _with_arrays(state: Mapping[str, Any], move: Callable[[Any], Any]) -> dict[str, Any]:
    """The attributes with every array replaced by ``move(array)``."""
    moved = {name: [move(array) for array in state[name]] for name in ("coefs_", "intercepts_")}
    optimizing = state.get("_optimizer")
    if optimizing is not None and optimizing.slots is not None:
        moved["_optimizer"] = optimizing._replace(slots=map_slots(move, optimizing.slots))
    return {**state, **moved}


def map_slots(function: Callable[[Any], Any], slots: Any) -> Any:
    """Apply the function to every slot of every parameter."""
    return tuple(tuple(tuple(function(x) for x in parameter) for parameter in layer) for layer in slots)


def _usable(backend: Any) -> Backend | None:
    """The backend, or None with a warning if it is not installed or cannot compute."""
    try:
        return get_backend(backend)
    except (BackendNotInstalled, BackendUnavailable, ValueError, TypeError) as reason:
        checks.warn(f"the estimator was unpickled on numpy, not on {backend}: {reason}")
        return None
