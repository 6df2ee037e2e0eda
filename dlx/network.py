"""The network itself: forward, loss, backward. Pure functions of parameters and data.

Rows are samples. Layer l computes Z_l = A_{l-1} W_l + b_l and A_l = f_l(Z_l); the last layer's Z are the scores that
the loss takes. Every formula speaks of the last two axes only, so that parameters with a leading axis of B are B
independent models.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from dlx import activations, dropout, losses
from dlx.backend import Array, Backend, Namespace


class Layer(NamedTuple):
    """One layer's parameters: W (d_in, d_out) and b (1, d_out). A gradient by a Layer is a Layer."""

    W: Array
    b: Array


Params = tuple[Layer, ...]


class Hidden(NamedTuple):
    """The elementwise formulas of a hidden layer, which a library may fuse into one loop or kernel each.

    ``activate(Z, b) -> (Z + b, f(Z + b))`` and ``chain(delta, Z, a) -> delta · f'(Z)``; both may consume their first
    argument.
    """

    activate: Callable[[Array, Array], tuple[Array, Array]]
    chain: Callable[[Array, Array, Array], Array]


class Formulas(NamedTuple):
    """What one network computes with, bound to one array library."""

    xp: Namespace
    device: Any
    transpose: Callable[[Array], Array]
    product: Callable[..., Array]
    sum_rows: Callable[..., Array]
    sum_squares: Callable[[Array], Array]
    hidden: tuple[Hidden, ...]
    loss: losses.Formulas
    loss_and_delta: losses.Both
    kept: Callable[..., Array]
    dropout: tuple[float, ...]
    l2: float | Array | None  # None where there is no such penalty
    l1: float | Array | None
    kind: Hashable = None  # what `scores` depends on, or None


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
        if l == len(net.hidden):
            Z += b
            trace.Zs.append(Z)
            break
        Z, a = net.hidden[l].activate(Z, b)
        rate = net.dropout[l]
        mask = None
        if keys is not None and rate > 0:
            mask = dropout.mask(net.xp, keys[l], a, rate, net.device, net.kept)
        trace.Zs.append(Z)
        trace.fs.append(a)
        trace.masks.append(mask)
        trace.As.append(a if mask is None else a * mask)
    return trace


def deltas(net: Formulas, params: Params, trace: Trace, delta: Array) -> Iterator[tuple[int, Array]]:
    """(l, ∂J/∂Z_l) from the last layer, l = L - 1, to the first, l = 0; `delta` (..., n, K) is the last one's.

    δ_{l-1} = (δ_l W_lᵀ) · M_{l-1} · f'(Z_{l-1})
    """
    for l in range(len(params) - 1, 0, -1):
        yield l, delta
        delta = delta @ net.transpose(params[l].W)
        delta = net.hidden[l - 1].chain(delta, trace.Zs[l - 1], trace.fs[l - 1])
        mask = trace.masks[l - 1]
        if mask is not None:
            delta *= mask
    yield 0, delta


def backward(net: Formulas, params: Params, trace: Trace, delta: Array, into: Params | None = None) -> Params:
    """The gradients of the loss by every W and b, by the chain rule; `delta` (..., n, K) is its derivative by the
    scores.

    dW_l = A_{l-1}ᵀ δ_l,  db_l = Σ_i δ_l,  with δ_l of `deltas`

    They are written to the arrays `into`, if there are any and the library writes in place.

    Source: Rumelhart, Hinton and Williams 1986.
    """
    gradients: list[Layer] = []
    for l, each in deltas(net, params, trace, delta):
        W, b = (None, None) if into is None else into[l]
        gradients.append(Layer(net.product(net.transpose(trace.As[l]), each, W), net.sum_rows(each, b)))
    return tuple(reversed(gradients))


def weighs_targets(weights: Array | None) -> bool:
    """Whether each target has a weight of its own, (n, K), and not each row, (n, 1)."""
    return weights is not None and weights.shape[-1] > 1


def loss_at(net: Formulas, Z: Array, Y: Array, weights: Array | None) -> Array:
    """J of these scores, of shape (...,), without penalties."""
    return mean_loss(net.xp, values_at(net, Z, Y, weighs_targets(weights)), weights)


def values_at(net: Formulas, Z: Array, Y: Array, by_target: bool) -> Array:
    """The loss of each row, (..., n, 1), or its terms, (..., n, K), where these are weighted one by one."""
    return net.loss.terms(Z, Y) if by_target and net.loss.terms else net.loss.value(Z, Y)


def mean_loss(xp: Namespace, values: Array, weights: Array | None) -> Array:
    """J = 1/n Σ_i w_i value_i, of shape (...,); values (..., n, 1), weights (n, 1) of mean 1 over all training rows.

    With a weight for each target, J = 1/n Σ_i Σ_k w_ik term_ik: terms (..., n, K), weights (n, K) of mean 1 over all
    targets that are not missing.
    """
    if weights is not None:
        values = xp.where(weights > 0, weights * values, xp.zeros_like(values))  # 0 for a weight of 0, were it infinite
    return xp.sum(values, axis=(-2, -1)) * (1.0 / values.shape[-2])


def mean_delta(delta: Array, weights: Array | None) -> Array:
    """∂J/∂Z_i = w_i delta_i / n, of the shape of the scores; weights (n, 1), or (n, K) for w_ik."""
    delta = delta * (1.0 / delta.shape[-2])
    return delta if weights is None else weights * delta


