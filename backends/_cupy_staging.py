"""Bring arrays from the host to a CUDA device while it computes.

What shaped this file:

- Only memory that the system keeps in its place ("pinned") is copied while the host and the device go on.
- The copies have a stream of their own. A computation waits for the copy of its own array, and a copy waits for the
  computation that used the same memory.
- Two arrays in turn are enough: one is filled and copied while the device computes with the other.
- One core gathers rows more slowly than a device takes them. So threads fill the next array while Python asks for the
  computation with this one, and share it out if it is large.
- The two take turns, so that a CUDA graph, whose addresses are fixed, reads a copy of each batch on the device.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import cupy
import numpy as np

from dlx.backend import Array, HostArray

HOST_THREADS = min(4, os.cpu_count() or 1)
BYTES_OF_ONE_THREAD = 1 << 20  # so few are filled by one thread


class Slot:
    """An array on the device, pinned memory of the same size, and the end of the last copy between them."""

    def __init__(self, shape: tuple[int, ...], dtype: str) -> None:
        self.array = cupy.empty(shape, dtype)
        self.pinned = cupy.cuda.alloc_pinned_memory(self.array.nbytes)
        self.host: HostArray = np.frombuffer(self.pinned, self.array.dtype, self.array.size).reshape(shape)
        self.copied = cupy.cuda.Event(disable_timing=True)


class Staging:
    """Brings arrays to the device, one after another; see `Backend.staging`."""

    def __init__(self) -> None:
        self.stream = cupy.cuda.Stream(non_blocking=True)
        self.threads = ThreadPoolExecutor(HOST_THREADS)  # they are started when they are first needed
        self.turns: dict[Any, itertools.cycle[Slot]] = {}
        self.before: Any = None  # where the computation was at the last call

    def __call__(
        self, fill: Callable[[HostArray, slice], Any], shape: tuple[int, ...], dtype: str
    ) -> Callable[[], Array]:
        computing = cupy.cuda.get_current_stream()
        if (shape, dtype) not in self.turns:
            self.turns[shape, dtype] = itertools.cycle([Slot(shape, dtype), Slot(shape, dtype)])
            self.before = computing.record(cupy.cuda.Event(disable_timing=True))  # their memory may still be in use
        slot = next(self.turns[shape, dtype])
        if not slot.copied.done:
            slot.copied.synchronize()
        parts = self.begin(slot.host, fill)

        def bring() -> Array:
            for part in parts:
                part.result()
            self.stream.wait_event(self.before)  # what reads this array was asked for before the last one was brought
            self.before = computing.record(cupy.cuda.Event(disable_timing=True))
            slot.array.data.copy_from_host_async(slot.pinned.ptr, slot.array.nbytes, self.stream)
            computing.wait_event(self.stream.record(slot.copied))
            return slot.array

        return bring

    def begin(self, host: HostArray, fill: Callable[[HostArray, slice], Any]) -> list[Future[Any]]:
        """Begin to fill the array, shared out among threads if it is large."""
        at_once = -(-len(host) // HOST_THREADS) if host.nbytes >= BYTES_OF_ONE_THREAD else len(host)
        return [
            self.threads.submit(fill, host, slice(first, first + at_once)) for first in range(0, len(host), at_once)
        ]
