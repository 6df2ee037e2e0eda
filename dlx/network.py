"""The network: forward, loss and backward, as pure functions of parameters and data.

Rows are samples. Layer l computes Z_l = A_{l-1} W_l + b_l and A_l = f_l(Z_l). The Z of the last layer are the scores
that the loss takes. All formulas work on the last two axes, so that parameters with a leading axis of length B are B
independent models.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, NamedTuple

from dlx import activations, dropout, losses
from dlx.backend import Array, Backend, Namespace


class Layer(NamedTuple):
    """The parameters of one layer: W (d_in, d_out) and b (1, d_out). The gradient by a Layer is a Layer too."""

    W: Array
    b: Array


Params = tuple[Layer, ...]


class Hidden(NamedTuple):
    """The elementwise formulas of a hidden layer. A library may fuse each of them into one loop or kernel.

    activate : (Z, b) -> (Z + b, f(Z + b))
    chain : (delta, Z, a) -> delta · f'(Z), with a = f(Z)

    Both may write their result into their first argument.
    """

    activate: Callable[[Array, Array], tuple[Array, Array]]
    chain: Callable[[Array, Array, Array], Array]


class Formulas(NamedTuple):
    """The formulas and constants of one network, bound to one array library.

    `transpose`, `product`, `sum_rows`, `sum_squares`, `fork` and `beside` are those of the backend, `hidden` has an
    entry for each hidden layer, `dropout_mask` is the formula of masks, and `dropout` holds the rates.
    """

    xp: Namespace
    device: Any
    transpose: Callable[[Array], Array]
    product: Callable[..., Array]
    sum_rows: Callable[..., Array]
    sum_squares: Callable[[Array], Array]
    fork: Callable[[], AbstractContextManager[Any]]
    beside: Callable[..., AbstractContextManager[Any]]
    hidden: tuple[Hidden, ...]
    loss: losses.Formulas
    loss_and_delta: losses.Both
    dropout_mask: Callable[..., Array]
    dropout: tuple[float, ...]
    l2: float | Array | None  # None without this penalty
    l1: float | Array | None
    kind: Hashable = None  # equal kinds promise equal `scores`; None promises nothing


class Trace(NamedTuple):
    """The intermediate results of `forward` that `backward` needs, as lists over layers.

    Zs : Z_l before activation, the scores included
    fs : f_l(Z_l) of the hidden layers
    masks : M_l of dropout, None for layers without it
    As : the input of each layer; ``As[0] is X``
    """

    Zs: list[Array]
    fs: list[Array]
    masks: list[Array | None]
    As: list[Array]


def forward(net: Formulas, params: Params, X: Array, keys: Sequence[int] | None = None) -> Trace:
    """The forward pass.

    Z_l = A_{l-1} W_l + b_l,  A_l = f_l(Z_l) · M_l for hidden layers

    Parameters
    ----------
    net : Formulas
    params : tuple of Layer
        W (..., d_in, d_out) and b (..., 1, d_out).
    X : array (..., n, d0)
    keys : sequence of int, default None
        A dropout key for each hidden layer, for training. None is no dropout.

    Returns
    -------
    Trace
        ``trace.Zs[-1]`` are the scores (..., n, K).
    """
    trace = Trace([], [], [], [X])
    for l, (W, b) in enumerate(params):
        Z = net.product(trace.As[-1], W)
        if l == len(net.hidden):
            Z += b
            trace.Zs.append(Z)
            break
        Z, a = net.hidden[l].activate(Z, b)
        rate = net.dropout[l]
        mask = None
        if keys is not None and rate > 0:
            mask = dropout.mask(net.xp, keys[l], a, rate, net.device, net.dropout_mask)
        trace.Zs.append(Z)
        trace.fs.append(a)
        trace.masks.append(mask)
        trace.As.append(a if mask is None else a * mask)
    return trace


def deltas(net: Formulas, params: Params, trace: Trace, delta: Array) -> Iterator[tuple[int, Array]]:
    """The pairs (l, δ_l = ∂J/∂Z_l) from the last layer, l = L - 1, to the first, l = 0.

    δ_{l-1} = (δ_l W_lᵀ) · M_{l-1} · f'(Z_{l-1})

    Parameters
    ----------
    net : Formulas
    params : tuple of Layer
    trace : Trace
        The result of `forward`.
    delta : array (..., n, K)
        The derivative by the scores, δ_{L-1}.

    Returns
    -------
    iterator of (int, array (..., n, d_l))
    """
    for l in range(len(params) - 1, 0, -1):
        yield l, delta
        delta = net.product(delta, net.transpose(params[l].W))
        delta = net.hidden[l - 1].chain(delta, trace.Zs[l - 1], trace.fs[l - 1])
        mask = trace.masks[l - 1]
        if mask is not None:
            delta *= mask
    yield 0, delta


def backward(net: Formulas, params: Params, trace: Trace, delta: Array, into: Params | None = None) -> Params:
    """The gradients of the loss by every W and b, by the chain rule.

    dW_l = A_{l-1}ᵀ δ_l,  db_l = Σ_i δ_l,  with δ_l of `deltas`

    Parameters
    ----------
    net : Formulas
    params : tuple of Layer
    trace : Trace
        The result of `forward`.
    delta : array (..., n, K)
        The derivative of the loss by the scores.
    into : tuple of Layer, default None
        Arrays for the gradients. A library that writes in place writes them there.

    Returns
    -------
    tuple of Layer

    Source: Rumelhart, Hinton and Williams 1986.
    """
    gradients: list[Layer] = []
    for l, layer_delta in deltas(net, params, trace, delta):
        W, b = (None, None) if into is None else into[l]
        dW, db = net.product(net.transpose(trace.As[l]), layer_delta, W), net.sum_rows(layer_delta, b)
        gradients.append(Layer(dW, db))
    return tuple(reversed(gradients))


def weighs_targets(weights: Array | None) -> bool:
    """Whether each target has a weight of its own, (n, K), and not each row, (n, 1)."""
    return weights is not None and weights.shape[-1] > 1


def loss_at(net: Formulas, Z: Array, Y: Array, weights: Array | None) -> Array:
    """J of the scores `Z`, of shape (...,), without penalties."""
    return mean_loss(net.xp, values_at(net, Z, Y, weighs_targets(weights)), weights)


def values_at(net: Formulas, Z: Array, Y: Array, by_target: bool) -> Array:
    """The loss of each row, (..., n, 1), or with `by_target` the terms of its sum over targets, (..., n, K)."""
    return net.loss.terms(Z, Y) if by_target and net.loss.terms else net.loss.value(Z, Y)


def mean_loss(xp: Namespace, values: Array, weights: Array | None) -> Array:
    """The weighted mean of the losses of rows.

    J = 1/n Σ_i w_i value_i,  or with a weight for each target  J = 1/n Σ_i Σ_k w_ik term_ik

    Parameters
    ----------
    xp : module
        The namespace of the arrays.
    values : array (..., n, 1) or (..., n, K)
        The losses of the rows, or their terms.
    weights : array (n, 1) or (n, K), or None
        They have mean 1 over all training rows, or over all targets that are not missing.

    Returns
    -------
    array (...,)

    Numerics: a value of weight 0 does not count, even if it is infinite.
    """
    if weights is not None:
        values = xp.where(weights > 0, weights * values, xp.zeros_like(values))
    return xp.sum(values, axis=(-2, -1)) * (1.0 / values.shape[-2])


def mean_delta(delta: Array, weights: Array | None) -> Array:
    """∂J/∂Z_i = w_i delta_i / n, of the shape of the scores. The weights are (n, 1), or (n, K) for w_ik."""
    delta = delta * (1.0 / delta.shape[-2])
    return delta if weights is None else weights * delta


def penalty(net: Formulas, params: Params) -> Array | float:
    """R = l2/2 Σ W² + l1 Σ |W| over all weights, but not over biases. It does not depend on the batch size."""
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
    """∂(J + R) by the parameters of one layer, from `gradient`, which is ∂J. It may overwrite `gradient`."""
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
    """J + R and its gradients by all parameters, in one forward and one backward pass.

    Parameters
    ----------
    net : Formulas
    params : tuple of Layer
    X : array (..., n, d0)
    Y : array (..., n, K)
        Targets as the loss takes them.
    weights : array (n, 1) or (n, K), or None
        As in `mean_loss`.
    keys : sequence of int, or None
        As in `forward`.
    into : tuple of Layer, default None
        As in `backward`.

    Returns
    -------
    loss : array (...,)
    gradients : tuple of Layer
    """
    trace = forward(net, params, X, keys)
    with net.fork():
        if weighs_targets(weights):
            loss, delta = loss_at(net, trace.Zs[-1], Y, weights), net.loss.delta(trace.Zs[-1], Y)
        else:
            values, delta = net.loss_and_delta(trace.Zs[-1], Y)
            with net.beside(values):  # no gradient needs the loss itself
                loss = mean_loss(net.xp, values, weights)
        gradients = backward(net, params, trace, mean_delta(delta, weights), into)
    if net.l2 is not None or net.l1 is not None:
        loss = loss + penalty(net, params)
        gradients = tuple(map(partial(with_penalty, net), gradients, params))
    return loss, gradients


def scores(net: Formulas, params: Params, X: Array) -> Array:
    """The scores (..., n, K) of `X`, without dropout and without the intermediate results that `backward` needs."""
    A = X
    for (W, b), hidden in zip(params[:-1], net.hidden, strict=True):
        A = hidden.activate(net.product(A, W), b)[1]  # Z gets no name, so that the next layer can reuse its memory
    W, b = params[-1]
    Z = net.product(A, W)
    Z += b
    return Z


def all_finite(xp: Namespace, params: Params) -> bool:
    """Whether all weights and biases are finite. It waits for the device."""
    return all(bool(xp.all(xp.isfinite(array))) for layer in params for array in layer)


def bind_hidden(activation: activations.Activation, backend: Backend) -> Hidden:
    """The formulas of a hidden layer. A user's own activation is not fused, as its code may be anything."""
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
    """The formulas of a loss, and one that gives value and delta at once."""
    formulas = loss.bind(backend.xp, partial(backend.asarray, dtype=dtype))

    def both(Z: Array, Y: Array) -> tuple[Array, Array]:
        return formulas.value(Z, Y), formulas.delta(Z, Y)

    return formulas, both if loss.share is None else loss.share(backend.xp, backend.fuse)


