"""The work items on dlx, its peers and the bare matrix products: seconds an epoch, interleaved in one run.

    python tests/benchmarks/peers.py [--items ABCD] [--activations tanh silu selu] [--rounds 5] [--rows N]
                                     [--only NAME ...] [--output FOLDER]
    python tests/benchmarks/peers.py --first     # whole processes that train item A for one epoch

Run it alone: other work on the same cores falsifies every figure. Each round trains every contender anew for four
epochs and drops the first, which compiles; the table holds medians over rounds and epochs. Beside them stands the
median of the ratios to JAX's scan, each of the medians within one round, as neighbours disturb rounds as a whole. The
losses afterwards are printed, too, for who learns less does less. Writes peers.json and peers.png.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from items import ACTIVATIONS, ITEMS, Item, data, further  # first, for it prepares the environment of NumPy
from contenders import CONTENDERS, JUDGED, ONLY_RELU, SCAN  # isort: skip
from host import facts

import numpy as np

EPOCHS = 4
WITHIN = 0.25  # of the median loss: how far anyone's may lie from it
LEARNT = 0.02  # or below this, where all have learnt the data
COLOURS = {"products": "0.7", "dlx": "tab:blue"}
Row = dict[str, dict[str, Any]]


def measure(items: list[Item], names: list[str], rounds: int, rows: int | None) -> dict[str, Row]:
    """By item and contender: the median seconds an epoch, quartiles, ratios to JAX's scan, and the loss afterwards."""
    table: dict[str, Row] = {}
    for item in items:
        X, y = (each[:rows] for each in data(item))
        able = [name for name in names if item.activation == "relu" or name not in ONLY_RELU]
        seconds: dict[str, list[list[float]]] = {name: [] for name in able}
        losses: dict[str, float] = {}
        for _ in range(rounds):
            for name in able:
                outcome = CONTENDERS[name](item, X, y, EPOCHS)
                seconds[name].append(outcome.seconds[1:])
                if outcome.probabilities is not None:
                    right = outcome.probabilities[np.arange(len(X[:JUDGED])), y[:JUDGED]]
                    losses[name] = float(-np.mean(np.log(np.maximum(right, 1e-30))))
        table[item.name] = {
            name: summary(each, seconds.get(SCAN)) | {"loss": losses.get(name)} for name, each in seconds.items()
        }
        judge(item.name, losses)
        show(item, table[item.name], len(X))
    return table


def summary(rounds: list[list[float]], scan: list[list[float]] | None) -> dict[str, Any]:
    """Median and quartiles of the seconds, and the ratio to those of JAX's scan in each round, if it was there."""
    every = [each for seconds in rounds for each in seconds]
    found: dict[str, Any] = {
        "median": statistics.median(every),
        "quartiles": [float(q) for q in np.quantile(every, (0.25, 0.75))],
    }
    if scan is not None:
        pairs = zip(rounds, scan, strict=True)
        ratios = [statistics.median(own) / statistics.median(beside) for own, beside in pairs]
        found |= {"ratio_to_scan": statistics.median(ratios), "ratios_to_scan": ratios}
    return found


def judge(name: str, losses: dict[str, float]) -> None:
    """Say who did not learn what the others learnt."""
    middle = statistics.median(losses.values()) if losses else 0.0
    for who, loss in losses.items():
        if abs(loss - middle) > max(WITHIN * middle, LEARNT):
            print(f"{name}: {who} ends at a loss of {loss:.4f}, the median at {middle:.4f}", file=sys.stderr)


def show(item: Item, row: Row, rows: int) -> None:
    """One item as lines."""
    best = row.get("products alone", next(iter(row.values())))["median"]
    print(f"\n{item.name}: {'-'.join(map(str, item.dims))}, batch {item.batch}, {rows} rows")
    for name, found in row.items():
        loss = "" if found["loss"] is None else f"loss {found['loss']:.4f}"
        low, high = found["quartiles"]
        ratio = f"{found['ratio_to_scan']:5.2f} of JAX's scan" if "ratio_to_scan" in found else ""
        print(
            f"  {name:<20} {found['median']:.4f} s  ({low:.4f} to {high:.4f})  {found['median'] / best:5.2f} x  "
            f"{ratio}  {loss}",
            flush=True,
        )


