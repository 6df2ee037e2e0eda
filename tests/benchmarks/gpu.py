"""dlx on a GPU beside PyTorch and JAX: training, predicting, data that stay on the host, TF32, batch sizes.

    python tests/benchmarks/gpu.py [--output gpu.json] [--picture gpu.svg] [--seconds 220] [--rounds 5] [--only A,C]
                                   [--who cupy,scan] [--rows N] [--parts items,predict,stream,tf32,batches]
    python tests/benchmarks/gpu.py --picture-from gpu.json [--picture gpu.svg]

All train the same item on the same device in one process, rounds interleaved; the tables hold medians of the epochs
after the first, and the first beside them, with all that it compiles. float32 products have all their digits but in
the table of TF32. Who fails is noted with the error, and the others go on. The file is written anew after each piece,
so that what was measured stays if the run is ended.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # read by JAX at its import: others share the device

from items import ITEMS  # before what follows, for it prepares the environment of NumPy
from gpu_pieces import PLACES, Place, Row, Times, everyone, predicted, streamed, trained
from sessions import Start

import dlx

PARTS = ("items", "predict", "stream", "tf32", "batches")
LIBRARIES = ("dlx-nn", "numpy", "torch", "jax", "optax")
LEAST_SECONDS = 2.0  # of a piece's share


class Piece(NamedTuple):
    """One row of one table, and its share of the time."""

    part: str
    name: str
    share: float
    measure: Callable[[Times], Row]


def pieces(items: list[str], who: list[str], rows: int | None, place: Place) -> Iterator[Piece]:
    """All that can be asked for, the most important first."""

    def asked(peers: dict[str, Start]) -> dict[str, Start]:
        return {name: begin for name, begin in peers.items() if any(part in name for part in who)}

    peers = asked(everyone(place))
    for letter in items:
        yield Piece("items", letter, 12, functools.partial(trained, letter, ITEMS[letter], rows, peers, False))
    for letter, many in (("C", 1_000_000), ("A", 200_000), ("D", 100_000), ("C", 1), ("A", 1)):
        if letter in items:
            fewer = min(many, rows or many)
            measure = functools.partial(predicted, ITEMS[letter], fewer, place)
            yield Piece("predict", f"{letter}, {fewer} rows", 1, measure)
    if "A" in items:
        large = ITEMS["A"]._replace(batch=2048)
        yield Piece("stream", "A, batch 2048", 3, functools.partial(streamed, large, rows, place))
    fast = asked(everyone(place, tf32=True))
    fast.pop("JAX step", None)
    for letter in sorted({"B", "D"} & set(items)):
        yield Piece("tf32", letter, 5, functools.partial(trained, f"{letter} tf32", ITEMS[letter], rows, fast, True))
    three = {name: peers[name] for name in (f"dlx {place.selectors[0]}", "JAX scan", "PyTorch graph") if name in peers}
    for batch in (128, 512, 2048, 8192) if "A" in items else ():
        item = ITEMS["A"]._replace(batch=batch)
        yield Piece(
            "batches", f"A, batch {batch}", 3, functools.partial(trained, f"A {batch}", item, rows, three, False)
        )


def bars(tables: dict[str, dict[str, Row]], place: Place) -> list[dict[str, Any]]:
    """The ratios that the project wants, beside those measured; None where one side is missing."""
    cupy, torch, jax = (f"dlx {selector}" for selector in place.selectors)
    wanted = [
        *(
            ("items", letter, cupy, "JAX scan", most)
            for letter, most in zip("ABCD", (1.2, 1.15, 1.5, 1.0), strict=True)
        ),
        *(
            ("items", letter, cupy, "PyTorch graph", most)
            for letter, most in zip("ABCD", (0.6, 0.7, 0.7, 0.95), strict=True)
        ),
        *(("items", letter, cupy, "PyTorch eager", 0.1) for letter in "AC"),
        *(("items", letter, torch, "PyTorch graph", 1.1) for letter in "ABCD"),
        *(("items", letter, jax, "JAX scan", 1.15) for letter in "ABCD"),
        ("predict", "C, 1000000 rows", cupy, "PyTorch eager", 1.8),
        ("stream", "A, batch 2048", "stream=True", "slowest alone", 1.5),
    ]
    found = []
    for part, name, who, beside, most in wanted:
        row = tables.get(part, {}).get(name)
        if row is None:
            continue
        ours, theirs = (row.get(each, {}).get("median") for each in (who, beside))
        ratio = ours / theirs if ours and theirs else None
        found.append({"part": part, "row": name, "who": who, "beside": beside, "ratio": ratio, "at most": most})
    one = tables.get("predict", {}).get("C, 1 rows", {}).get(cupy, {}).get("median")
    if one:
        found.append(
            {
                "part": "predict",
                "row": "C, 1 rows",
                "who": cupy,
                "beside": "a millisecond",
                "ratio": 1e3 * one,
                "at most": 0.15,
            }
        )
    return found


def facts(backend: dlx.Backend) -> dict[str, str]:
    """Date, device, driver and versions."""
    found = {"date": datetime.date.today().isoformat(), "Python": platform.python_version()}
    found |= {f"{backend.selector}: {key}": value for key, value in backend.describe().items()}
    names = [name for name in importlib.metadata.packages_distributions().get("cupy", [])]
    for library in (*LIBRARIES, *names):
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            found[library] = "not installed"
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout.splitlines()
        found["device"], _, found["driver"] = (each.strip() for each in lines[0].partition(","))
    except (OSError, subprocess.SubprocessError, IndexError):
        found["device"] = backend.describe()["devices"]
    return found


def show(piece: Piece, row: Row) -> None:
    """One row as lines; ratios to JAX's scan, or to the last who was measured."""
    medians = {name: found["median"] for name, found in row.items() if "median" in found}
    unit = medians.get("JAX scan") or (list(medians.values())[-1] if medians else None)
    print(f"\n{piece.part} {piece.name}", flush=True)
    for name, found in row.items():
        if "median" in found:
            low, high = found.get("quartiles", (found["median"],) * 2)
            first = f"first {found['first']:.2f} s" if "first" in found else ""
            print(
                f"  {name:<16} {1e3 * found['median']:10.3f} ms ({1e3 * low:.3f} to {1e3 * high:.3f} of "
                f"{found.get('of', 1)}) {found['median'] / unit:7.2f} x  {first}",
                flush=True,
            )
        if "error" in found or "median" not in found:
            print(f"  {name:<16} {found.get('error', 'no time was left')}", flush=True)


