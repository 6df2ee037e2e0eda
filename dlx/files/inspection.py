"""What a file of dlx holds, verified, without building a model."""

from __future__ import annotations

import json
import math
import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dlx.files import container, contents, schema, streams
from dlx.files.atomic import AnyPath
from dlx.files.schema import HISTORY, TRAINING
from dlx.files.streams import Source

WIDTH, SHOWN = 80, 8  # columns; labels, or names


def whole_folder(path: AnyPath) -> list[Path]:
    """The files of dlx in a folder, or the file itself."""
    found = Path(os.fsdecode(path))
    return sorted(found.glob("*.safetensors")) if found.is_dir() else [found]


def report(path: Source) -> str:
    """What the file, or the stream, says, once its checksum, names, dtypes, shapes and numbers are verified: in ASCII.

    Raises `FileError` where it is not whole, and OSError where it cannot be read.
    """
    description, arrays = container.read(path, schema.layout)
    with container.whole(path):
        contents.require_loadable(description, arrays)
        facts = list(_facts(description, arrays))
    size = f", {os.path.getsize(path):,} bytes" if isinstance(path, str | bytes | os.PathLike) else ""
    lines = [f"file      {container.escaped(streams.shown(path))}{size}"]
    for name, fact in facts:
        lines.append(textwrap.fill(f"{name:<10}{fact}", WIDTH, subsequent_indent=" " * 10, break_on_hyphens=False))
    return "\n".join(lines)


def _facts(description: Mapping[str, Any], arrays: container.Arrays) -> Iterator[tuple[str, str]]:
    dims = description["layer_dims"]
    layers = schema.pairs_of(arrays, len(dims) - 1)
    count = sum(math.prod(each.shape) for pair in layers for each in pair)
    yield "verified", f"format {container.FORMAT}, checksum, names, dtypes, shapes, and that all is finite"
    yield "made by", json.dumps(description["made_by"])
    yield "network", f"{' -> '.join(map(str, dims))}: {count:,} parameters, {description['dtype']}"
    hidden = [_part(each, schema.activation_from) for each in description["activation"]]
    yield "hidden", ", ".join(hidden) or "no hidden layer"
    yield "loss", _part(description["loss"], schema.loss_from)
    for name, labels in (("classes", description["classes"]), ("features", description["feature_names"])):
        if labels is not None:
            yield name, _listed(labels)
    for name in sorted(description["history"]):
        figures = arrays[HISTORY + name]
        last = f", the last {figures[-1]:.4g}, {_best(name, figures)}" if figures.size else ""
        yield "history", f"{json.dumps(name)}: {figures.size} epochs{last}"
    if TRAINING in description:
        yield "training", _training(description[TRAINING])


def _best(name: str, figures: Any) -> str:
    """The lowest loss, the highest score, and of what is neither the range."""
    low, high = f"{figures.min():.4g}", f"{figures.max():.4g}"
    if name.endswith("loss"):
        return f"the lowest {low}"
    return f"the highest {high}" if name.endswith("score") else f"from {low} to {high}"


def _part(entry: Any, make: Any) -> str:
    """Of an activation or a loss: its name and settings."""
    if entry is None:
        return schema.OWN
    made = make(entry)
    settings = ", ".join(f"{name}={value}" for name, value in made.settings.items())
    return f"{made.name}({settings})" if settings else str(made.name)


def _listed(labels: Sequence[Any]) -> str:
    """As many as can be read at a glance, escaped: whoever made the file chose them."""
    shown = ", ".join(json.dumps(each) for each in labels[:SHOWN])
    return f"{len(labels)}: {shown}{', ...' if len(labels) > SHOWN else ''}"


def _training(training: Mapping[str, Any]) -> str:
    updates, epochs, position = (schema.count(training[name]) for name in ("updates", "epoch", "position"))
    batches = f", {position} batches of the next" if position else ""
    done = f"update {updates:,}: {epochs} epochs{batches}"
    slots = "L-BFGS's memory" if training["lbfgs"] is not None else f"{training['slots']} optimizer slots"
    best = "" if training["best_epoch"] is None else f", the weights of epoch {training['best_epoch'] + 1}, the best"
    return f"{done}{', ended' if training['ended'] else ''}; {slots}{best}"
