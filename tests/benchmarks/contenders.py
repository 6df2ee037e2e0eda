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
from sessions import Start, jax_session, torch_session

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
            X, y, item.dims, activation=item.activation, batch_size=item.batch, epochs=epochs, init=start(item),
            learning_rate=LEARNING_RATE, rng=0, callbacks=clock.lap,
            backend=backend() if callable(backend) else backend,
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


def of_session(begin: Start) -> Train:
    """A training that is begun anew, the first epoch with all that it takes."""

    def train(item: Item, X: np.ndarray, y: np.ndarray, epochs: int) -> Outcome:
        clock, session = Clock(), begin(item, X, y)
        for _ in range(epochs):
            session.run(1)
            clock.lap()
        return Outcome(clock.laps, session.probabilities(X[:JUDGED]))

    return train


def keras_jax(item: Item, X: np.ndarray, y: np.ndarray, epochs: int) -> Outcome:
    """keras.Sequential on its JAX backend, fit with default settings beside the item's."""
    import keras

    clock = Clock()
    hidden = [keras.layers.Dense(width, activation=item.activation) for width in item.dims[1:-1]]
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


SCAN = "JAX + optax, scan"  # the peer to beat
CONTENDERS: dict[str, Train] = {
    "products alone": products,
    "dlx numpy + fast": dlx_on(functools.partial(numpy_that, True)),
    "dlx numpy": dlx_on(functools.partial(numpy_that, False)),
    "dlx jax": dlx_on("jax"),
    "dlx torch": dlx_on("torch"),
    "JAX + optax": of_session(jax_session),
    SCAN: of_session(functools.partial(jax_session, scan=True)),
    "torch eager": of_session(torch_session),
    "Keras on JAX": keras_jax,
    "scikit-learn": sklearn,
    "thinc": thinc,
}
ONLY_RELU = ("scikit-learn", "thinc")  # the others train items with another activation, too
