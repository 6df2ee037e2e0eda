"""The article's model, which a reader of the article can run on any backend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Never

import numpy as np

from dlx import checks, losses, nearest, network, optimizers
from dlx.backend import Array, Backend
from dlx.data import features, parameters, samples
from dlx.data.placement import common_backend, in_precision
from dlx.host import HostArray
from dlx.training import arguments, divergence, ranges


@nearest.closed
def L_layer_model(
    X: Any,
    Y: Any,
    layer_dims: Sequence[int],
    learning_rate: float = 0.05,
    num_iterations: int = 10,
    print_cost: bool = False,
    *,
    activation: Any = "none",
    cost: Any = "squared_error",
    backend: Any = None,
    dtype: Any = None,
    tf32: Any = None,
    **unknown: Never,
) -> tuple[dict[str, Array], list[float]]:
    """The article's L-layer network, trained by gradient descent on all samples at once. Columns are samples.

    A_0 = X,  Z_l = W_l A_{l-1} + b_l,  A_l = f_l(Z_l),  cost = 1/m Σ_i Σ_k (Y - A_L)²
    W_l ← W_l - η ∂cost/∂W_l,  b_l ← b_l - η ∂cost/∂b_l

    Parameters
    ----------
    X : array (n_0, m)
        Columns are samples.
    Y : array (n_L, m)
    layer_dims : sequence of int
        (n_0, n_1, ..., n_L), input and output included.
    learning_rate : float > 0, default 0.05
    num_iterations : int >= 0, default 10
    print_cost : bool, default False
        Print a line such as ``Cost is 0.12 on iteration 3`` for each iteration.
    activation : str, Activation, pair (f, df), or a sequence of one for each of the L layers, default "none"
        "none", "relu", "sigmoid" or any other of `dlx.activations`. The last layer has an activation too.
    cost : str or Loss, default "squared_error"
        A function of A_L, any of `dlx.losses`. poisson and the cross-entropies bring their own link, so that the last
        activation must be "none".
    backend : selector, default None
        None is the backend of `X`.
    dtype : "float32" or "float64", default None
        None is the dtype of `X` if it is floating, else float64.
    tf32 : bool, default None
        Whether products of float32 arrays may be TF32, on CUDA devices only; see `Backend.with_tf32`. None is False,
        or what a Backend that is passed as `backend` says.

    Returns
    -------
    params : dict
        "W1".."WL" of shape (n_l, n_{l-1}) and "b1".."bL" of shape (n_l, 1), on the backend.
    costs : list of float
        The cost before the update of each iteration.

    Raises
    ------
    ValueError, TypeError
        An argument is wrong. It is raised before any work.
    DivergenceError
        The cost or a weight became non-finite. The text names the iteration of the cost.

    Numerics: weights start at 0.01 · randn from the stream of `numpy.random.RandomState(2)`, layer by layer, and biases
    at zero.

    Notes
    -----
    Four slips of the article are corrected: the derivative of ReLU, whose ``any() < 0`` is never true; the cost, which
    lost a power, as the article's own gradient -2 (Y - A_L) is that of the squared error; a stray ``print(grads)``; and
    an ``np.squeeze`` that makes no number.

    Examples
    --------
    >>> import dlx, numpy as np
    >>> X = np.array([[0.0, 1.0, 2.0]])
    >>> params, costs = dlx.L_layer_model(X, 3 * X, (1, 1), learning_rate=0.1, num_iterations=200)
    >>> params["W1"].round(3)
    array([[3.]])
    """
    nearest.refuse(unknown, "L_layer_model", L_layer_model)
    dims = arguments.widths(layer_dims)
    rate = checks.number("learning_rate", learning_rate, low=0, above=True, remedy="The article uses 0.05.")
    iterations = checks.integer("num_iterations", num_iterations, low=0, remedy="The article uses 10.")
    if not isinstance(print_cost, bool):
        checks.reject("print_cost", "be True or False", repr(print_cost), "True prints a line an iteration.", TypeError)
    if not isinstance(cost, tuple | losses.Loss):
        checks.choice("cost", cost, losses.LOSSES, "Or pass an object: dlx.losses.huber(0.5).")
    *hidden, last = parameters.hidden_activations(activation, len(dims) - 1)
    priced = losses.get(cost)
    if priced.link.name != "identity" and last.name != "identity":
        rule, remedy = f"end in 'none' for cost {priced.name}", "That cost takes scores and brings its own link."
        checks.reject("activation", rule, repr(last.name), remedy)
    loss = losses.through(last, priced)
    chosen = common_backend(backend, {"X": X, "Y": Y})
    X, Y = features.as_array(X, "X"), features.as_array(Y, "Y")
    floating = "float" in features.dtype_name(X)  # for integers the article computes in float64
    name = features.working_dtype(dtype or (None if floating else "float64"), X)
    chosen.dtype(name)
    chosen = in_precision(chosen, tf32, name)
    ranges.require("learning_rate", rate, name)
    for settings in (priced.settings, *(formula.settings for formula in (*hidden, last))):
        ranges.require_all(settings, name, {})
    with chosen.scope():
        rows = _transposed_columns(X, dims[0], chosen, name, "X")
        truth = _transposed_columns(Y, dims[-1], chosen, name, "Y")
        if rows.shape[0] != truth.shape[0]:
            rule = f"have {rows.shape[0]} columns, one for each of X"
            checks.reject("Y", rule, truth.shape[0], "Columns are samples.")
        samples.of_rows(rows, chosen.to_host(truth), priced, dims[-1], chosen, name="Y")
        arguments.try_own_functions([*hidden, last], priced, chosen, chosen.dtype(name), dims[-1])
        xp = chosen.xp
        net = network.bind(chosen, name, hidden, loss)
        params = parameters.own_params(_initial_pairs(dims), chosen, name)
        update = optimizers.bind(optimizers.gradient_descent(), chosen)
        state = optimizers.start(xp, optimizers.gradient_descent(), params)

        def step(params: network.Params, rows: Array, truth: Array) -> tuple[Array, network.Params]:
            value, gradients = network.loss_and_gradients(net, params, rows, truth, None, None)
            return value, optimizers.step(update, params, gradients, state, (rate,), None)[0]

        compiled = chosen.compile(step)
        costs: list[float] = []
        for iteration in range(iterations):
            value, params = compiled(params, rows, truth)
            costs.append(float(value))
            if not math.isfinite(costs[-1]):
                got = f"{costs[-1]} on iteration {iteration}"
                checks.reject("cost", "stay finite", got, "Lower learning_rate.", divergence.DivergenceError)
            if print_cost:
                print(f"Cost is {costs[-1]:.6g} on iteration {iteration}")
        if not network.all_finite(xp, params):
            got = "a weight that is not finite after the last iteration"
            checks.reject("params", "stay finite", got, "Lower learning_rate.", divergence.DivergenceError)
        sample = slice(None, None, -(-rows.shape[0] // divergence.JUDGED))
        Z = network.scores(net, params, rows[sample, :])
        after = network.mean_loss(xp, net.loss.value(Z, truth[sample, :]), None)
        if iterations and not math.isfinite(float(after)):
            got = f"{float(after)} after the last iteration"
            checks.reject("cost", "stay finite", got, "Lower learning_rate.", divergence.DivergenceError)
        transposed = {}
        for l, (W, b) in enumerate(params, start=1):
            transposed[f"W{l}"], transposed[f"b{l}"] = xp.matrix_transpose(W), xp.matrix_transpose(b)
    return transposed, costs


def _transposed_columns(x: Any, height: int, backend: Backend, dtype: str, name: str) -> Array:
    """The columns of `x`, checked, as rows on the backend."""
    x = features.real_array(x, backend, name)
    if len(x.shape) != 2 or x.shape[0] != height or x.shape[1] == 0:
        rule = f"have shape ({height}, m): columns are samples"
        checks.reject(name, rule, tuple(x.shape), f"For rows that are samples pass {name}.T, or use dlx.fit.")
    x = backend.asarray(x, dtype)
    features.require_finite(x, backend, name)
    return backend.xp.matrix_transpose(x)


def _initial_pairs(dims: Sequence[int]) -> list[tuple[HostArray, HostArray]]:
    """The weights and biases that the article starts from, transposed."""
    stream = np.random.RandomState(2)
    return [(0.01 * stream.randn(n, n_before).T, np.zeros((1, n))) for n_before, n in pairwise(dims)]
