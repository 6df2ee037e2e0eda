"""One file for a network: safetensors with a JSON description. No pickle, no import path, no code."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dlx import checks
from dlx.activations import ACTIVATIONS, Activation
from dlx.losses import LOSSES, Loss

Arrays = Mapping[str, np.ndarray[Any, Any]]
FORMAT = 1
BROKEN = (AttributeError, LookupError, TypeError, ValueError, ArithmeticError, RecursionError)  # what a bad file raises
KEY = "dlx"  # the one metadata entry: with several, their order and so the bytes would vary


class FileError(ValueError):
    """A file that is not a network of dlx, or not a whole one; the text names the file and what is wrong."""


def described(part: Activation | Loss) -> dict[str, Any] | None:
    """Name and settings of one of dlx's own activations or losses; None for a user's own, which is code."""
    known = ACTIVATIONS if isinstance(part, Activation) else LOSSES
    return {"name": part.name, "settings": dict(part.settings)} if part.name in known else None


def activation_from(entry: Mapping[str, Any]) -> Activation:
    """The activation of that name and those settings."""
    return ACTIVATIONS[entry["name"]](**entry["settings"])


def loss_from(entry: Mapping[str, Any]) -> Loss:
    """The loss of that name and those settings."""
    return LOSSES[entry["name"]](**entry["settings"])


def description_of(
    hidden: tuple[Activation, ...], loss: Loss, classes: Any, history: Mapping[str, list[float]], dtype: str
) -> dict[str, Any]:
    """What a file says of a network beside its arrays."""
    named, named_loss = [described(each) for each in hidden], described(loss)
    if None in (*named, named_loss):
        rule, got = "be of a network with dlx's own activations and loss", "functions of your own"
        remedy = "No file can hold code: save net.params with numpy, and rebuild with dlx.Network(params, ...)."
        checks.reject("save", rule, got, remedy)
    return {
        "activation": named,
        "loss": named_loss,
        "classes": None if classes is None else classes.tolist(),
        "history": _numbers(history),
        "dtype": dtype,
    }


def _numbers(history: Mapping[str, Any]) -> dict[str, list[float]]:
    """The history as a file holds it; what a callback may have added must be numbers too."""
    try:
        return {str(name): [float(figure) for figure in figures] for name, figures in history.items()}
    except (TypeError, ValueError, AttributeError) as reason:
        remedy = "Take out of net.history what is not a list of numbers."
        checks.reject("history", "be a dict of lists of numbers to be saved", reason, remedy)


def arguments_of(description: Mapping[str, Any], arrays: Arrays) -> dict[str, Any]:
    """The arguments of `Network` that a file holds; any error is the file's."""
    if sorted(description) != ["activation", "classes", "dtype", "history", "loss"]:
        raise KeyError(f"description of {sorted(description)}")
    layers = len(description["activation"]) + 1
    pairs = [(arrays[f"W{l}"], arrays[f"b{l}"]) for l in range(1, layers + 1)]
    if len(arrays) != 2 * layers or any(each.dtype.name != description["dtype"] for each in arrays.values()):
        raise ValueError(f"{len(arrays)} tensors instead of {2 * layers} of dtype {description['dtype']}")
    if not all(isinstance(figure, float) for figures in description["history"].values() for figure in figures):
        raise TypeError("history of other things than numbers")
    return {
        **description,
        "params": pairs,
        "activation": [activation_from(each) for each in description["activation"]],
        "loss": loss_from(description["loss"]),
    }


def write(path: str | os.PathLike[str], description: Mapping[str, Any], arrays: Arrays) -> None:
    """Write `arrays` and their `description` to `path`, replacing what is there only when all of it is on the disk."""
    from safetensors.numpy import save  # here, so that `import dlx` stays quick

    contiguous = {  # others are written wrongly
        name: np.asarray(array, array.dtype.newbyteorder("="), order="C") for name, array in arrays.items()
    }
    entries = {"format": FORMAT, **description}
    text = json.dumps({**entries, "sha256": _digest(entries, contiguous)}, sort_keys=True)
    target = Path(path)
    temporary = target.with_name(f".dlx-{os.getpid()}-{secrets.token_hex(8)}.tmp")  # other threads may save there too
    try:
        with open(temporary, "xb") as file:
            file.write(save(contiguous, metadata={KEY: text}))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not every system lets a folder be opened
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
    """The description and the arrays that `write` put there, unharmed."""
    from safetensors import SafetensorError, safe_open

    def parse() -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {})[KEY]
            return json.loads(text), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping

    with open(path, "rb"):  # what the system refuses is no fault of the file's
        pass
    description, arrays = checked(path, parse, (SafetensorError,))
    found = checked(path, lambda: description.pop("format"))
    if found != FORMAT:
        raise FileError(f"`path` must have format {FORMAT}; got {path} of format {found}. Update dlx to read it.")
    if checked(path, lambda: description.pop("sha256")) != _digest({"format": FORMAT, **description}, arrays):
        raise FileError(f"`path` must hold what dlx wrote; got {path}, whose checksum differs. Copy it again.")
    return description, arrays


def checked(path: Any, parse: Callable[[], Any], errors: tuple[type[Exception], ...] = ()) -> Any:
    """What `parse` makes of a part of the file; `FileError`, if it cannot."""
    try:
        return parse()
    except BROKEN + errors as reason:
        shown = f"{type(reason).__name__}: {reason}".rstrip(". ")
        raise FileError(
            f"`path` must be a file that dlx saved, and whole; got {path} ({shown}). "
            "Save it again, or read it with safetensors."
        ) from reason


def _digest(entries: Mapping[str, Any], arrays: Arrays) -> str:
    """Of the description and every array's name, dtype, shape and bytes: safetensors notices no flipped bit."""
    found = hashlib.sha256(json.dumps(entries, sort_keys=True).encode())
    for name in sorted(arrays):
        found.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape} ".encode())
        found.update(arrays[name].tobytes())
    return found.hexdigest()