def bind_dropout(backend: Backend, dtype: str) -> Callable[..., Array]:
    """The formula of dropout's masks, for `dropout.mask`."""
    return dropout.bind(backend.xp, backend.dtype(dtype), backend.fuse)


def kind(
    dtype: str,
    hidden: Sequence[activations.Activation],
    loss: losses.Loss,
    dropout: Sequence[float],
    l2: float,
    l1: float,
) -> Hashable:
    """All that the formulas of `bind` depend on, beside the backend; None if a user's own code is among it."""
    own = all(map(activations.is_own, hidden))
    if not own or not losses.is_own(loss):
        return None
    named = [(activation.name, repr(activation.settings)) for activation in hidden]
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
    """The formulas of a network on one backend.

    Parameters
    ----------
    backend : Backend
    dtype : "float32" or "float64"
        The dtype of the computation.
    hidden : sequence of Activation
        One for each hidden layer.
    loss : Loss
    dropout : sequence of float in [0, 1), default ()
        A rate for each hidden layer. () is no dropout.
    l2, l1 : float >= 0, default 0
        The factors of the penalties.

    Returns
    -------
    Formulas

    Examples
    --------
    >>> import dlx, numpy as np
    >>> net = bind(dlx.get_backend("numpy"), "float64", [dlx.activations.relu()], dlx.losses.squared_error())
    >>> params = Layer(np.eye(2), np.zeros((1, 2))), Layer(np.ones((2, 1)), np.zeros((1, 1)))
    >>> loss, gradients = loss_and_gradients(net, params, np.array([[3.0, -1.0]]), np.array([[1.0]]), None, None)
    >>> float(loss), gradients[1].W.tolist()
    (4.0, [[12.0], [0.0]])
    """
    return Formulas(
        backend.xp,
        backend.device,
        backend.transpose,
        backend.product,
        backend.sum_rows,
        backend.sum_squares,
        backend.fork,
        backend.beside,
        tuple(bind_hidden(activation, backend) for activation in hidden),
        *bind_loss(loss, backend, dtype),
        bind_dropout(backend, dtype),
        tuple(dropout) or (0.0,) * len(hidden),
        float(l2) or None,  # a NumPy number would make all weights float64
        float(l1) or None,
        kind(dtype, hidden, loss, (), 0.0, 0.0),
    )