def show_bars(found: list[dict[str, Any]]) -> None:
    """Measured beside wanted."""
    print("\nratios: measured, and at most wanted")
    for bar in found:
        ratio = "    -" if bar["ratio"] is None else f"{bar['ratio']:5.2f}"
        verdict = "not measured" if bar["ratio"] is None else "ok" if bar["ratio"] <= bar["at most"] else "MISSED"
        sides = f"{bar['who']} / {bar['beside']}"
        print(f"  {bar['part']:<8} {bar['row']:<16} {sides:<32} {ratio}  {bar['at most']:5.2f}  {verdict}")


def comma(text: str) -> list[str]:
    """The parts of a list."""
    return [each.strip() for each in text.split(",") if each.strip()]


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=comma, default=list(ITEMS), help="letters of work items, as in A,C")
    parser.add_argument("--who", type=comma, default=[""], help="parts of names of those who train, as in cupy,scan")
    parser.add_argument("--parts", type=comma, default=list(PARTS), help=f"of {','.join(PARTS)}")
    parser.add_argument("--seconds", type=float, default=220.0, help="when to start no further measurement")
    parser.add_argument("--rounds", type=int, default=5, help="at most; three at least while there is time")
    parser.add_argument("--rows", type=int, help="fewer rows, for a trial")
    parser.add_argument("--output", type=Path, default=Path("gpu.json"))
    parser.add_argument("--picture", type=Path, help="draw the items there")
    parser.add_argument("--picture-from", type=Path, help="measure nothing, draw what this file holds")
    parser.add_argument("--device", choices=PLACES, default="cuda", help="cpu tries the script out")
    chosen = parser.parse_args()
    if not set(chosen.only) <= ITEMS.keys() or not set(chosen.parts) <= set(PARTS):
        parser.error(f"--only takes letters of {','.join(ITEMS)}, and --parts some of {','.join(PARTS)}")
    if chosen.picture_from:
        draw(json.loads(chosen.picture_from.read_text()), chosen.picture or chosen.picture_from.with_suffix(".svg"))
        return 0
    end = time.perf_counter() + chosen.seconds
    place = PLACES[chosen.device]
    backend = dlx.backend.try_backend(place.selectors[0])
    if not isinstance(backend, dlx.Backend):
        print(f"CuPy cannot compute here: {backend}", file=sys.stderr)
        return 1
    result: dict[str, Any] = {"facts": facts(backend) | {"rows": str(chosen.rows or "all")}, "unit": "seconds"}
    print(json.dumps(result["facts"], indent=1), flush=True)
    left = [piece for piece in pieces(chosen.only, chosen.who, chosen.rows, place) if piece.part in chosen.parts]
    while left:
        now, shares = time.perf_counter(), sum(piece.share for piece in left)
        piece = left.pop(0)
        if now > end:
            print(f"{piece.part} {piece.name}: no time was left", flush=True)
            continue
        share = max(LEAST_SECONDS, (end - now) * piece.share / shares)
        row = piece.measure(Times(now + share, end, chosen.rounds))
        result.setdefault(piece.part, {})[piece.name] = row
        show(piece, row)
        result["bars"] = bars(result, place)
        chosen.output.write_text(json.dumps(result, indent=1) + "\n")
    show_bars(result.get("bars", []))
    print(f"wrote {chosen.output} after {chosen.seconds - end + time.perf_counter():.0f} s")
    if chosen.picture:
        draw(result, chosen.picture)
    return 0


def draw(result: dict[str, Any], path: Path) -> None:
    """The items as a picture."""
    from gpu_picture import draw

    draw(result, path)
    print(f"drew {path}")


if __name__ == "__main__":
    sys.exit(main())
