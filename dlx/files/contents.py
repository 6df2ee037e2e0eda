"""What a file may hold of a network: its attributes, which anyone may set, checked as a new network's are."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from dlx import activations, checks, losses
from dlx.backend import Backend, library_of
from dlx.data import features, gaps, parameters, targets
from dlx.files import container, schema

REMAKE = "make a network of them: dlx.Network(params, ...)."
ATTRIBUTES = ("activation", "backend", "classes", "dtype", "feature_names", "layer_dims", "loss", "missing")


class Contents(NamedTuple):
    """A network's attributes in the forms that a new one gives them; `params` are pairs on the host."""

    params: list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]
    layer_dims: tuple[int, ...]
    activation: tuple[activations.Activation, ...]
    loss: losses.Loss
    classes: np.ndarray[Any, Any] | None
    feature_names: list[str] | None
    dtype: str
    missing: str


def of(net: Any) -> Contents:
    """The network's attributes where they fit each other; raises, naming the first that does not."""
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
    return Contents(host, dims, hidden, loss, classes, names, dtype, missing)


def _checked(name: str, value: Any, check: Callable[..., Any], *arguments: Any) -> Any:
    """What `check` makes of the attribute; where it meets what nobody foresaw, that is said in dlx's form."""
    try:
        return check(value, *arguments)
    except container.BROKEN as reason:
        if str(reason).startswith("`"):
            raise
        got = f"{checks.shown(value)} ({type(reason).__name__}: {container.shortened(str(reason), 100)})"
        checks.reject(name, "be what dlx.Network takes", got, "Set it back to what it was.", TypeError)


def _require_kind(place: str, x: Any, backend: Backend, dtype: str) -> None:
    library = library_of(x)
    if library != backend.name:
        rule, got = f"be arrays of {backend.name}, as `backend` says", f"one of {library} in {place}"
        checks.reject("params", rule, got, f"Convert them, or {REMAKE}", TypeError)
    if features.dtype_name(x) != dtype:
        rule, got = f"be {dtype}, as `dtype` says", f"{features.dtype_name(x)} in {place}"
        checks.reject("params", rule, got, f"Cast them, or {REMAKE}", TypeError)


def _widths(layer_dims: Any) -> tuple[int, ...] | None:
    """As a tuple of integers, None where they are none."""
    try:
        return tuple(operator.index(each) for each in layer_dims)
    except TypeError:
        return None


def attributes(net: Any) -> dict[str, Any]:
    """What must not change while a training is saved, in terms that can be kept and compared."""
    return {name: _plain(getattr(net, name)) for name in ATTRIBUTES}


def _plain(value: Any) -> Any:
    """An own function stays itself: it is equal to no other."""
    if isinstance(value, activations.Activation | losses.Loss):
        return schema.described(value) or value
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value.tolist() if hasattr(value, "tolist") else value


def require_unchanged(net: Any, before: Mapping[str, Any]) -> None:
    """Raise where an attribute is no longer what `attributes` gave: what is saved could not be resumed."""
    for name, now in attributes(net).items():
        if type(now) is not type(before[name]) or now != before[name]:
            rule = "stay what it was when the training began, so that its checkpoints can be resumed"
            remedy = "Change it after the training, or in a copy: copy.deepcopy(net)."
            checks.reject(name, rule, checks.shown(getattr(net, name)), remedy)


def not_finite(arrays: Mapping[str, np.ndarray[Any, Any]]) -> Iterator[str]:
    """The names of the arrays that hold a number which is not finite; the history may."""
    own = ((name, each) for name, each in arrays.items() if not name.startswith(schema.HISTORY))
    return (name for name, each in own if not np.isfinite(each).all())


def require_loadable(description: Mapping[str, Any], arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Raise where `load` would; functions of one's own, which no file holds, are taken for others."""
    known, dims, other = dict(description), description["layer_dims"], schema.described(activations.identity())
    known["activation"] = [other if each is None else each for each in description["activation"]]
    if description["loss"] is None:
        known |= {"loss": schema.described(losses.squared_error()), "classes": None}
    parts = schema.arguments_of(known, arrays)
    parameters.hidden_activations(parts["activation"], len(dims) - 2)
    targets.own_classes(parts["classes"], parts["loss"], dims[-1])
    features.own_names(parts["feature_names"], dims[0])
    for name in not_finite(arrays):
        raise ValueError(f"a number that is not finite in {name}")


def require_written(name: str, description: Mapping[str, Any], arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Raise where a file of them would be refused by those who read it, by their own checks.

    `name` is that of the argument or method by which it is asked for.
    """
    schema.require_readable(description)
    try:
        seen = container.as_read(description)
        container.require_layout(schema.layout(seen), arrays)
        require_loadable(seen, arrays)
    except container.BROKEN as reason:
        got = container.escaped(container.shortened(f"{type(reason).__name__}: {reason}".rstrip(". "), 300))
        remedy = "Nothing was written."
        checks.reject(name, "write what can be read again", got, remedy)
