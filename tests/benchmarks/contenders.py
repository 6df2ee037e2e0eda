"""Who trains: each is ``make(item, X, y) -> epoch``, where ``epoch()`` trains one more epoch and returns its mean loss.

Making is not timed: data are where the library wants them, compiled libraries have not compiled yet (their first
epoch is the warm-up round).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from items import LEARNING_RATE, Item, start

Epoch = Callable[[], float]


def dlx_on(backend: str) -> Callable[[Item, np.ndarray, np.ndarray], Epoch]:
    """dlx.fit, one epoch at a time, from the weights of the last."""
    import dlx

    def make(item: Item, X: np.ndarray, y: np.ndarray) -> Epoch:
        be = dlx.get_backend(backend)
        with be.scope():
            X_be = be.asarray(X)
            y_be = be.asarray(y)

        def epoch() -> float:
            seconds: list[float] = []
            net = dlx.fit(
                X_be, y_be, item.dims, batch_size=item.batch, epochs=2, init=start(item), rng=0, backend=backend,
                callbacks=lambda net: seconds.append(net.history["seconds"][-1]),
            )  # fmt: skip
            epoch.seconds = seconds[-1]
            return net.history["loss"][0]

        return epoch

    return make


def scikit_learn(item: Item, X: np.ndarray, y: np.ndarray) -> Epoch:
    """MLPClassifier, warm-started."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    warnings.simplefilter("ignore", ConvergenceWarning)
    mlp = MLPClassifier(
        item.dims[1:-1], batch_size=item.batch, learning_rate_init=LEARNING_RATE, alpha=0, max_iter=1, random_state=0
    )

    def epoch() -> float:
        mlp.fit(X, y)
        return mlp.loss_curve_[-1]

    return epoch


def torch_eager(item: Item, X: np.ndarray, y: np.ndarray) -> Epoch:
    """nn.Sequential, fused Adam, data in memory."""
    import torch

    layers: list[torch.nn.Module] = []
    for W, b in start(item):
        linear = torch.nn.Linear(*W.shape)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(W.T.copy()))
            linear.bias.copy_(torch.from_numpy(b))
        layers += [linear, torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers[:-1])
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE, fused=True)
    X_t, y_t = torch.from_numpy(X), torch.from_numpy(y.astype(np.int64))

    def epoch() -> float:
        total = torch.zeros(())
        for idx in torch.randperm(len(X_t)).split(item.batch):
            optimizer.zero_grad(set_to_none=True)
            loss = torch.nn.functional.cross_entropy(model(X_t[idx]), y_t[idx])
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(idx)
        return float(total) / len(X_t)

    return epoch


def jax_optax(item: Item, X: np.ndarray, y: np.ndarray) -> Epoch:
    """jax.jit of one step, optax.adam, data on the device."""
    import jax
    import jax.numpy as jnp
    import optax

    params = [(jnp.asarray(W), jnp.asarray(b)) for W, b in start(item)]
    adam = optax.adam(LEARNING_RATE)
    state = adam.init(params)
    X_j, y_j = jnp.asarray(X), jnp.asarray(y)

    def objective(params, X, y):
        A = X
        for W, b in params[:-1]:
            A = jax.nn.relu(A @ W + b)
        W, b = params[-1]
        return optax.softmax_cross_entropy_with_integer_labels(A @ W + b, y).mean()

    @jax.jit
    def step(params, state, X, y, idx):
        loss, gradients = jax.value_and_grad(objective)(params, X[idx], y[idx])
        updates, state = adam.update(gradients, state)
        return optax.apply_updates(params, updates), state, loss

    rng = np.random.default_rng(0)

    def epoch() -> float:
        nonlocal params, state
        order = jnp.asarray(rng.permutation(len(X)).astype(np.int32))
        losses, sizes = [], []
        for first in range(0, len(X), item.batch):
            idx = order[first : first + item.batch]
            params, state, loss = step(params, state, X_j, y_j, idx)
            losses.append(loss)
            sizes.append(len(idx))
        return float(np.average(jax.device_get(losses), weights=sizes))

    return epoch


def bare_products(item: Item, X: np.ndarray, y: np.ndarray) -> Epoch:
    """Only the matrix products of a step, on NumPy: the floor."""
    weights = [W for W, _ in start(item)]

    def epoch() -> float:
        for first in range(0, len(X), item.batch):
            As = [X[first : first + item.batch]]
            for W in weights:
                As.append(As[-1] @ W)
            delta = As[-1]
            for l in range(len(weights) - 1, -1, -1):
                As[l].T @ delta
                if l:
                    delta = delta @ weights[l].T
        return float("nan")

    return epoch


CONTENDERS = {
    "bare products": bare_products,
    "dlx numpy": dlx_on("numpy"),
    "dlx torch": dlx_on("torch"),
    "dlx jax": dlx_on("jax"),
    "scikit-learn": scikit_learn,
    "torch eager": torch_eager,
    "JAX + optax": jax_optax,
}
