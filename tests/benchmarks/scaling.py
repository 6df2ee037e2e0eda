"""How the time of an update grows with width, depth, batch and rows; the matrix products alone beside it.

    python tests/benchmarks/scaling.py [--rounds 3] [--output FOLDER]

One of the four is varied, the others stay at width 256, depth 2 (hidden layers), batch 128, 20,000 rows; 256 inputs,
10 outputs. Microseconds an update, medians of interleaved rounds of three epochs after a first. Writes scaling.json
and scaling.png.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from items import Item, data  # first, for it prepares the environment of NumPy
from contenders import CONTENDERS
from host import facts

NAMES = ("products alone", "dlx numpy", "dlx numpy + fast", "dlx jax", "torch eager", "scikit-learn")
BASE = {"width": 256, "depth": 2, "batch": 128, "rows": 20_000}
VARIED = {
    "width": (16, 64, 256, 1024),
    "depth": (0, 1, 2, 4, 8),
    "batch": (16, 64, 256, 1024, 4096),
    "rows": (1_000, 5_000, 20_000, 80_000),
}
EPOCHS = 4


def item_of(width: int, depth: int, batch: int, rows: int) -> Item:
    """The training job of these sizes."""
    return Item("scaling", (256, *[width] * depth, 10), batch, rows)


def measure(rounds: int) -> dict[str, dict[str, dict[int, float]]]:
    """Microseconds an update, by what is varied, contender and value."""
    table: dict[str, dict[str, dict[int, float]]] = {}
    for what, values in VARIED.items():
        for value in values:
            item = item_of(**{**BASE, what: value})
            X, y = data(item)
            seconds: dict[str, list[float]] = {}
            for _ in range(rounds):
                for name in NAMES:
                    seconds.setdefault(name, []).extend(CONTENDERS[name](item, X, y, EPOCHS).seconds[1:])
            updates = -(-item.rows // item.batch)
            for name, each in seconds.items():
                found = statistics.median(each) / updates * 1e6
                table.setdefault(what, {}).setdefault(name, {})[value] = found
            line = "  ".join(f"{name} {table[what][name][value]:.0f}" for name in NAMES)
            print(f"{what} {value}: {line}", flush=True)
    return table


def draw(table: dict[str, dict[str, dict[int, float]]], path: Path) -> None:
    """A panel for each of the four, both axes logarithmic, but for a depth of none."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(table), figsize=(12, 3.2), layout="constrained")
    for ax, (what, rows) in zip(axes, table.items(), strict=True):
        for name, points in rows.items():
            style = {"color": "0.6", "linestyle": "--"} if name == NAMES[0] else {}
            ax.plot(list(points), list(points.values()), marker=".", label=name, **style)
        ax.set(
            xscale="linear" if 0 in points else "log", yscale="log", ylim=(10, 4e4), xlabel=what, xticks=list(points)
        )
        ax.set_xticklabels([f"{value:,}" for value in points])
        ax.minorticks_off()
    axes[0].set_ylabel("us an update")
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].legend(fontsize=7)
    figure.savefig(path, dpi=72)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("."))
    chosen = parser.parse_args()
    table = measure(chosen.rounds)
    draw(table, chosen.output / "scaling.png")
    result = {"facts": facts(), "microseconds an update": table}
    (chosen.output / "scaling.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
