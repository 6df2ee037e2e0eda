"""Calls that fail before their work leave the caller's generator and the folder of checkpoints as they were."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dlx.files import atomic


class Attempt:
    """A call that leaves no trace if it fails before its work has `begun`."""

    begun: bool = False


@contextlib.contextmanager
def unmoved(generator: Any) -> Iterator[Attempt]:
    """An attempt that draws from a generator of NumPy's. Its state is restored if the attempt fails before its work."""
    attempt, state = Attempt(), generator.bit_generator.state
    try:
        yield attempt
    except BaseException:
        if not attempt.begun:
            generator.bit_generator.state = state
        raise


@contextlib.contextmanager
def owned(folder: Path, name: str, attempt: Attempt) -> Iterator[None]:
    """`atomic.owned` for an attempt. If that fails before its work, new folders and the new lock are removed."""
    lock = folder / atomic.LOCK
    new = [path for path in (lock, folder, *folder.parents) if not os.path.lexists(path)]
    try:
        with atomic.owned(folder, name):
            try:
                yield
            except BaseException:
                if not attempt.begun and lock in new:  # while it is locked, so that no other process's lock is removed
                    _remove(lock)
                raise
    except BaseException:
        for path in () if attempt.begun else new:
            _remove(path)
        raise


def _remove(path: Path) -> None:
    """Remove an empty folder or a lock. A folder that others have filled meanwhile stays."""
    with contextlib.suppress(OSError):
        if path.name == atomic.LOCK:
            path.unlink()
        else:
            path.rmdir()