def markdown(table: dict[str, Row]) -> str:
    """The table as the README shows it, and beside the seconds the median of the rounds' ratios to JAX's scan."""
    lines = ["| seconds an epoch | " + " | ".join(table) + " |", "|---|" + "---|" * len(table)]
    for name in dict.fromkeys(name for row in table.values() for name in row):
        cells = [cell(row[name]) if name in row else "" for row in table.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(found: dict[str, Any]) -> str:
    """Seconds, with the ratio to JAX's scan, if there is one."""
    ratio = found.get("ratio_to_scan")
    return f"{found['median']:.3f}" + ("" if ratio is None else f" ({ratio:.2f})")


def draw(items: list[Item], table: dict[str, Row], path: Path) -> None:
    """Bars: each contender's time as a multiple of the bare products'."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(table), figsize=(3.2 * len(table), 3.4), sharey=True, layout="constrained")
    for ax, item in zip(np.atleast_1d(axes), items, strict=True):
        row = table[item.name]
        names = list(row)[::-1]
        unit = row.get("products alone", row[names[-1]])["median"]
        colours = [COLOURS.get(name.split()[0], "tab:orange") for name in names]
        bars = ax.barh(names, [row[name]["median"] / unit for name in names], color=colours)
        ax.bar_label(bars, fmt="%.1f", padding=2, fontsize=8)
        ax.set_title(f"{item.name}: {'-'.join(map(str, item.dims))}", fontsize=9)
        ax.set_xlim(0, 1.2 * max(row[name]["median"] / unit for name in names))
        ax.spines[["top", "right"]].set_visible(False)
    figure.suptitle("Time of an epoch, in multiples of its matrix products alone (NumPy)", fontsize=10)
    figure.savefig(path, dpi=80)


def first_calls(names: list[str], letter: str = "A") -> dict[str, list[float]]:
    """Seconds of whole processes that import, train one epoch and end: the first, and the next two."""
    found: dict[str, list[float]] = {}
    for name in names:
        for _ in range(3):
            started = time.perf_counter()
            subprocess.run([sys.executable, __file__, "--process", name, letter], check=True, stdout=subprocess.DEVNULL)
            found.setdefault(name, []).append(time.perf_counter() - started)
        print(f"  {name:<20} " + "  ".join(f"{each:.2f} s" for each in found[name]), flush=True)
    return found


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", default="".join(ITEMS), help="letters of work items")
    parser.add_argument(
        "--activations", nargs="+", default=[], choices=ACTIVATIONS, help="item A with these activations, too"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, help="fewer rows, for a trial")
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS), metavar="NAME")
    parser.add_argument("--first", action="store_true", help="time whole processes instead, three of each, on all rows")
    parser.add_argument("--process", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, default=Path("."), help="the folder to write to; by default this one")
    chosen = parser.parse_args()
    if not set(chosen.items) <= ITEMS.keys() or chosen.rounds < 1:
        parser.error(f"--items takes letters of {''.join(ITEMS)}, and --rounds a number >= 1")
    if not chosen.items and not chosen.activations:
        parser.error("--items may only be empty beside --activations")
    if chosen.process:
        name, letter = chosen.process
        CONTENDERS[name](ITEMS[letter], *data(ITEMS[letter]), 1)
        return 0
    chosen.output.mkdir(parents=True, exist_ok=True)
    if chosen.first:
        found: Any = first_calls(chosen.only)
    else:
        items = [*(ITEMS[letter] for letter in chosen.items), *map(further, chosen.activations)]
        found = measure(items, chosen.only, chosen.rounds, chosen.rows)
        print("\n" + markdown(found))
    settings = {} if chosen.first else {"rounds": chosen.rounds, "rows": chosen.rows or "all"}
    result = {"facts": facts() | settings, "seconds of a process" if chosen.first else "seconds an epoch": found}
    print(json.dumps(result["facts"], indent=1))
    path = chosen.output / ("first.json" if chosen.first else "peers.json")
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"wrote {path}")
    if not chosen.first:
        draw(items, found, chosen.output / "peers.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
