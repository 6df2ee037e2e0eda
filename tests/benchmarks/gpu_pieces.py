"""What `gpu.py` measures, piece by piece: one item's training, one network's predicting, one stream.

Each function measures until `enough`, but as long as `end` allows at least so often that a median means something
(both are times of time.perf_counter). An error becomes a text beside the figures.
"""

from __future__ import annotations

import functools
import os
import statistics
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from items import ITEMS, Item, data, start  # first, for it prepares the environment of NumPy
from sessions import Session, Start, dlx_session, jax_session, precision, timed, torch_model, torch_session

import numpy as np

import dlx

Row = dict[str, dict[str, Any]]  # what was found, by contender

ROUNDS = 3  # at least, while there is time
ROUND_SECONDS = 0.2  # of one contender in one round; a longer epoch is one all the same
EPOCHS = 10  # at most, of one contender in one round
REPEATS = (7, 30)  # of a prediction: at least, and at most for each round


class Place(NamedTuple):
    """Where all compute."""

    selectors: tuple[str, ...]  # of dlx; the first is the one that this is about
    torch: str
    jax: str


PLACES = {
    "cuda": Place(("cupy", "torch:cuda", "jax:gpu"), "cuda", "gpu"),
    "cpu": Place(("numpy", "torch:cpu", "jax:cpu"), "cpu", "cpu"),
}


class Times(NamedTuple):
    """When a piece has had its share, when all must end, and after how many rounds it has enough in any case."""

    enough: float
    end: float
    rounds: int

    def go_on(self, done: int, least: int, most: int) -> bool:
        """Whether to measure once more after so many times."""
        now = time.perf_counter()
        return now < self.end and (done < least or (done < most and now < self.enough))


