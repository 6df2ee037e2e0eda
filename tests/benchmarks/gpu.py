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
from functools import partial
from pathlib import Path

from items import ITEMS, data
from contenders import Train, dlx_on, torch_eager

import dlx

EPOCHS = 4


def contenders() -> dict[str, Train]:
    """Who can run here."""
    found: dict[str, Train] = {"dlx cupy": dlx_on("cupy")}
    if isinstance(dlx.backend.try_backend("torch:cuda"), dlx.Backend):
        found |= {"dlx torch:cuda": dlx_on("torch:cuda"), "torch eager": partial(torch_eager, device="cuda")}
    return found


def measure(rows: int | None, rounds: int) -> dict[str, dict[str, float]]:
    """Median seconds an epoch, by item and contender."""
    table: dict[str, dict[str, float]] = {}
    for name, item in ITEMS.items():
        X, y = (each[:rows] for each in data(item))
        seconds: dict[str, list[float]] = {}
        for _ in range(rounds):
            for who, train in contenders().items():
                seconds.setdefault(who, []).extend(train(item, X, y, EPOCHS).seconds[1:])
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
