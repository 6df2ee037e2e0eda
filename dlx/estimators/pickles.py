"""How an estimator is pickled: host arrays and names, so that the pickle loads where the array library is absent."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dlx import activations, checks, losses
from dlx.backend import HOST, Backend, BackendNotInstalled, BackendUnavailable, backend_of, get_backend, library_of
from dlx.files import schema


def plain(state: Mapping[str, Any], whole: bool) -> dict[str, Any]:
    """The attributes of an estimator as a pickle holds them; own functions as they are.

    The optimizer's slots, twice the weights for "adam", go along if the `whole` is asked for.
    """
    found = dict(state)
    if isinstance(state["backend"], types.ModuleType | Backend):
        found["backend"] = get_backend(state["backend"]).selector
    if "coefs_" not in state:
        return found
    found["_hidden"] = [schema.described(each) or tuple(each.bind(None)) for each in state["_hidden"]]
    loss = state["_fitted_loss"]
    found["_fitted_loss"] = schema.described(loss) or tuple(loss.bind(None, np.asarray))
    kept = state.get("_optimizer")
    if kept is not None and not whole:
        found["_optimizer"] = kept._replace(slots=None)
    W = state["coefs_"][0]
    if library_of(W) == HOST:
        return found
    backend = backend_of(W)
    return _moved(found, lambda x: np.array(backend.to_host(x))) | {"_home": backend.selector}


def restored(state: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes on the backends of their names, or on NumPy with a warning where one of them cannot compute."""
    found = dict(state)
    home = found.pop("_home", None)
    if "_hidden" in found:
        kinds = [schema.activation_from(each) if isinstance(each, Mapping) else each for each in found["_hidden"]]
        found["_hidden"] = tuple(activations.get(each) for each in kinds)
        loss = found["_fitted_loss"]
        found["_fitted_loss"] = schema.loss_from(loss) if isinstance(loss, Mapping) else losses.get(loss)
    if isinstance(found["backend"], str) and _usable(found["backend"]) is None:
        found["backend"] = None
    backend = None if home is None else _usable(home)
    return found if backend is None else _moved(found, backend.asarray)


def _moved(state: Mapping[str, Any], move: Callable[[Any], Any]) -> dict[str, Any]:
    """The state with its arrays moved."""
    found = {**state, **{name: [move(each) for each in state[name]] for name in ("coefs_", "intercepts_")}}
    kept = found.get("_optimizer")
    if kept is not None and kept.slots is not None:
        found["_optimizer"] = kept._replace(slots=each_slot(kept.slots, move))
    return found


def each_slot(slots: Any, move: Callable[[Any], Any]) -> Any:
    """Every slot of every parameter, moved."""
    return tuple(tuple(tuple(move(x) for x in each) for each in layer) for layer in slots)


def _usable(backend: Any) -> Backend | None:
    """The backend, or None with a warning."""
    try:
        return get_backend(backend)
    except (BackendNotInstalled, BackendUnavailable, ValueError, TypeError) as reason:
        checks.warn(f"the estimator was unpickled on numpy, not on {backend}: {reason}")
        return None
