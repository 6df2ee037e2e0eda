"""A call that is refused leaves no trace: the caller's generator as it came, and the folder of its checkpoints."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dlx.files import atomic


class Attempt:
    """A call whose errors leave no trace until its work has `begun`."""

    begun: bool = False


@contextlib.contextmanager
def unmoved(generator: Any) -> Iterator[Attempt]:
    """An attempt that draws from the generator of NumPy's, which stays as it came where that fails before its work."""
    attempt, state = Attempt(), generator.bit_generator.state
    try:
        yield attempt
    except BaseException:
        if not attempt.begun:
            generator.bit_generator.state = state
        raise


@contextlib.contextmanager
def owned(folder: Path, name: str, attempt: Attempt) -> Iterator[None]:
    """As `files.owned`; what it makes, parents too, is gone again where the attempt fails before its work."""
    lock = folder / atomic.LOCK
    new = [each for each in (lock, folder, *folder.parents) if not os.path.lexists(each)]
    try:
        with atomic.owned(folder, name):
            try:
                yield
            except BaseException:
                if not attempt.begun and lock in new:  # while it is held, so that nobody else's is removed
                    _remove(lock)
                raise
    except BaseException:
        for each in () if attempt.begun else new:
            _remove(each)
        raise


def _remove(path: Path) -> None:
    """An empty folder or a lock; what others have filled meanwhile stays."""
    with contextlib.suppress(OSError):
        if path.name == atomic.LOCK:
            path.unlink()
        else:
            path.rmdir()