@functools.lru_cache(maxsize=len(ITEMS))
def samples(dims: tuple[int, ...], rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The data of an item, drawn once."""
    return data(Item("", dims, 1, rows))


def everyone(place: Place, tf32: bool = False) -> dict[str, Start]:
    """Who trains. Those whom the project compares itself with come first, should time run out."""
    options = {"tf32": True} if tf32 else {}
    ours: dict[str, Start] = {
        f"dlx {selector}": functools.partial(dlx_session, backend=selector, **options) for selector in place.selectors
    }
    first, *others = ours
    return {
        first: ours[first],
        "JAX scan": functools.partial(jax_session, scan=True, platform=place.jax),
        "PyTorch graph": functools.partial(torch_session, device=place.torch, graph=True),
        "PyTorch eager": functools.partial(torch_session, device=place.torch),
        **{name: ours[name] for name in others},
        "JAX step": functools.partial(jax_session, platform=place.jax),
    }


def failure(error: Exception) -> dict[str, Any]:
    """The kind of an error with the first line of what it says, and where it came from."""
    first = (str(error).strip() or "?").splitlines()[0][:300]
    return {
        "error": f"{type(error).__name__}: {first}",
        "traceback": "".join(traceback.format_exception(error))[-3000:],
    }


def summary(seconds: list[float]) -> dict[str, Any]:
    """The median, the quartiles, and of how many."""
    low, high = (float(each) for each in np.quantile(seconds, (0.25, 0.75)))
    return {"median": statistics.median(seconds), "quartiles": [low, high], "of": len(seconds)}


def trained(title: str, item: Item, rows: int | None, who: dict[str, Start], tf32: bool, times: Times) -> Row:
    """Seconds an epoch: the median of those after the first, and the first with all preparation and compilation."""
    X, y = (each[:rows] for each in samples(item.dims, item.rows))
    row: Row = {}
    sessions: dict[str, Session] = {}
    epochs: dict[str, int] = {}
    with precision(tf32):
        for name, begin in who.items():
            if time.perf_counter() > times.end:
                row[name] = {"error": "no time was left"}
                continue
            try:
                began = time.perf_counter()
                sessions[name] = begin(item, X, y)
                _, loss = sessions[name].run(1)
                row[name] = {"first": time.perf_counter() - began, "loss": loss, "seconds": []}
                epochs[name] = 1  # of the next round
                print(f"{title:<10} {name:<16} first call {row[name]['first']:8.2f} s, loss {loss}", flush=True)
            except Exception as error:
                row[name] = failure(error)
                print(f"{title:<10} {name:<16} {row[name]['error']}", flush=True)
        done = 0
        while sessions and times.go_on(done, min(ROUNDS, times.rounds), times.rounds):
            for name in list(sessions):
                try:
                    seconds, _ = sessions[name].run(epochs[name])
                    row[name]["seconds"] += seconds
                    epochs[name] = min(max(int(ROUND_SECONDS / min(seconds)), 1), EPOCHS)
                except Exception as error:
                    row[name] |= failure(error)
                    del sessions[name]
            done += 1
    for found in row.values():
        if seconds := found.pop("seconds", None):
            found |= summary(seconds)
    return row


def interleaved(calls: dict[str, Callable[[], object]], times: Times, number: int = 1) -> Row:
    """Seconds of a call, from repeats of all in turn after one that warms up; `number` calls are timed at once."""
    row: Row = {}
    seconds: dict[str, list[float]] = {}
    for name, call in calls.items():
        try:
            began = time.perf_counter()
            call()
            row[name], seconds[name] = {"first": time.perf_counter() - began}, []
        except Exception as error:
            row[name] = failure(error)
    done = 0
    while seconds and times.go_on(done, REPEATS[0], REPEATS[1] * times.rounds):
        for name, found in seconds.items():
            began = time.perf_counter()
            for _ in range(number):
                calls[name]()
            found.append((time.perf_counter() - began) / number)
        done += 1
    return {name: found | (summary(seconds[name]) if seconds.get(name) else {}) for name, found in row.items()}


def predicted(item: Item, rows: int, place: Place, times: Times) -> Row:
    """Seconds of labels for so many rows that lie on the device, waiting for the last of them."""
    X, y = (each[:2000] for each in data(item._replace(rows=2000)))
    many = np.resize(X, (rows, X.shape[1]))
    calls: dict[str, Callable[[], object]] = {}
    failed: Row = {}
    for selector in place.selectors:
        try:
            calls[f"dlx {selector}"] = dlx_labels(item, X, y, many, selector)
        except Exception as error:
            failed[f"dlx {selector}"] = failure(error)
    try:
        calls["PyTorch eager"] = torch_labels(item, many, place.torch)
    except Exception as error:
        failed["PyTorch eager"] = failure(error)
    with precision(tf32=False):
        return interleaved(calls, times, number=20 if rows == 1 else 1) | failed


def dlx_labels(item: Item, X: np.ndarray, y: np.ndarray, many: np.ndarray, selector: str) -> Callable[[], object]:
    """Network.predict, and the wait for the device."""
    net = dlx.fit(X, y, item.dims, epochs=1, init=start(item), rng=0, backend=selector)
    with net.backend.scope():
        there = net.backend.asarray(many)

    def call() -> None:
        labels = net.predict(there)
        if hasattr(labels, "block_until_ready"):
            labels.block_until_ready()  # JAX has no barrier but this
        else:
            net.backend.synchronize()

    return call


def torch_labels(item: Item, many: np.ndarray, device: str) -> Callable[[], object]:
    """The arg max of the module's scores."""
    import torch

    model, there = torch_model(item, device), torch.from_numpy(many).to(device)

    def call() -> None:
        with torch.inference_mode():
            model(there).argmax(1)
        if device == "cuda":
            torch.cuda.synchronize()

    return call


def streamed(item: Item, rows: int | None, place: Place, times: Times) -> Row:
    """Seconds an epoch with stream=True, beside those of gathering, copying and computing alone."""
    selector = place.selectors[0]
    who: dict[str, Start] = {
        "stream=True": functools.partial(dlx_session, backend=selector, stream=True),
        "computing alone": functools.partial(dlx_session, backend=selector),
        "gathering alone": gathering,
        "copying alone": copying,
    }
    row = trained("stream", item, rows, who, False, times)
    parts = [found["median"] for name, found in row.items() if name.endswith("alone") and "median" in found]
    if parts and "median" in row["stream=True"]:
        row["slowest alone"] = {"median": max(parts)}
    return row


def gathering(item: Item, X: np.ndarray, y: np.ndarray) -> Session:
    """An epoch that only gathers the rows of each batch on the host, in as many threads as dlx uses."""
    rng, buffer, threads = np.random.default_rng(0), np.empty_like(X[: item.batch]), min(4, os.cpu_count() or 1)
    pool = ThreadPoolExecutor(threads)

    def gather(numbers: np.ndarray, out: np.ndarray) -> None:
        np.take(X, numbers, axis=0, out=out, mode="clip")  # "raise" would copy once more

    def epoch() -> None:
        order = rng.permutation(len(X))
        for first in range(0, len(X), item.batch):
            numbers = order[first : first + item.batch]
            rows = buffer[: len(numbers)]
            list(pool.map(gather, np.array_split(numbers, threads), np.array_split(rows, threads)))

    return Session(timed(epoch), lambda rows: rows)


def copying(item: Item, X: np.ndarray, y: np.ndarray) -> Session:
    """An epoch that only copies as many rows as a batch has from pinned memory to CuPy's device."""
    import cupy
    import cupyx

    rows = X[: item.batch]
    pinned, there = cupyx.empty_pinned(rows.shape, rows.dtype), cupy.empty(rows.shape, rows.dtype)
    pinned[...] = rows

    def epoch() -> None:
        for _ in range(0, len(X), item.batch):
            there.set(pinned)
        cupy.cuda.get_current_stream().synchronize()

    return Session(timed(epoch), lambda rows: rows)