def penalty(net: Formulas, params: Params) -> Array | float:
    """R = l2/2 Σ W² + l1 Σ |W| over all weights; biases are free. It does not depend on the batch size."""
    xp = net.xp
    total: Array | float = 0.0
    for W, _ in params:
        if net.l2 is not None:
            total = total + 0.5 * net.l2 * net.sum_squares(W)
        if net.l1 is not None:
            total = total + net.l1 * xp.sum(xp.abs(W), axis=(-2, -1))
    return total


def penalty_gradient(net: Formulas, W: Array) -> Array | float:
    """∂R/∂W = l2 W + l1 sign(W), with sign(0) = 0."""
    gradient: Array | float = 0.0
    if net.l2 is not None:
        gradient = net.l2 * W
    if net.l1 is not None:
        sign = net.xp.astype(W > 0, W.dtype) - net.xp.astype(W < 0, W.dtype)
        gradient = gradient + net.l1 * sign
    return gradient


def with_penalty(net: Formulas, gradient: Layer, layer: Layer) -> Layer:
    """∂(J + R) by one layer's parameters, from ∂J, which it consumes."""
    dW, db = gradient
    dW += penalty_gradient(net, layer.W)
    return Layer(dW, db)


def loss_and_gradients(
    net: Formulas,
    params: Params,
    X: Array,
    Y: Array,
    weights: Array | None,
    keys: Sequence[int] | None,
    into: Params | None = None,
) -> tuple[Array, Params]:
    """J + R and its gradients by every parameter, in one forward and one backward pass; `into` as in `backward`."""
    trace = forward(net, params, X, keys)
    if weighs_targets(weights):
        loss, delta = loss_at(net, trace.Zs[-1], Y, weights), net.loss.delta(trace.Zs[-1], Y)
    else:
        values, delta = net.loss_and_delta(trace.Zs[-1], Y)
        loss = mean_loss(net.xp, values, weights)
    gradients = backward(net, params, trace, mean_delta(delta, weights), into)
    if net.l2 is not None or net.l1 is not None:
        loss = loss + penalty(net, params)
        gradients = tuple(map(partial(with_penalty, net), gradients, params))
    return loss, gradients


def scores(net: Formulas, params: Params, X: Array) -> Array:
    """The last layer's Z, without dropout and without keeping what backward would need."""
    A = X
    for (W, b), hidden in zip(params[:-1], net.hidden, strict=True):
        A = hidden.activate(A @ W, b)[1]  # so that Z's memory is free for the next layer's
    W, b = params[-1]
    Z = A @ W
    Z += b
    return Z


def all_finite(xp: Namespace, params: Params) -> bool:
    """Whether every weight and bias is finite; waits for the device."""
    return all(bool(xp.all(xp.isfinite(each))) for layer in params for each in layer)


def bind_hidden(activation: activations.Activation, backend: Backend) -> Hidden:
    """A hidden layer's formulas; a user's own activation may do what no library can fuse."""
    f, df = activation.bind(backend.xp)

    def activate(Z: Array, b: Array) -> tuple[Array, Array]:
        Z += b
        return Z, f(Z)

    def chain(delta: Array, Z: Array, a: Array) -> Array:
        delta *= df(Z, a)
        return delta

    if not activations.is_own(activation):
        return Hidden(activate, chain)
    return Hidden(backend.fuse(activate, activation.name), backend.fuse(chain, f"{activation.name}_chain"))


def bind_loss(loss: losses.Loss, backend: Backend, dtype: str) -> tuple[losses.Formulas, losses.Both]:
    """A loss's formulas, and value and delta at once."""
    formulas = loss.bind(backend.xp, partial(backend.asarray, dtype=dtype))

    def both(Z: Array, Y: Array) -> tuple[Array, Array]:
        return formulas.value(Z, Y), formulas.delta(Z, Y)

    return formulas, both if loss.share is None else loss.share(backend.xp, backend.fuse)


def bind_dropout(backend: Backend, dtype: str) -> Callable[..., Array]:
    """The formula of dropout's masks."""
    return dropout.bind(backend.xp, backend.dtype(dtype), backend.fuse)


def kind(
    dtype: str,
    hidden: Sequence[activations.Activation],
    loss: losses.Loss,
    dropout: Sequence[float],
    l2: float,
    l1: float,
) -> Hashable:
    """What the formulas of `bind` depend on, beside the backend; None where a user's own code is among them."""
    own = all(map(activations.is_own, hidden))
    if not own or not losses.is_own(loss):
        return None
    named = [(each.name, repr(each.settings)) for each in hidden]
    return dtype, *named, (loss.name, repr(loss.settings)), tuple(dropout), l2, l1


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
        backend.transpose,
        backend.product,
        backend.sum_rows,
        backend.sum_squares,
        tuple(bind_hidden(each, backend) for each in hidden),
        *bind_loss(loss, backend, dtype),
        bind_dropout(backend, dtype),
        tuple(dropout) or (0.0,) * len(hidden),
        float(l2) or None,  # NumPy's own numbers would make every weight float64
        float(l1) or None,
        kind(dtype, hidden, loss, (), 0.0, 0.0),
    )
