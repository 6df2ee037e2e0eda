"""What a checkpoint costs: one of work item A, and a fit that saves after every epoch beside one that saves never.

    python tests/benchmarks/checkpoint.py [--epochs 20] [--rounds 5] [--folder FOLDER]

Run it alone. The fits are interleaved; each is timed as a whole, with the reading of X for its fingerprint.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from items import ITEMS, data  # first, for it prepares the environment of NumPy
from host import facts

import dlx
from dlx.files import checkpoints, fingerprint


def timed(item: Any, X: Any, y: Any, epochs: int, **settings: Any) -> float:
    """Seconds of a whole fit."""
    started = time.perf_counter()
    dlx.fit(X, y, item.dims, batch_size=item.batch, epochs=epochs, rng=0, backend="numpy", **settings)
    return time.perf_counter() - started


def main() -> None:
    """Measure, print, write checkpoint.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where checkpoints go; by default the system's for temporaries")
    parser.add_argument("--output", type=Path, default=Path("."))
    chosen = parser.parse_args()
    item = ITEMS["A"]
    X, y = data(item)
    saves: list[float] = []
    save = checkpoints.Checkpoints.save

    def measured(self: Any, progress: Any) -> None:
        started = time.perf_counter()
        save(self, progress)
        saves.append(time.perf_counter() - started)

    setattr(checkpoints.Checkpoints, "save", measured)  # noqa: B010 - mypy knows it for a method
    never, always = [], []
    timed(item, X, y, 2)
    for _ in range(chosen.rounds):
        never.append(timed(item, X, y, chosen.epochs))
        with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
            always.append(timed(item, X, y, chosen.epochs, checkpoint=folder))
    started = time.perf_counter()
    fingerprint.fingerprint(X, dlx.get_backend("numpy"))
    found = {
        "a checkpoint": {
            "median": statistics.median(saves),
            "lowest": min(saves),
            "highest": max(saves),
            "saves": len(saves),
        },
        "fingerprint of X": time.perf_counter() - started,
        "fit": statistics.median(never),
        "fit that saves every epoch": statistics.median(always),
        "ratio": statistics.median(b / a for a, b in zip(never, always, strict=True)),
        "epochs": chosen.epochs,
    }
    print(json.dumps(found, indent=1))
    (chosen.output / "checkpoint.json").write_text(json.dumps({**found, **facts()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
