"""One file per array library, each holding only what the Array API standard lacks; here, their common errors.

Installed as ``dlx.backends``; nothing imports these modules but ``dlx.get_backend``, by name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import NoReturn

from dlx.backend import BackendNotInstalled, BackendUnavailable


@contextlib.contextmanager
def importing(name: str, module: str, install: str) -> Iterator[None]:
    """Backend `name` imports `module` inside; a failure says how to install it, or why it is broken."""
    try:
        yield
    except Exception as reason:  # a broken installation raises ImportError, OSError, AttributeError ...
        if isinstance(reason, ModuleNotFoundError) and reason.name == module:
            raise BackendNotInstalled(
                f"`backend` must name a library that is installed; got {name!r}. {install}"
            ) from reason
        own = str(reason).rstrip(" .\n")  # in full: CuPy says what failed in its last line
        raise BackendUnavailable(
            f"`backend` must be able to compute here; got {name!r}, which cannot be imported: {own}. "
            "Mend its installation, or pass another backend, such as 'numpy'."
        ) from reason


def unavailable(selector: str, version: str, reason: Exception) -> NoReturn:
    """The library is there but cannot compute here: its version and the first line of its own reason."""
    own = f"{type(reason).__name__}: {reason}".partition("\n")[0].rstrip(" .")
    raise BackendUnavailable(
        f"`backend` must be able to compute here; got {selector!r} ({version}): {own}. "
        "Mend that, or pass another backend, such as 'numpy'."
    ) from reason


def no_device(name: str, device: str, known: Sequence[str]) -> NoReturn:
    """The library has no such device; `known` are those it has."""
    raise ValueError(
        f"`backend` must name a device that exists; got '{name}:{device}' "
        f"(device {device}; {len(known)} available). Use {' or '.join(repr(f'{name}:{each}') for each in known)}."
    )
