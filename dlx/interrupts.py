"""Ctrl-C between updates, not within one."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def held() -> Iterator[list[bool]]:
    """Ctrl-C fills the list in place of raising, so that no layer is left an update ahead of another; twice raises.

    Only where Python would raise KeyboardInterrupt: in the main thread, with its own handler.
    """
    pressed: list[bool] = []
    own = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not own or threading.current_thread() is not threading.main_thread():
        yield pressed
        return

    def note(*_: Any) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(True)

    signal.signal(signal.SIGINT, note)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
