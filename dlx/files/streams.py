"""Files and binary streams, which networks are written to and read from."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from typing import Any, BinaryIO, Protocol

from dlx import checks
from dlx.files import atomic
from dlx.files.atomic import AnyPath

AT_ONCE = 1 << 20  # bytes
NOT_YET = 0.01  # seconds until a non-blocking stream is tried again


class Writable(Protocol):
    """A binary stream to write to. A raw stream may take only some of the bytes."""

    def write(self, content: bytes, /) -> Any:
        """Write the first of these bytes, and return how many were written."""


class Readable(Protocol):
    """A binary stream to read, from its position to its end, without seeking."""

    def read(self, size: int, /) -> Any:
        """At most `size` bytes; no bytes at the end."""


Target = AnyPath | Writable
Source = AnyPath | Readable


def is_path(target: object) -> bool:
    """Whether `target` is a path. This is asked first, as some path objects have a method write, too."""
    return isinstance(target, str | bytes | os.PathLike)


def require_target(target: object, example: str) -> None:
    """Raise if `target` is neither a path nor a writable binary stream. `open` would take a number for an open file."""
    _require(target, "write", "writable", "wb", example)


def require_source(source: object, example: str) -> None:
    """Raise if `source` is neither a path nor a readable binary stream."""
    if isinstance(source, bytes | bytearray | memoryview) and (not isinstance(source, bytes) or b"\0" in source):
        got, remedy = "the content of one", "Pass io.BytesIO(data)."
        checks.reject("path", "be the path of a file, or a binary stream", got, remedy, TypeError)
    _require(source, "read", "readable", "rb", example)


def _require(stream: object, method: str, able: str, mode: str, example: str) -> None:
    """Raise if `stream` is neither a path nor an open binary stream with this method, which is `able` to use it."""
    if is_path(stream):
        if "\0" in os.fsdecode(stream):  # type: ignore[arg-type]
            checks.reject("path", "be a name without NULs", repr(os.fsdecode(stream)), "Choose another.")  # type: ignore[arg-type]
        return
    if not callable(getattr(stream, method, None)) or isinstance(stream, type):
        rule = "be the path of a file, or a binary stream"
        checks.reject("path", rule, checks.shown(stream), f"For example {example!r}.", TypeError)
    kind = type(stream).__name__
    if isinstance(stream, io.TextIOBase) or getattr(stream, "encoding", None) is not None:
        remedy = f"Open the file in mode {mode!r}, or use io.BytesIO."
        checks.reject(
            "path", "be the path of a file, or a binary stream", f"a {kind}, which holds text", remedy, TypeError
        )
    if getattr(stream, "closed", False) is True:
        checks.reject("path", "be an open stream", f"a {kind} that is closed", "Open it again.")
    try:
        is_able = getattr(stream, able, lambda: True)()
    except Exception:  # the class uses this name for something else
        return
    if is_able is False:
        remedy = f"Open the file in mode {mode!r}."
        checks.reject("path", f"be a stream that is {able}", f"a {kind} that is not", remedy)


def display_name(target: Any) -> str:
    """The path, or "the stream", as errors name it."""
    return os.fsdecode(target) if is_path(target) else "the stream"


def put(target: Any, *content: bytes | memoryview) -> None:
    """Replace a file by the content, or write the content to a stream at its position.

    Errors of a stream are passed on, and what was written before them stays written.
    """
    if is_path(target):
        atomic.replace(target, *content)
        return
    for part in content:
        rest = memoryview(part)
        while rest:
            rest = rest[_write_some(target, bytes(rest[:AT_ONCE])) :]


def _write_some(stream: Writable, content: bytes) -> int:
    """Write the first of these bytes, and return how many: 0 if a non-blocking stream is busy."""
    try:
        count = stream.write(content)
    except BlockingIOError as reason:
        count = reason.characters_written
    else:
        if count is None and isinstance(stream, io.RawIOBase):
            count = 0
        elif isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= len(content):
            return len(content)  # a stream that does not derive from Python's may return anything
    if count == 0:
        time.sleep(NOT_YET)
    return count


def reader(stream: Readable) -> BinaryIO:
    """A buffered reader of the stream from its position, whose reads return all bytes that are asked for."""
    return io.BufferedReader(_Raw(stream.read), AT_ONCE)


class _Raw(io.RawIOBase):
    """A readable stream as the raw stream that Python's buffered reader needs. Closing it leaves the stream open."""

    def __init__(self, read: Callable[[int], Any]) -> None:
        self._read = read

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        """Read as many bytes as are there at once; 0 at the end."""
        try:
            while (content := self._read(len(into))) is None:
                time.sleep(NOT_YET)
        except (OSError, MemoryError):
            raise
        except Exception as reason:  # gzip, zipfile and lzma have their own errors for damaged content
            raise ValueError(f"{type(reason).__name__}: {reason}") from reason
        if not isinstance(content, bytes | bytearray | memoryview):
            raise TypeError(f"a stream that gives {type(content).__name__} instead of bytes")
        into[: len(content)] = content
        return len(content)
