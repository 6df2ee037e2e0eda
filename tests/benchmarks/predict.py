"""Predicting labels through a 20-64-64-2 network: one row, a thousand, a million; beside NumPy written out.

    python tests/benchmarks/predict.py [--output FOLDER]

"expressions" are the same layers as NumPy one-liners, "products" their matrix products alone. Medians of interleaved
repeats. Writes predict.json.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import timeit
from collections.abc import Callable
from pathlib import Path

from host import facts  # first, for it prepares the environment of NumPy

import numpy as np

import dlx

DIMS = (20, 64, 64, 2)
REPEATS = 7


def contenders() -> dict[str, Callable[[np.ndarray], object]]:
    """The same network in every form."""
    import torch
    from sklearn.neural_network import MLPClassifier

    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((500, DIMS[0])).astype("float32"), rng.integers(0, 2, 500)
    net = dlx.fit(X, y, DIMS, epochs=1, rng=0)
    (W1, b1), (W2, b2), (W3, b3) = net.params
    mlp = MLPClassifier(DIMS[1:-1], max_iter=1).partial_fit(X, y, classes=[0, 1])
    tensors = [(torch.from_numpy(W.copy()), torch.from_numpy(b.copy())) for W, b in net.params]

    def expressions(X: np.ndarray) -> object:
        A = np.maximum(X @ W1 + b1, 0)
        A = np.maximum(A @ W2 + b2, 0)
        return np.argmax(A @ W3 + b3, axis=1)

    def products(X: np.ndarray) -> object:
        return X @ W1 @ W2 @ W3

    def torch_eager(X: np.ndarray) -> object:
        with torch.no_grad():
            A = torch.from_numpy(X)
            for W, b in tensors[:-1]:
                A = torch.relu(A @ W + b)
            return torch.argmax(A @ tensors[-1][0] + tensors[-1][1], dim=1).numpy()

    return {
        "products": products,
        "expressions": expressions,
        "dlx": net.predict,
        "torch eager": torch_eager,
        "scikit-learn": mlp.predict,
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("."))
    output = parser.parse_args().output
    rng, table, everyone = np.random.default_rng(1), {}, contenders()
    for rows, number in ((1, 5000), (1000, 200), (1_000_000, 1)):
        X = rng.standard_normal((rows, DIMS[0])).astype("float32")
        seconds: dict[str, list[float]] = {}
        for repeat in range(REPEATS + 1):
            for name, predict in everyone.items():
                found = timeit.timeit(functools.partial(predict, X), number=number) / number
                if repeat:  # the first warms up
                    seconds.setdefault(name, []).append(found)
        table[rows] = {name: statistics.median(each) for name, each in seconds.items()}
        unit = table[rows]["expressions" if rows == 1 else "products"]
        print(f"{rows} rows")
        for name, figure in table[rows].items():
            print(f"  {name:<14} {figure * 1e6:12.1f} us  {figure / unit:6.2f} x", flush=True)
    result = {"facts": facts(), "seconds": table}
    (output / "predict.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
