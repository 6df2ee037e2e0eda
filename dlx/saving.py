"""One file for a network: safetensors with a JSON description. No pickle, no import path, no code."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = 1
KEY = "dlx"  # the one metadata entry: with several, their order and so the bytes would vary


class FileError(ValueError):
    """A file that is not a network of dlx, or not a whole one; the text names the file and what is wrong."""


def write(
    path: str | os.PathLike[str], description: Mapping[str, Any], arrays: Mapping[str, np.ndarray[Any, Any]]
) -> None:
    """Write `arrays` and their `description` to `path`, replacing what is there only when all of it is written."""
    from safetensors.numpy import save  # here, so that `import dlx` stays quick

    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}  # others are written wrongly
    text = json.dumps({"format": FORMAT, **description}, allow_nan=True, sort_keys=True)
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(save(contiguous, metadata={KEY: text}))
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
    """The description and the arrays that `write` put there."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get(KEY)
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, KeyError, TypeError, ValueError) as reason:
        raise FileError(f"`path` must be a file that dlx saved; got {path}: {reason}. Save it again.") from reason
    try:
        description = json.loads(text or "")
        known = description["format"] == FORMAT
    except (ValueError, KeyError, TypeError) as reason:
        raise FileError(
            f"`path` must be a file that dlx saved; got {path}, which has no description of a network. "
            "Read it with safetensors instead."
        ) from reason
    if not known:
        raise FileError(
            f"`path` must have format {FORMAT}; got {path} of format {description['format']}. Update dlx to read it."
        )
    return description, arrays
