"""Work items A to D on a CUDA GPU: dlx on CuPy beside PyTorch, seconds an epoch.

    python tests/benchmarks/gpu.py [--rows N] [--rounds 5] [--output gpu.json]

Interleaved, medians of the rounds after a first that compiles; data and parameters lie on the device. Writes the
device's name and every library's version beside the figures.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from items import ITEMS, LEARNING_RATE, Item, data, start

import dlx


def dlx_on(backend: str) -> Callable[[Item, np.ndarray, np.ndarray, int], list[float]]:
    """Seconds of each epoch of one fit."""

    def train(item: Item, X: np.ndarray, y: np.ndarray, epochs: int) -> list[float]:
        net = dlx.fit(
            X, y, item.dims, batch_size=item.batch, epochs=epochs, init=start(item), learning_rate=LEARNING_RATE,
            rng=0, backend=backend,
        )  # fmt: skip
        return net.history["seconds"]

    return train


def torch_eager(item: Item, X: np.ndarray, y: np.ndarray, epochs: int) -> list[float]:
    """nn.Sequential and fused Adam on the same device, one read of the loss an epoch, as dlx does."""
    import torch

    device = torch.device("cuda")
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
    seconds = []
    for _ in range(epochs):
        started = time.perf_counter()
        losses = []
        for idx in torch.randperm(len(X_d)).to(device).split(item.batch):
            optimizer.zero_grad(set_to_none=True)
            loss = torch.nn.functional.cross_entropy(model(X_d[idx]), y_d[idx])
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        torch.stack(losses).cpu()
        seconds.append(time.perf_counter() - started)
    return seconds


def contenders() -> dict[str, Callable[[Item, np.ndarray, np.ndarray, int], list[float]]]:
    """Who can run here."""
    found: dict[str, Callable[[Item, np.ndarray, np.ndarray, int], list[float]]] = {"dlx cupy": dlx_on("cupy")}
    if isinstance(dlx.backend.try_backend("torch:cuda"), dlx.Backend):
        found |= {"dlx torch:cuda": dlx_on("torch:cuda"), "torch eager": torch_eager}
    return found


def measure(rows: int | None, rounds: int) -> dict[str, dict[str, float]]:
    """Median seconds an epoch, by item and contender."""
    table: dict[str, dict[str, float]] = {}
    for name, item in ITEMS.items():
        X, y = (each[:rows] for each in data(item))
        seconds: dict[str, list[float]] = {}
        for _ in range(rounds):
            for who, train in contenders().items():
                seconds.setdefault(who, []).extend(train(item, X, y, 3)[1:])
        table[name] = {who: statistics.median(each) for who, each in seconds.items()}
        print(name, "  ".join(f"{who} {figure:.4f} s" for who, figure in table[name].items()), flush=True)
    return table


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, help="fewer rows, for a trial")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("gpu.json"))
    arguments = parser.parse_args()
    backend = dlx.backend.try_backend("cupy")
    if not isinstance(backend, dlx.Backend):
        print(f"CuPy cannot compute here: {backend}", file=sys.stderr)
        return 1
    facts = backend.describe()
    print(facts)
    table = measure(arguments.rows, arguments.rounds)
    result = {"device": facts, "dlx": dlx.__version__, "seconds an epoch": table}
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    print(f"wrote {arguments.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
