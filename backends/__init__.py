"""What the Array API standard lacks, in a file for each array library and files beside it. This one has common errors.

The folder is installed as ``dlx.backends``. Only ``dlx.get_backend`` imports its files, by name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import NoReturn

from dlx.backend import BackendNotInstalled, BackendUnavailable


@contextlib.contextmanager
def importing(name: str, module: str, install: str) -> Iterator[None]:
    """The context in which backend `name` imports `module`; errors say how to install it, or why it is broken."""
    try:
        yield
    except Exception as reason:  # a broken installation raises ImportError, OSError, AttributeError ...
        if isinstance(reason, ModuleNotFoundError) and reason.name == module:
            raise BackendNotInstalled(
                f"`backend` must name a library that is installed; got {name!r}. {install}"
            ) from reason
        text = str(reason).rstrip(" .\n")  # in full, as the last line of CuPy's text says what failed
        raise BackendUnavailable(
            f"`backend` must be able to compute here; got {name!r}, which cannot be imported: {text}. "
            "Mend its installation, or pass another backend, such as 'numpy'."
        ) from reason


def first_line(text: str) -> str:
    """The first line of an error's text, to be quoted inside a sentence."""
    return text.partition("\n")[0].rstrip(" .")


def said(reason: Exception) -> str:
    """An error's type and the first line of its text."""
    return first_line(f"{type(reason).__name__}: {reason}")


def unavailable(selector: str, version: str, reason: Exception) -> NoReturn:
    """Raise as the library is installed but cannot compute here; the error has the first line of its own reason."""
    raise BackendUnavailable(
        f"`backend` must be able to compute here; got {selector!r} ({version}): {said(reason)}. "
        "Mend that, or pass another backend, such as 'numpy'."
    ) from reason


def no_device(name: str, device: str, known: Sequence[str]) -> NoReturn:
    """Raise as the library has no such device; `known` are its devices."""
    raise ValueError(
        f"`backend` must name a device that exists; got '{name}:{device}' "
        f"(device {device}; {len(known)} available). Use {' or '.join(repr(f'{name}:{other}') for other in known)}."
    )
