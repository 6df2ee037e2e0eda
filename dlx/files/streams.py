"""Files and binary streams: where a network is written to and read from."""

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
NOT_YET = 0.01  # seconds until a stream that does not block is asked again


class Writable(Protocol):
    """A binary stream that is written to; a raw one takes as many bytes as it likes."""

    def write(self, content: bytes, /) -> Any:
        """Take the first of these bytes, and say how many."""


class Readable(Protocol):
    """A binary stream that is read, from where it stands to its end; nobody seeks in it."""

    def read(self, size: int, /) -> Any:
        """At most so many bytes, none at the end."""


Target = AnyPath | Writable
Source = AnyPath | Readable


def is_path(target: object) -> bool:
    """Whether it names a file; some paths can write, too."""
    return isinstance(target, str | bytes | os.PathLike)


def require_target(target: object, example: str) -> None:
    """Raise where it is neither a path nor a binary stream that takes bytes: a number would be an open file's."""
    _require(target, "write", "writable", "wb", example)


def require_source(source: object, example: str) -> None:
    """Raise where it is neither a path nor a binary stream that gives bytes."""
    if isinstance(source, bytes | bytearray | memoryview) and (not isinstance(source, bytes) or b"\0" in source):
        got, remedy = "the content of one", "Pass io.BytesIO(data)."
        checks.reject("path", "be the path of a file, or a binary stream", got, remedy, TypeError)
    _require(source, "read", "readable", "rb", example)


def _require(stream: object, method: str, able: str, mode: str, example: str) -> None:
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
    except Exception:  # an attribute of the same name, in a class that promises no such method
        return
    if is_able is False:
        remedy = f"Open the file in mode {mode!r}."
        checks.reject("path", f"be a stream that is {able}", f"a {kind} that is not", remedy)


def shown(target: Any) -> str:
    """What an error calls it."""
    return os.fsdecode(target) if is_path(target) else "the stream"


def put(target: Any, *content: bytes | memoryview) -> None:
    """Write all of the content: to a file that it replaces, or to a stream from where that stands.

    A stream's own errors are passed on, and what it took before them stays taken.
    """
    if is_path(target):
        atomic.replace(target, *content)
        return
    for part in content:
        left = memoryview(part)
        while left:
            left = left[_taken(target, bytes(left[:AT_ONCE])) :]


def _taken(stream: Writable, content: bytes) -> int:
    """How many of these bytes the stream took; one that does not block may take none for a while."""
    try:
        count = stream.write(content)
    except BlockingIOError as reason:
        count = reason.characters_written
    else:
        if count is None and isinstance(stream, io.RawIOBase):
            count = 0
        elif isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= len(content):
            return len(content)  # what is no stream of Python's may return anything
    if count == 0:
        time.sleep(NOT_YET)
    return count


def reader(stream: Readable) -> BinaryIO:
    """The stream's bytes from where it stands, which come by as many as are asked for; it stays open."""
    return io.BufferedReader(_Raw(stream.read), AT_ONCE)


class _Raw(io.RawIOBase):
    """The reading of a stream as Python's own buffers need it; the stream stays open."""

    def __init__(self, read: Callable[[int], Any]) -> None:
        self._read = read

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        """As many bytes as there are at once, none at the end."""
        try:
            while (content := self._read(len(into))) is None:
                time.sleep(NOT_YET)
        except (OSError, MemoryError):
            raise
        except Exception as reason:  # gzip, zipfile, lzma: each has its own for what is cut or damaged
            raise ValueError(f"{type(reason).__name__}: {reason}") from reason
        if not isinstance(content, bytes | bytearray | memoryview):
            raise TypeError(f"a stream that gives {type(content).__name__} instead of bytes")
        into[: len(content)] = content
        return len(content)
