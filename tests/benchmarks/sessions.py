"""Trainings that go on epoch by epoch: dlx on any backend, PyTorch eager or as a CUDA graph, JAX with optax.

Each is a function ``start(item, X, y) -> Session`` with the data and the first weights of the item on the device. All
shuffle in each epoch, use Adam 1e-3 with float32, and bring the losses to the host once an epoch. What compiles does so
in the first epoch, for a session goes on with what it has compiled.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from items import LEARNING_RATE, Item, start  # first, for it prepares the environment of NumPy

import numpy as np

import dlx


class Session(NamedTuple):
    """`run(epochs)` trains on, and gives the seconds of each epoch and the last one's mean loss, if it has one."""

    run: Callable[[int], tuple[list[float], float | None]]
    probabilities: Callable[[np.ndarray], np.ndarray]


Start = Callable[[Item, np.ndarray, np.ndarray], Session]


def timed(epoch: Callable[[], float | None]) -> Callable[[int], tuple[list[float], float | None]]:
    """`run` of a Session, from a function that trains for one epoch and returns its mean loss."""

    def run(epochs: int) -> tuple[list[float], float | None]:
        seconds, loss = [], None
        for _ in range(epochs):
            began = time.perf_counter()
            loss = epoch()
            seconds.append(time.perf_counter() - began)
        return seconds, loss

    return run


def dlx_session(item: Item, X: np.ndarray, y: np.ndarray, backend: str, **options: Any) -> Session:
    """dlx.fit as a user calls it, anew in each run: so all runs but the first drop the first of one epoch more."""
    nets: list[dlx.Network] = []

    def run(epochs: int) -> tuple[list[float], float]:
        dropped = 1 if nets else 0
        ends = [time.perf_counter()]
        net = dlx.fit(
            X, y, item.dims, batch_size=item.batch, epochs=epochs + dropped, init=start(item),
            activation=item.activation, learning_rate=LEARNING_RATE, rng=0, backend=backend,
            callbacks=lambda _: ends.append(time.perf_counter()), **options,
        )  # fmt: skip
        nets[:] = [net]
        return [float(each) for each in np.diff(ends)[dropped:]], net.history["loss"][-1]

    return Session(run, lambda rows: nets[0].predict_proba(rows))


def torch_model(item: Item, device: str) -> Any:
    """nn.Sequential of Linear and the activation with the item's first weights."""
    import torch

    nn = torch.nn
    activation = {"relu": nn.ReLU, "tanh": nn.Tanh, "silu": nn.SiLU, "selu": nn.SELU}[item.activation]
    model = torch.nn.Sequential()
    for W, b in start(item):
        linear = torch.nn.Linear(*W.shape)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(W.T.copy()))
            linear.bias.copy_(torch.from_numpy(b))
        model.extend([linear, activation()])
    return model[:-1].to(device)


