"""Peak memory of a process that fits 784-256-10 on 60000 x 784 uint8, batch 128, beside what it must hold.

    python tests/benchmarks/memory.py [--output FOLDER]

The budget: the data, four times the parameters (weights, gradient, two slots of Adam), six batches in float32, and
100 MB for the interpreter with NumPy and dlx. Each contender runs in a process of its own. Writes memory.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

from host import facts  # first, for it prepares the environment of NumPy

import numpy as np

ROWS, DIMS, BATCH = 60_000, (784, 256, 10), 128
NAMES = ("making the data", "dlx numpy", "dlx numpy + fast", "scikit-learn")


def fit(name: str) -> None:
    """Two epochs, in this process."""
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 256, (ROWS, DIMS[0]), dtype=np.uint8), rng.integers(0, 10, ROWS)
    if name.startswith("dlx"):
        import dlx

        numpy = dlx.get_backend("numpy")
        backend = type(numpy)(numpy.xp, compiles=name.endswith("fast"))
        dlx.fit(X, y, DIMS, batch_size=BATCH, epochs=2, learning_rate=1e-4, rng=0, backend=backend)
    elif name == "scikit-learn":
        from sklearn.neural_network import MLPClassifier

        mlp = MLPClassifier(DIMS[1:-1], batch_size=BATCH, random_state=0)
        for _ in range(2):
            mlp.partial_fit(X, y, classes=np.arange(10))


def peak() -> int:
    """The most bytes that this process has held; not by getrusage, which counts the parent's before exec."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--process", help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, default=Path("."))
    chosen = parser.parse_args()
    if chosen.process:
        fit(chosen.process)
        print(peak())
        return 0
    parameters = sum((a + 1) * b for a, b in pairwise(DIMS))
    budget = ROWS * DIMS[0] + 4 * 4 * parameters + 6 * 4 * BATCH * DIMS[0] + 100_000_000
    table = {}
    for name in NAMES:
        run = subprocess.run([sys.executable, __file__, "--process", name], check=True, capture_output=True, text=True)
        table[name] = int(run.stdout.split()[-1])
        print(f"  {name:<18} {table[name] / 1e6:8.1f} MB", flush=True)
    print(f"  {'budget':<18} {budget / 1e6:8.1f} MB (of dlx numpy; numba's compiler is not in it)")
    result = {"facts": facts(), "peak bytes of the process": table, "budget": budget}
    (chosen.output / "memory.json").write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
