"""Those who train the work items: dlx on its backends, its peers, and the matrix products alone.

Each is a function ``train(item, X, y, epochs) -> Outcome``. All shuffle in each epoch, use Adam 1e-3 with float32, and
bring the loss to the host at most once an epoch; who lets the first weights be set starts from the same.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from items import LEARNING_RATE, Item, start  # first, for it prepares the environment of NumPy

os.environ.setdefault("KERAS_BACKEND", "jax")

import numpy as np

import dlx

JUDGED = 5000  # rows whose loss is compared


class Outcome(NamedTuple):
    """Seconds of each epoch, the first with all preparation; and the probabilities of the first rows after them."""

    seconds: list[float]
    probabilities: np.ndarray | None


Train = Callable[[Item, np.ndarray, np.ndarray, int], Outcome]


class Clock:
    """Notes the seconds from lap to lap."""

    def __init__(self) -> None:
        self.last, self.laps = time.perf_counter(), []

    def lap(self, *_: Any) -> None:
        """The end of an epoch."""
        now = time.perf_counter()
        self.laps.append(now - self.last)
        self.last = now


def products(item: Item, X: np.ndarray, y: np.ndarray, epochs: int) -> Outcome:
    """The matrix products of an epoch and nothing else, with NumPy: what no NumPy code can be faster than."""
    weights, clock = [W for W, _ in start(item)], Clock()
    for _ in range(epochs):
        for first in range(0, len(X), item.batch):
            layers = [X[first : first + item.batch]]
            for W in weights:
                layers.append(layers[-1] @ W)
            delta = layers.pop()
            for W, A in zip(reversed(weights), reversed(layers), strict=True):
                A.T @ delta
                if A is not layers[0]:
                    delta = delta @ W.T
        clock.lap()
    return Outcome(clock.laps, None)


def dlx_on(backend: Any) -> Train:
    """dlx.fit, as a user calls it."""

    def train(item: Item, X: np.ndarray, y: np.ndarray, epochs: int) -> Outcome:
        clock = Clock()
        net = dlx.fit(
            X, y, item.dims, batch_size=item.batch, epochs=epochs, init=start(item), learning_rate=LEARNING_RATE,
            rng=0, backend=backend() if callable(backend) else backend, callbacks=clock.lap,
        )  # fmt: skip
        return Outcome(clock.laps, net.predict_proba(X[:JUDGED]))

    return train


def numpy_that(compiles: bool) -> dlx.Backend:
    """NumPy with its formulas compiled by numba from the first step on, or never."""
    plain = dlx.get_backend("numpy")
    return type(plain)(plain.xp, compiles=compiles)


def sklearn(item: Item, X: np.ndarray, y: np.ndarray, epochs: int) -> Outcome:
    """MLPClassifier.partial_fit, which is one epoch."""
    from sklearn.neural_network import MLPClassifier

    clock = Clock()
    mlp = MLPClassifier(
        item.dims[1:-1], batch_size=item.batch, alpha=0, learning_rate_init=LEARNING_RATE, random_state=0
    )
    for _ in range(epochs):
        mlp.partial_fit(X, y, classes=np.arange(item.dims[-1]))
        clock.lap()
    return Outcome(clock.laps, mlp.predict_proba(X[:JUDGED]))


def torch_eager(item: Item, X: np.ndarray, y: np.ndarray, epochs: int, device: str = "cpu") -> Outcome:
    """nn.Sequential, cross_entropy and Adam(fused=True): one C++ or CUDA kernel for all parameters."""
    import torch

    clock = Clock()
    model = torch.nn.Sequential()
    for W, b in start(item):
        linear = torch.nn.Linear(*W.shape)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(W.T.copy()))
            linear.bias.copy_(torch.from_numpy(b))
        model.extend([linear, torch.nn.ReLU()])
    model = model[:-1].to(device)
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE, fused=True)
    X_d, y_d = torch.from_numpy(X).to(device), torch.from_numpy(y.astype(np.int64)).to(device)
    for _ in range(epochs):
        losses = []
        for numbers in torch.randperm(len(X_d)).to(device).split(item.batch):
            optimizer.zero_grad(set_to_none=True)
            loss = torch.nn.functional.cross_entropy(model(X_d[numbers]), y_d[numbers])
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        torch.stack(losses).cpu()
        clock.lap()
    with torch.no_grad():
        return Outcome(clock.laps, torch.softmax(model(X_d[:JUDGED]), 1).cpu().numpy())


def jax_optax(item: Item, X: np.ndarray, y: np.ndarray, epochs: int, scan: bool = False) -> Outcome:
    """jax.value_and_grad and optax.adam in one jitted step; with `scan`, all full batches of an epoch in one."""
    import jax
    import jax.numpy as jnp
    import optax

    clock, rng = Clock(), np.random.default_rng(0)
    params = [(jnp.asarray(W), jnp.asarray(b)) for W, b in start(item)]
    adam = optax.adam(LEARNING_RATE)
    state, X_d, y_d = adam.init(params), jnp.asarray(X), jnp.asarray(y)

    def scores(params: Any, A: Any) -> Any:
        for W, b in params[:-1]:
            A = jax.nn.relu(A @ W + b)
        return A @ params[-1][0] + params[-1][1]

    def loss(params: Any, A: Any, truth: Any) -> Any:
        return optax.softmax_cross_entropy_with_integer_labels(scores(params, A), truth).mean()

    def step(carry: Any, numbers: Any, X_d: Any, y_d: Any) -> Any:
        params, state = carry
        value, slopes = jax.value_and_grad(loss)(params, X_d[numbers], y_d[numbers])
        updates, state = adam.update(slopes, state, params)
        return (optax.apply_updates(params, updates), state), value

    @functools.partial(jax.jit, donate_argnums=0)
    def some(carry: Any, numbers: Any, X_d: Any, y_d: Any) -> Any:
        return jax.lax.scan(lambda carry, each: step(carry, each, X_d, y_d), carry, numbers)

    one = jax.jit(step, donate_argnums=0)
    carry, full = (params, state), len(X) // item.batch * item.batch
    for _ in range(epochs):
        losses, order = [], rng.permutation(len(X)).astype(np.int32)
        if scan and full:
            carry, value = some(carry, order[:full].reshape(-1, item.batch), X_d, y_d)
            losses.append(value)
        for first in range(full if scan else 0, len(X), item.batch):
            carry, value = one(carry, order[first : first + item.batch], X_d, y_d)
            losses.append(value)
        jax.device_get(losses)
        clock.lap()
    return Outcome(clock.laps, np.asarray(jax.nn.softmax(scores(carry[0], X_d[:JUDGED]))))


def keras_jax(item: Item, X: np.ndarray, y: np.ndarray, epochs: int) -> Outcome:
    """keras.Sequential on its JAX backend, fit with default settings beside the item's."""
    import keras

    clock = Clock()
    hidden = [keras.layers.Dense(width, activation="relu") for width in item.dims[1:-1]]
    model = keras.Sequential([keras.Input((item.dims[0],)), *hidden, keras.layers.Dense(item.dims[-1])])
    for dense, pair in zip(model.layers, start(item), strict=True):
        dense.set_weights(pair)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(LEARNING_RATE), loss)
    lap = keras.callbacks.LambdaCallback(on_epoch_end=clock.lap)
    model.fit(X, y, batch_size=item.batch, epochs=epochs, verbose=0, callbacks=[lap])
    return Outcome(clock.laps, np.asarray(keras.ops.softmax(model.predict(X[:JUDGED], verbose=0))))


