"""The network itself: forward, loss, backward. Pure functions of parameters and data.

Rows are samples. Layer l computes Z_l = A_{l-1} W_l + b_l and A_l = f_l(Z_l); the last layer's Z are the scores that
the loss takes. Every formula speaks of the last two axes only, so that parameters with a leading axis of B are B
independent models.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from dlx import activations, dropout, losses
from dlx.backend import Array, Backend, Namespace


class Layer(NamedTuple):
    """One layer's parameters: W (d_in, d_out) and b (1, d_out). A gradient by a Layer is a Layer."""

    W: Array
    b: Array


Params = tuple[Layer, ...]


class Formulas(NamedTuple):
    """What one network computes with, bound to one array library."""

    xp: Namespace
    device: Any
    hidden: tuple[activations.Formulas, ...]
    loss: losses.Formulas
    dropout: tuple[float, ...]
    l2: float
    l1: float


class Trace(NamedTuple):
    """What forward leaves for backward, each a list over layers; ``As[0] is X``.

    `Zs` before activation, `fs` after it, `masks` of dropout (None where there is none), `As` what the next layer saw.
    """

    Zs: list[Array]
    fs: list[Array]
    masks: list[Array | None]
    As: list[Array]


def forward(net: Formulas, params: Params, X: Array, keys: Sequence[int] | None = None) -> Trace:
    """Z_l = A_{l-1} W_l + b_l,  A_l = f_l(Z_l) · M_l for hidden layers; ``trace.Zs[-1]`` are the scores.

    Parameters
    ----------
    params : Params
        W of shape (..., d_in, d_out), b of shape (..., 1, d_out).
    X : array (..., n, d0)
    keys : sequence of int, optional
        A dropout key for each hidden layer, while training; None: no dropout.
    """
    trace = Trace([], [], [], [X])
    for l, (W, b) in enumerate(params):
        Z = trace.As[-1] @ W
        Z += b
        trace.Zs.append(Z)
        if l < len(net.hidden):
            a = net.hidden[l].f(Z)
            rate = net.dropout[l]
            mask = dropout.mask(net.xp, keys[l], a, rate, net.device) if keys is not None and rate > 0 else None
            trace.fs.append(a)
            trace.masks.append(mask)
            trace.As.append(a if mask is None else a * mask)
    return trace


def backward(net: Formulas, params: Params, trace: Trace, delta: Array) -> Params:
    """The gradients of the loss by every W and b, by the chain rule; `delta` (..., n, K) is its derivative by the
    scores.

    dW_l = A_{l-1}ᵀ δ_l,  db_l = Σ_i δ_l,  δ_{l-1} = (δ_l W_lᵀ) · M_{l-1} · f'(Z_{l-1})

    Source: Rumelhart, Hinton and Williams 1986.
    """
    xp = net.xp
    gradients: list[Layer] = []
    for l in range(len(params) - 1, -1, -1):
        dW = xp.matrix_transpose(trace.As[l]) @ delta
        db = xp.sum(delta, axis=-2, keepdims=True)
        gradients.append(Layer(dW, db))
        if l > 0:
            delta = delta @ xp.matrix_transpose(params[l].W)
            delta *= net.hidden[l - 1].df(trace.Zs[l - 1], trace.fs[l - 1])
            mask = trace.masks[l - 1]
            if mask is not None:
                delta *= mask
    return tuple(reversed(gradients))


def mean_loss(net: Formulas, Z: Array, Y: Array, weights: Array | None) -> Array:
    """J(Z) = 1/n Σ_i w_i value(Z_i, Y_i), of shape (...,); `weights` (n, 1) have mean 1 over all training rows."""
    values = net.loss.value(Z, Y)
    return net.xp.mean(values if weights is None else weights * values, axis=(-2, -1))


def mean_delta(net: Formulas, Z: Array, Y: Array, weights: Array | None) -> Array:
    """∂J/∂Z_i = w_i delta(Z_i, Y_i) / n, of the shape of Z."""
    delta = net.loss.delta(Z, Y) * (1.0 / Z.shape[-2])
    return delta if weights is None else weights * delta


def penalty(net: Formulas, params: Params) -> Array | float:
    """R = l2/2 Σ W² + l1 Σ |W| over all weights; biases are free. It does not depend on the batch size."""
    xp = net.xp
    total: Array | float = 0.0
    for W, _ in params:
        if net.l2 > 0:
            total = total + 0.5 * net.l2 * xp.sum(W * W, axis=(-2, -1))
        if net.l1 > 0:
            total = total + net.l1 * xp.sum(xp.abs(W), axis=(-2, -1))
    return total


def penalty_gradient(net: Formulas, W: Array) -> Array | float:
    """∂R/∂W = l2 W + l1 sign(W), with sign(0) = 0."""
    gradient: Array | float = 0.0
    if net.l2 > 0:
        gradient = net.l2 * W
    if net.l1 > 0:
        sign = net.xp.astype(W > 0, W.dtype) - net.xp.astype(W < 0, W.dtype)
        gradient = gradient + net.l1 * sign
    return gradient


def loss_and_gradients(
    net: Formulas, params: Params, X: Array, Y: Array, weights: Array | None, keys: Sequence[int] | None
) -> tuple[Array, Params]:
    """J + R and its gradients by every parameter, in one forward and one backward pass."""
    trace = forward(net, params, X, keys)
    Z = trace.Zs[-1]
    loss = mean_loss(net, Z, Y, weights)
    gradients = backward(net, params, trace, mean_delta(net, Z, Y, weights))
    if net.l2 > 0 or net.l1 > 0:
        loss = loss + penalty(net, params)
        gradients = tuple(
            Layer(dW + penalty_gradient(net, W), db) for (dW, db), (W, _) in zip(gradients, params, strict=True)
        )
    return loss, gradients


def scores(net: Formulas, params: Params, X: Array) -> Array:
    """The last layer's Z, without dropout and without keeping what backward would need."""
    A = X
    for l, (W, b) in enumerate(params):
        Z = A @ W
        Z += b
        A = net.hidden[l].f(Z) if l < len(net.hidden) else Z
    return A


def bind(
    backend: Backend,
    dtype: str,
    hidden: Sequence[activations.Activation],
    loss: losses.Loss,
    *,
    dropout: Sequence[float] = (),
    l2: float = 0.0,
    l1: float = 0.0,
) -> Formulas:
    """The formulas of a network on one backend, computing in `dtype`."""
    return Formulas(
        backend.xp,
        backend.device,
        tuple(each.bind(backend.xp) for each in hidden),
        loss.bind(backend.xp, partial(backend.asarray, dtype=dtype)),
        tuple(dropout) or (0.0,) * len(hidden),
        l2,
        l1,
    )
