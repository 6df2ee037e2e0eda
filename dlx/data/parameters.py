"""Checks of the parameters and activations that a user passes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dlx import activations, checks
from dlx.backend import Array, Backend, library_of, namespace_of
from dlx.data import features
from dlx.network import Layer, Params

Pairs = list[tuple[Array, Array]]  # W (d_in, d_out) and b (d_out,) or (1, d_out) of each layer


def hidden_activations(activation: Any, count: int) -> tuple[activations.Activation, ...]:
    """The activations of `count` hidden layers, from one for all of them or from a sequence."""
    single = isinstance(activation, str | activations.Activation) or (
        isinstance(activation, tuple) and len(activation) == 2 and callable(activation[0])
    )
    if single or not isinstance(activation, Sequence):
        return (activations.get(activation),) * count
    if len(activation) != count:
        rule = f"be one activation or a sequence of {count}"
        checks.reject("activation", rule, len(activation), "Name one for each.")
    return tuple(activations.get(one, f"activation[{l}]") for l, one in enumerate(activation))


def as_pairs(pairs: Any, name: str) -> Pairs:
    """Check a sequence of pairs (W, b), whose shapes must fit each other, and return them as arrays.

    W is (d_in, d_out), and b is (d_out,) or (1, d_out).
    """
    if not isinstance(pairs, Sequence) or isinstance(pairs, str) or not pairs:
        rule, remedy = "be a sequence of pairs (W, b), one for each layer", "For example net.params."
        empty = pairs is None or (isinstance(pairs, Sequence) and not pairs)
        checks.reject(name, rule, repr(pairs) if empty else type(pairs).__name__, remedy, TypeError)
    checked: Pairs = []
    for l, pair in enumerate(pairs):
        if not isinstance(pair, Sequence) or len(pair) != 2:
            got = f"{len(pair)} of them" if isinstance(pair, Sequence) else type(pair).__name__
            checks.reject(f"{name}[{l}]", "be a pair (W, b)", got, "Biases may be zeros.", TypeError)
        W, b = (features.as_array(x, f"{name}[{l}].{part}") for part, x in zip("Wb", pair, strict=True))
        d_in, d_out = (*W.shape, 0, 0)[:2]
        expected = checked[-1][0].shape[1] if checked else d_in
        if len(W.shape) != 2 or 0 in W.shape or d_in != expected or tuple(b.shape) not in ((d_out,), (1, d_out)):
            rule = f"have W of shape ({expected if checked else 'd_in'}, d_out) and b of shape (1, d_out)"
            checks.reject(f"{name}[{l}]", rule, f"{tuple(W.shape)} and {tuple(b.shape)}", "Rows of W are its inputs.")
        checked.append((W, b))
    return checked


def layer_dims(pairs: Sequence[tuple[Array, Array]]) -> tuple[int, ...]:
    """The widths of the input, the hidden layers and the output."""
    return (pairs[0][0].shape[0], *(W.shape[1] for W, _ in pairs))


def named(pairs: Pairs, name: str) -> dict[str, Array]:
    """All arrays by the names that errors give them: "params[0].W"."""
    return {f"{name}[{l}].{part}": x for l, pair in enumerate(pairs) for part, x in zip("Wb", pair, strict=True)}


def require_real(pairs: Pairs, backend: Backend, dtype: str, name: str) -> None:
    """Raise if an array holds anything but real numbers that are finite in `dtype`."""
    for place, x in named(pairs, name).items():
        real = features.real_array(x, backend, place)
        remedy = "Train anew with a lower learning_rate, or pass arrays without such values."
        features.require_finite(
            backend.asarray(reshaped(real, (-1, x.shape[-1])), dtype), backend, place, remedy=remedy
        )


def reshaped(x: Any, shape: tuple[int, ...]) -> Array:
    """An array in this shape, where it lies, or a list as a NumPy array in this shape."""
    return np.reshape(x, shape) if library_of(x) is None else namespace_of(x).reshape(x, shape)


def own_params(pairs: Sequence[tuple[Any, Any]], backend: Backend, dtype: str) -> Params:
    """Copies of the pairs (W, b) as layers on the backend, with b (1, d_out)."""
    return tuple(
        Layer(
            backend.copy(backend.asarray(W, dtype)),
            backend.copy(backend.asarray(reshaped(b, (1, -1)), dtype)),
        )
        for W, b in pairs
    )