def thinc(item: Item, X: np.ndarray, y: np.ndarray, epochs: int) -> Outcome:
    """A chain of Relu and Softmax on thinc's NumpyOps."""
    from thinc.api import Adam, NumpyOps, Relu, Softmax, chain, use_ops

    clock = Clock()
    with use_ops("numpy"):
        one_hot = np.eye(item.dims[-1], dtype=np.float32)[y]
        model = chain(*(Relu(width) for width in item.dims[1:-1]), Softmax(item.dims[-1]))
        model.initialize(X[: item.batch], one_hot[: item.batch])
        optimizer = Adam(LEARNING_RATE, L2=0.0, grad_clip=0.0)
        for _ in range(epochs):
            for batch, truth in NumpyOps().multibatch(item.batch, X, one_hot, shuffle=True):
                found, backprop = model.begin_update(batch)
                backprop((found - truth) / len(batch))
                model.finish_update(optimizer)
            clock.lap()
        return Outcome(clock.laps, model.predict(X[:JUDGED]))


CONTENDERS: dict[str, Train] = {
    "products alone": products,
    "dlx numpy + fast": dlx_on(functools.partial(numpy_that, True)),
    "dlx numpy": dlx_on(functools.partial(numpy_that, False)),
    "dlx jax": dlx_on("jax"),
    "dlx torch": dlx_on("torch"),
    "JAX + optax": jax_optax,
    "JAX + optax, scan": functools.partial(jax_optax, scan=True),
    "torch eager": torch_eager,
    "Keras on JAX": keras_jax,
    "scikit-learn": sklearn,
    "thinc": thinc,
}
