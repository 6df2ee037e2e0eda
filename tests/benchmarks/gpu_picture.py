"""The picture of `gpu.py`: every contender's time on each item, as a multiple of JAX's scan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from items import ITEMS

COLOURS = {"dlx": "tab:blue", "PyTorch": "tab:orange", "JAX": "tab:green"}
UNIT = "JAX scan"


def draw(result: dict[str, Any], path: Path) -> None:
    """Bars by item on a logarithmic axis, titled with the device's name."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    tables = {
        letter: {name: found["median"] for name, found in row.items() if "median" in found}
        for letter, row in result.get("items", {}).items()
    }
    tables = {letter: row for letter, row in tables.items() if UNIT in row}
    if not tables:
        raise SystemExit(f"There is nothing to draw: no item has a median of {UNIT}.")
    plt.rcParams["svg.hashsalt"] = "gpu"  # the same figures, the same file
    size = 3.4 * len(tables), 3.2
    figure, axes = plt.subplots(1, len(tables), figsize=size, sharey=True, squeeze=False, layout="constrained")
    names = list(dict.fromkeys(name for row in tables.values() for name in row))[::-1]
    for ax, (letter, row) in zip(axes[0], tables.items(), strict=True):
        ratios = [row.get(name, float("nan")) / row[UNIT] for name in names]
        bars = ax.barh(names, ratios, color=[COLOURS[name.split()[0]] for name in names])
        labels = [
            f"{ratio:.2f}  ({1e3 * row[name]:.1f} ms)" if name in row else ""
            for name, ratio in zip(names, ratios, strict=True)
        ]
        ax.bar_label(bars, labels, padding=2, fontsize=7)
        ax.axvline(1.0, color="0.5", linewidth=0.8)
        low, high = 0.5, 6 * max(ratio for ratio in ratios if ratio == ratio)
        ax.set_xscale("log")
        ax.set_xlim(low, high)
        ticks = [tick for tick in (0.5, 1, 2, 5, 10, 20, 50, 100, 200) if low <= tick <= high]
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.minorticks_off()
        item = ITEMS[letter]
        ax.set_title(f"{letter}: {'-'.join(map(str, item.dims))}, batch {item.batch}", fontsize=8)
        ax.spines[["top", "right"]].set_visible(False)
    title = f"Time of an epoch, in multiples of {UNIT} (log scale), float32 without TF32: {result['facts']['device']}"
    figure.suptitle(title, fontsize=9)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
