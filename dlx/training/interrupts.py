"""Ctrl-C and SIGTERM between updates, not within one."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import traceback
from collections.abc import Iterator
from typing import Any

DEFAULTS: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


@contextlib.contextmanager
def held(*signals: int) -> Iterator[list[int]]:
    """Those signals fill the list in place of ending the work, so that no layer is left an update ahead of another.

    SIGTERM ends the process when the work is done, or has failed. A second one ends it at once, Ctrl-C by
    KeyboardInterrupt. Only those are held for which Python's or the system's own handler is in place, and only in the
    main thread, which alone may do so.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    own = [number for number in signals if signal.getsignal(number) is DEFAULTS[number]]

    process = os.getpid()

    def note(number: int, _: Any) -> None:
        if received or os.getpid() != process:  # in a forked child nobody looks at the list
            signal.signal(number, DEFAULTS[number])
            signal.raise_signal(number)
        received.append(number)

    for number in own:
        signal.signal(number, note)
    try:
        yield received
    except Exception:
        if signal.SIGTERM in received:
            traceback.print_exc()  # the signal ends the process before anybody else says so
        raise
    finally:
        for number in own:
            if signal.getsignal(number) is note:  # and not one that a callback has set
                signal.signal(number, DEFAULTS[number])
        if signal.SIGTERM in received:
            signal.raise_signal(signal.SIGTERM)
