"""A text about the verified content of a file of dlx, without building a network."""

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

WIDTH, SHOWN = 80, 8  # columns of the text; labels or names in it


def files_in(path: AnyPath) -> list[Path]:
    """The files of dlx in a folder, or the file itself."""
    place = Path(os.fsdecode(path))
    return sorted(place.glob("*.safetensors")) if place.is_dir() else [place]


def inspect_file(path: Source) -> str:
    """A text in ASCII about a file or a stream, whose checksum, names, dtypes, shapes and numbers are verified.

    Raises `FileError` if the content is damaged, and OSError if it cannot be read.
    """
    description, arrays = container.read(path, schema.layout)
    with container.file_errors(path):
        contents.require_loadable(description, arrays)
        facts = list(_facts(description, arrays))
    size = f", {os.path.getsize(path):,} bytes" if isinstance(path, str | bytes | os.PathLike) else ""
    lines = [f"file      {container.escaped(streams.display_name(path))}{size}"]
    for name, fact in facts:
        lines.append(textwrap.fill(f"{name:<10}{fact}", WIDTH, subsequent_indent=" " * 10, break_on_hyphens=False))
    return "\n".join(lines)


def _facts(description: Mapping[str, Any], arrays: container.NamedArrays) -> Iterator[tuple[str, str]]:
    """The lines of the text, as (name, fact)."""
    dims = description["layer_dims"]
    layers = schema.pairs_of(arrays, len(dims) - 1)
    count = sum(math.prod(array.shape) for pair in layers for array in pair)
    yield "verified", f"format {container.FORMAT}, checksum, names, dtypes, shapes, and that all is finite"
    yield "made by", json.dumps(description["made_by"])
    dtype = f"{description['dtype']}{', in TF32 on CUDA devices' if schema.TF32_KEY in description else ''}"
    yield "network", f"{' -> '.join(map(str, dims))}: {count:,} parameters, {dtype}"
    hidden = [_function_text(entry, schema.activation_from) for entry in description["activation"]]
    yield "hidden", ", ".join(hidden) or "no hidden layer"
    yield "loss", _function_text(description["loss"], schema.loss_from)
    for name, labels in (("classes", description["classes"]), ("features", description["feature_names"])):
        if labels is not None:
            yield name, _list_text(labels)
    for name in sorted(description["history"]):
        figures = arrays[HISTORY + name]
        last = f", the last {figures[-1]:.4g}, {_best(name, figures)}" if figures.size else ""
        yield "history", f"{json.dumps(name)}: {figures.size} epochs{last}"
    if TRAINING in description:
        yield "training", _training(description[TRAINING])


def _best(name: str, figures: Any) -> str:
    """The lowest loss, the highest score, or the range of other figures."""
    low, high = f"{figures.min():.4g}", f"{figures.max():.4g}"
    if name.endswith("loss"):
        return f"the lowest {low}"
    return f"the highest {high}" if name.endswith("score") else f"from {low} to {high}"


def _function_text(entry: Any, make: Any) -> str:
    """Name and settings of an activation or a loss."""
    if entry is None:
        return schema.OWN
    made = make(entry)
    settings = ", ".join(f"{name}={value}" for name, value in made.settings.items())
    return f"{made.name}({settings})" if settings else str(made.name)


def _list_text(labels: Sequence[Any]) -> str:
    """The number of labels and the first ones, escaped, as the maker of the file chose them."""
    first = ", ".join(json.dumps(label) for label in labels[:SHOWN])
    return f"{len(labels)}: {first}{', ...' if len(labels) > SHOWN else ''}"


def _training(training: Mapping[str, Any]) -> str:
    """How far the training of a checkpoint is, and what the checkpoint holds for going on."""
    updates, epochs, position = (schema.count(training[name]) for name in ("updates", "epoch", "position"))
    batches = f", {position} batches of the next" if position else ""
    done = f"update {updates:,}: {epochs} epochs{batches}"
    slots = "L-BFGS's memory" if training["lbfgs"] is not None else f"{training['slots']} optimizer slots"
    best = "" if training["best_epoch"] is None else f", the weights of epoch {training['best_epoch'] + 1}, the best"
    return f"{done}{', ended' if training['ended'] else ''}; {slots}{best}"