def torch_session(item: Item, X: np.ndarray, y: np.ndarray, device: str = "cpu", graph: bool = False) -> Session:
    """nn.Sequential, cross_entropy and Adam(fused=True): one C++ or CUDA kernel for all parameters.

    With `graph` the whole step of a full batch is a CUDA graph: a step is a copy of the row numbers, a launch, and a
    copy of the loss.
    """
    import torch

    model = torch_model(item, device)
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE, fused=True, capturable=graph)
    X_d, y_d = torch.from_numpy(X).to(device), torch.from_numpy(y.astype(np.int64)).to(device)
    draws = torch.Generator().manual_seed(0)

    def step(numbers: Any) -> Any:
        optimizer.zero_grad(set_to_none=not graph)
        loss = torch.nn.functional.cross_entropy(model(X_d[numbers]), y_d[numbers])
        loss.backward()
        optimizer.step()
        return loss.detach()

    one = torch_captured(step, model, optimizer, item.batch, device) if graph else step

    def epoch() -> float:
        batches = torch.randperm(len(X), generator=draws).to(device).split(item.batch)
        losses = [(one if len(numbers) == item.batch else step)(numbers) for numbers in batches]
        return float(torch.stack(losses).cpu().mean())

    def probabilities(rows: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return torch.softmax(model(torch.from_numpy(rows).to(device)), 1).cpu().numpy()

    return Session(timed(epoch), probabilities)


def torch_captured(step: Callable[[Any], Any], model: Any, optimizer: Any, batch: int, device: str) -> Any:
    """The step for a full batch as one CUDA graph, with the weights and the optimizer's state as they were."""
    import torch

    if torch.device(device).type != "cuda":
        raise ValueError(f"a CUDA graph needs a CUDA device; got {device}")
    numbers = torch.zeros(batch, dtype=torch.int64, device=device)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # the first steps allocate and choose kernels, which a capture must not
        for _ in range(3):
            step(numbers)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other libraries' threads may do what they like
        loss = step(numbers)
    model.load_state_dict(weights)
    for slots in optimizer.state.values():
        for slot in slots.values():
            slot.zero_()
    torch.cuda.synchronize()

    def replay(of_batch: Any) -> Any:
        numbers.copy_(of_batch)
        graph.replay()
        return loss.clone()

    return replay


class Jitted(NamedTuple):
    """Functions of JAX: scores of rows, a jitted step, and a jitted scan over many steps."""

    scores: Callable[..., Any]
    one: Callable[..., Any]
    some: Callable[..., Any]


@functools.cache  # so that equal shapes are compiled once in a process
def jitted(activation: str = "relu") -> Jitted:
    """jax.value_and_grad and optax.adam."""
    import jax
    import optax

    adam, f = optax.adam(LEARNING_RATE), getattr(jax.nn, activation)

    def scores(params: Any, A: Any) -> Any:
        for W, b in params[:-1]:
            A = f(A @ W + b)
        return A @ params[-1][0] + params[-1][1]

    def loss(params: Any, A: Any, truth: Any) -> Any:
        return optax.softmax_cross_entropy_with_integer_labels(scores(params, A), truth).mean()

    def step(carry: Any, numbers: Any, X_d: Any, y_d: Any) -> Any:
        params, state = carry
        value, slopes = jax.value_and_grad(loss)(params, X_d[numbers], y_d[numbers])
        updates, state = adam.update(slopes, state, params)
        return (optax.apply_updates(params, updates), state), value

    def some(carry: Any, numbers: Any, X_d: Any, y_d: Any) -> Any:
        return jax.lax.scan(lambda carry, each: step(carry, each, X_d, y_d), carry, numbers)

    return Jitted(scores, jax.jit(step, donate_argnums=0), jax.jit(some, donate_argnums=0))


def jax_session(item: Item, X: np.ndarray, y: np.ndarray, scan: bool = False, platform: str | None = None) -> Session:
    """One jitted step after the other; with `scan`, all full batches of an epoch in one."""
    import jax
    import optax

    device, rng = jax.devices(platform)[0], np.random.default_rng(0)
    params = [(jax.device_put(W, device), jax.device_put(b, device)) for W, b in start(item)]
    state = jax.device_put(optax.adam(LEARNING_RATE).init(params), device)  # or the second call would compile anew
    carry = params, state
    X_d, y_d = jax.device_put(X, device), jax.device_put(y, device)
    full, functions = len(X) // item.batch * item.batch, jitted(item.activation)

    def epoch() -> float:
        nonlocal carry
        losses, order = [], rng.permutation(len(X)).astype(np.int32)
        if scan and full:
            carry, values = functions.some(carry, order[:full].reshape(-1, item.batch), X_d, y_d)
            losses.append(values)
        for first in range(full if scan else 0, len(X), item.batch):
            carry, value = functions.one(carry, order[first : first + item.batch], X_d, y_d)
            losses.append(value)
        return float(np.concatenate([np.ravel(each) for each in jax.device_get(losses)]).mean())

    def probabilities(rows: np.ndarray) -> np.ndarray:
        return np.asarray(jax.nn.softmax(functions.scores(carry[0], jax.device_put(rows, device))))

    return Session(timed(epoch), probabilities)


@contextlib.contextmanager
def precision(tf32: bool) -> Iterator[None]:
    """Products of float32 in PyTorch and JAX with all its digits, or with TF32's. dlx is told by an argument.

    PyTorch stays so afterwards.
    """
    with contextlib.ExitStack() as stack:
        if importlib.util.find_spec("torch"):
            import torch

            torch.set_float32_matmul_precision("high" if tf32 else "highest")
        if importlib.util.find_spec("jax"):
            import jax

            stack.enter_context(jax.default_matmul_precision("tensorfloat32" if tf32 else "highest"))
        yield
