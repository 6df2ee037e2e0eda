"""Ctrl-C and SIGTERM wait for the end of an update, so that none is left half done."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import traceback
from collections.abc import Iterator
from typing import Any

DEFAULT_HANDLERS: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


@contextlib.contextmanager
def deferred(*signals: int) -> Iterator[list[int]]:
    """Collect these signals in a list while the work goes on, so that no layer is left an update ahead of another.

    SIGTERM ends the process once the work is done or has failed. A second signal acts at once: Ctrl-C raises
    KeyboardInterrupt, SIGTERM ends the process. A signal is deferred only if the handler of Python or of the system is
    in place, and only in the main thread, because Python allows no other thread to set handlers.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    deferrable = [number for number in signals if signal.getsignal(number) is DEFAULT_HANDLERS[number]]
    process = os.getpid()

    def note(number: int, _: Any) -> None:
        if received or os.getpid() != process:  # in a forked child nobody reads the list
            signal.signal(number, DEFAULT_HANDLERS[number])
            signal.raise_signal(number)
        received.append(number)

    for number in deferrable:
        signal.signal(number, note)
    try:
        yield received
    except Exception:
        if signal.SIGTERM in received:
            traceback.print_exc()  # the signal ends the process before the error is shown
        raise
    finally:
        for number in deferrable:
            if signal.getsignal(number) is note:  # a callback may have set another handler, which stays
                signal.signal(number, DEFAULT_HANDLERS[number])
        if signal.SIGTERM in received:
            signal.raise_signal(signal.SIGTERM)
