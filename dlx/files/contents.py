"""The attributes of a network that a file holds. A user may have set any of them, so they are checked before saving."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from dlx import activations, checks, losses
from dlx.backend import Backend, library_of
from dlx.data import features, gaps, parameters, targets
from dlx.files import container, schema
from dlx.host import HostArray

REMAKE = "make a network of them: dlx.Network(params, ...)."
ATTRIBUTES = ("activation", "backend", "classes", "dtype", "feature_names", "layer_dims", "loss", "missing")


class Contents(NamedTuple):
    """The checked attributes of a network, as `Network` itself sets them, but with `params` as pairs on the host."""

    params: list[tuple[HostArray, HostArray]]
    layer_dims: tuple[int, ...]
    activation: tuple[activations.Activation, ...]
    loss: losses.Loss
    classes: HostArray | None
    feature_names: list[str] | None
    dtype: str
    missing: str
    tf32: bool


def of_network(net: Any) -> Contents:
    """The attributes of a network. Raises at the first one that is invalid or does not fit the others."""
    if not isinstance(net.backend, Backend):
        remedy = "net.to(...) gives a copy on another one."
        checks.reject("backend", "be a Backend", checks.shown(net.backend), remedy, TypeError)
    with net.backend.scope():
        pairs = _checked("params", net.params, parameters.as_pairs, "params")
        dtype = _checked("dtype", net.dtype, features.working_dtype, pairs[0][0])
        for place, x in parameters.named(pairs, "params").items():
            _require_kind(place, x, net.backend, dtype)
        dims = parameters.layer_dims(pairs)
        if _widths(net.layer_dims) != dims:
            remedy = f"Set them back, or {REMAKE}"
            checks.reject("layer_dims", f"be the widths of `params`, {dims}", checks.shown(net.layer_dims), remedy)
        hidden = _checked("activation", net.activation, parameters.hidden_activations, len(pairs) - 1)
        loss = _checked("loss", net.loss, losses.get)
        classes = _checked("classes", net.classes, targets.own_classes, loss, dims[-1])
        missing = _checked("missing", net.missing, gaps.missing_rule, loss, dims[-1])
        names = _checked("feature_names", net.feature_names, features.own_names, dims[0])
        host = [(net.backend.to_host(W), net.backend.to_host(b).reshape(1, -1)) for W, b in pairs]
    for place, array in parameters.named(host, "params").items():
        if not np.isfinite(array).all():
            bad = array[~np.isfinite(array)][0]
            remedy = "Go back to finite ones, or train anew with a lower learning_rate."
            checks.reject("params", "be finite", f"{bad} in {place}", remedy)
    return Contents(host, dims, hidden, loss, classes, names, dtype, missing, net.tf32)


def _checked(name: str, value: Any, check: Callable[..., Any], *arguments: Any) -> Any:
    """The attribute as `check` returns it. Unforeseen errors of `check` are raised in the form of dlx's errors."""
    try:
        return check(value, *arguments)
    except container.BROKEN as reason:
        if str(reason).startswith("`"):
            raise
        got = f"{checks.shown(value)} ({type(reason).__name__}: {container.truncated(str(reason), 100)})"
        checks.reject(name, "be what dlx.Network takes", got, "Set it back to what it was.", TypeError)


def _require_kind(place: str, x: Any, backend: Backend, dtype: str) -> None:
    """Raise if an array is not of the backend's library and of this dtype."""
    library = library_of(x)
    if library != backend.name:
        rule, got = f"be arrays of {backend.name}, as `backend` says", f"one of {library} in {place}"
        checks.reject("params", rule, got, f"Convert them, or {REMAKE}", TypeError)
    if features.dtype_name(x) != dtype:
        rule, got = f"be {dtype}, as `dtype` says", f"{features.dtype_name(x)} in {place}"
        checks.reject("params", rule, got, f"Cast them, or {REMAKE}", TypeError)


def _widths(layer_dims: Any) -> tuple[int, ...] | None:
    """The widths as a tuple of integers; None if they are no integers."""
    try:
        return tuple(operator.index(width) for width in layer_dims)
    except TypeError:
        return None


def attributes(net: Any) -> dict[str, Any]:
    """The attributes that must not change during a training with checkpoints, in a form that can be compared later."""
    return {name: _plain(getattr(net, name)) for name in ATTRIBUTES}


def _plain(value: Any) -> Any:
    """The value in plain types. A function of the user's own stays as it is, and so equals no other."""
    if isinstance(value, activations.Activation | losses.Loss):
        return schema.described(value) or value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.tolist() if hasattr(value, "tolist") else value


def require_unchanged(net: Any, before: Mapping[str, Any]) -> None:
    """Raise if an attribute has changed since `attributes` returned `before`: a checkpoint could not be resumed."""
    for name, now in attributes(net).items():
        if type(now) is not type(before[name]) or now != before[name]:
            rule = "stay what it was when the training began, so that its checkpoints can be resumed"
            remedy = "Change it after the training, or in a copy: copy.deepcopy(net)."
            checks.reject(name, rule, checks.shown(getattr(net, name)), remedy)


def not_finite(arrays: container.NamedArrays) -> Iterator[str]:
    """The names of arrays with a number that is not finite. The history may hold such numbers."""
    checked = ((name, array) for name, array in arrays.items() if not name.startswith(schema.HISTORY))
    return (name for name, array in checked if not np.isfinite(array).all())


def require_loadable(description: Mapping[str, Any], arrays: container.NamedArrays) -> None:
    """Raise if `load` would raise. Functions of dlx stand in for the user's own, which no file holds."""
    described, dims, other = dict(description), description["layer_dims"], schema.described(activations.identity())
    described["activation"] = [other if entry is None else entry for entry in description["activation"]]
    if description["loss"] is None:
        described |= {"loss": schema.described(losses.squared_error()), "classes": None}
    arguments = schema.arguments_of(described, arrays)
    parameters.hidden_activations(arguments["activation"], len(dims) - 2)
    targets.own_classes(arguments["classes"], arguments["loss"], dims[-1])
    features.own_names(arguments["feature_names"], dims[0])
    for name in not_finite(arrays):
        raise ValueError(f"a number that is not finite in {name}")


def require_written(name: str, description: Mapping[str, Any], arrays: container.NamedArrays) -> None:
    """Raise if the checks of reading would refuse a file with this description and these arrays.

    Errors name the argument or method `name`, by which the user asked for the file.
    """
    schema.require_readable(description)
    try:
        read = container.as_read(description)
        container.require_layout(schema.layout(read), arrays)
        require_loadable(read, arrays)
    except container.BROKEN as reason:
        got = container.escaped(container.truncated(f"{type(reason).__name__}: {reason}".rstrip(". "), 300))
        remedy = "Nothing was written."
        checks.reject(name, "write what can be read again", got, remedy)
