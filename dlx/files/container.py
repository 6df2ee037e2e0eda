"""One file for a network: safetensors with a JSON description. No pickle, no import path, no code."""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from dlx import checks
from dlx.files import streams
from dlx.files.streams import Source, Target

Arrays = Mapping[str, np.ndarray[Any, Any]]
FORMAT = 1
KEY = "dlx"  # the one metadata entry: with several, their order and so the bytes would vary
BROKEN = (AttributeError, LookupError, TypeError, ValueError, ArithmeticError, RecursionError)  # what a bad file raises
DTYPES = {"U64": "<u8", "I64": "<i8", "F64": "<f8", "F32": "<f4", "U32": "<u4", "I32": "<i4"}  # in the order of files
DTYPES |= {"F16": "<f2", "U16": "<u2", "I16": "<i2", "I8": "|i1", "U8": "|u1", "BOOL": "|b1"}
NAMES = {code: name for name, code in DTYPES.items()}
MOST_BYTES = 1 << 23  # of a header: what is long is a tensor
MOST_AXES = 8
MOST_PARTS = 1 << 18  # of a JSON text, each of which may take a hundred bytes of memory


class FileError(ValueError):
    """A file that is not a network of dlx, or not a whole one; the text names the file and what is wrong."""


class FormatError(FileError):
    """A file of another format than this dlx's, and perhaps a good one."""


class Tensor(NamedTuple):
    """A tensor as a header describes it, its bytes counted from the header's end."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int = 0
    stop: int = 0


Layout = Mapping[str, tuple[Any, tuple[int, ...]]]  # by name: dtype and shape


def write(path: Target, description: Mapping[str, Any], arrays: Arrays) -> None:
    """Write `arrays` and their `description` to a stream, or to a file that is replaced when all is on the disk."""
    streams.put(path, *parts_of(description, arrays))


def parts_of(description: Mapping[str, Any], arrays: Arrays) -> list[bytes | memoryview]:
    """The file: its header, then the arrays' own memory where it lies in order. Equal for equal contents.

    Byte for byte what the safetensors library writes, which copies all of it once more, and in 0.8 writes other
    numbers for arrays that are not contiguous.
    """
    contiguous = {name: np.asarray(array, array.dtype.newbyteorder("<"), order="C") for name, array in arrays.items()}
    entries = {"format": FORMAT, **description}
    header: dict[str, Any] = {"__metadata__": {KEY: _text({**entries, "sha256": _digest(entries, contiguous)})}}
    end = 0
    place = list(NAMES)  # the widest first, so that all are aligned
    ordered = sorted(contiguous.items(), key=lambda item: (place.index(item[1].dtype.str), item[0]))
    for name, array in ordered:
        offsets = [end, end := end + array.nbytes]
        header[name] = {"dtype": NAMES[array.dtype.str], "shape": list(array.shape), "data_offsets": offsets}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MOST_BYTES or _parts(text) > MOST_PARTS:
        rule, got = f"hold a description of at most {MOST_BYTES} bytes and {MOST_PARTS} parts", f"{len(text)} bytes"
        checks.reject("path", rule, got, "Use fewer layers, or fewer and shorter labels.")
    return [len(text).to_bytes(8, "little") + text, *(_octets(array) for _, array in ordered)]


def read(
    path: Source, layout: Callable[[dict[str, Any]], Layout]
) -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
    """The description and the arrays that `write` put there, unharmed.

    `layout` gives the dtypes and shapes that a description promises. Nothing is allocated for arrays before those of
    the file agree with it, and fill the file to its last byte. A stream is read from where it stands to its end.
    """
    with _opened(path) as (file, size), whole(path):
        text, tensors, end = _header(file, size)
        description = _parsed(text)
        canonical = _text(description)
        found = description.pop("format")
        if found != FORMAT and not _is_ours(file, size, description, tensors, end):
            got = f"{streams.shown(path)} of format {shortened(json.dumps(found), 80)}"
            raise FormatError(f"`path` must have format {FORMAT}; got {got}. Update dlx to read it.")
        if found != FORMAT or canonical != text:
            raise ValueError("a description that dlx has not written")
        promised = description.pop("sha256")
        require_layout(layout(description), tensors)
        arrays = _payload(file, size, tensors, end)
        if promised != _digest({"format": FORMAT, **description}, arrays):
            got = f"{streams.shown(path)}, whose checksum differs"
            raise FileError(f"`path` must hold what dlx wrote; got {got}. Copy it again.")
    return description, arrays


def as_read(description: Mapping[str, Any]) -> dict[str, Any]:
    """The description as `read` will give it."""
    return _parsed(_text(description))


def require_layout(promised: Layout, tensors: Mapping[str, Any]) -> None:
    """Raise where tensors, or arrays, have other names, dtypes or shapes than a description promises."""
    expected = {name: (np.dtype(dtype), tuple(shape)) for name, (dtype, shape) in promised.items()}
    found = {name: (each.dtype.newbyteorder("="), tuple(each.shape)) for name, each in tensors.items()}
    if expected == found:
        return
    name = min(name for name in expected | found if expected.get(name) != found.get(name))
    raise ValueError(f"tensors of other names, dtypes or shapes than it describes: {escaped(shortened(name, 40))}")


@contextmanager
def whole(path: Source) -> Iterator[None]:
    """Whatever is wrong with what is done to the file's content becomes a `FileError`."""
    try:
        yield
    except FileError:
        raise
    except BROKEN as reason:
        shown = escaped(shortened(f"{type(reason).__name__}: {reason}".rstrip(". "), 300))
        raise FileError(
            f"`path` must be a file that dlx saved, and whole; got {streams.shown(path)} ({shown}). "
            "Save it again, or read it with safetensors."
        ) from reason


def shortened(text: str, most: int) -> str:
    """As much of the text as can be read at a glance."""
    return text if len(text) <= most else text[: most - 3] + "..."


def escaped(text: str) -> str:
    """In ASCII, and without what a terminal would obey: whoever made the file chose it."""
    return text.encode("unicode_escape").decode()


@contextmanager
def _opened(path: Source) -> Iterator[tuple[BinaryIO, int | None]]:
    """What is read, and its size, where that is known.

    What the system refuses is an OSError and no fault of the file's; a pipe or a device would never end.
    """
    streams.require_source(path, "net.safetensors")
    if not isinstance(path, str | bytes | os.PathLike):
        yield streams.reader(path), None
        return
    kind = os.stat(path).st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        remedy = "Save to a file, and load that."
        raise FileError(f"`path` must be a file; got {streams.shown(path)}, a device or pipe. {remedy}")
    with open(path, "rb") as file:
        yield file, os.fstat(file.fileno()).st_size


def _header(file: BinaryIO, size: int | None) -> tuple[str, dict[str, Tensor], int]:
    """The description's text, the tensors, and how many bytes these are; checked against the file's size."""
    start = file.read(8)
    if size is None and not start:
        rule, got = "be a file that dlx saved, and whole", "the stream, which is at its end"
        raise FileError(f"`path` must {rule}; got {got}. Go back to its beginning: seek(0).")
    length = int.from_bytes(start, "little")
    if not 2 <= length <= (MOST_BYTES if size is None else min(MOST_BYTES, size - 8)):
        raise ValueError(f"a header of {length} bytes{'' if size is None else f' in a file of {size}'}")
    header = _parsed(file.read(length).decode())
    metadata = header.pop("__metadata__")
    if sorted(metadata) != [KEY] or not isinstance(metadata[KEY], str):
        raise KeyError("other metadata")
    tensors = {name: _tensor(**entry) for name, entry in header.items()}
    end = 0
    for tensor in sorted(tensors.values(), key=lambda each: each[2:]):
        if tensor.start != end:
            raise ValueError("tensors that overlap or leave holes")
        end = tensor.stop
    if size is not None and end != size - 8 - length:
        raise ValueError(f"{size - 8 - length} bytes instead of {end}")
    return metadata[KEY], tensors, end


def _tensor(dtype: str, shape: list[int], data_offsets: list[int]) -> Tensor:
    found, (start, stop) = np.dtype(DTYPES[dtype]), data_offsets
    if any(type(each) is not int or each < 0 for each in (*shape, start, stop)):
        raise TypeError(f"shape {shape} and place {data_offsets}")
    if len(shape) > MOST_AXES or any(each >= 1 << 63 for each in shape):
        raise ValueError("a shape beyond any memory")
    if math.prod(shape) * found.itemsize != stop - start:
        raise ValueError(f"{stop - start} bytes for shape {shape} of {dtype}")
    return Tensor(found, tuple(shape), start, stop)


def _payload(
    file: BinaryIO, size: int | None, tensors: Mapping[str, Tensor], end: int
) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays, as views of one block of memory."""
    block = _arrived(file, end) if size is None else np.empty(end, np.uint8)
    if size is not None and file.readinto(block.data) != end:  # type: ignore[attr-defined]
        raise ValueError("a file that was cut while it was read")
    return {name: block[start:stop].view(dtype).reshape(shape) for name, (dtype, shape, start, stop) in tensors.items()}


def _arrived(stream: BinaryIO, end: int) -> np.ndarray[Any, Any]:
    """All that a stream holds, which must be so many bytes; memory is taken for what has come, not for a promise."""
    content = bytearray()
    while len(content) < end and (some := stream.read(min(streams.AT_ONCE, end - len(content)))):
        content += some
    if len(content) != end:
        raise ValueError(f"{len(content)} bytes instead of {end}")
    if stream.read(1):
        raise ValueError(f"more than {end} bytes")
    return np.frombuffer(content, np.uint8)


def _text(description: Mapping[str, Any]) -> str:
    return json.dumps(description, sort_keys=True, allow_nan=False)


def _parsed(text: str) -> dict[str, Any]:
    """A JSON object that names nothing twice."""
    if _parts(text.encode()) > MOST_PARTS:
        raise ValueError("a description of too many parts")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a name that is there twice")
        return found

    found = json.loads(text, object_pairs_hook=once)
    if not isinstance(found, dict):
        raise TypeError(f"a {type(found).__name__} instead of an object")
    return found


def _parts(text: bytes) -> int:
    return sum(text.count(each) for each in (b",", b"[", b"{"))


def _digest(entries: Mapping[str, Any], arrays: Arrays) -> str:
    """Of the description and every array's name, dtype, shape and bytes: safetensors notices no flipped bit."""
    found = hashlib.sha256(_text(entries).encode())
    for name in sorted(arrays):
        array = arrays[name]
        found.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        found.update(_octets(array))
    return found.hexdigest()


def _is_ours(
    file: BinaryIO, size: int | None, description: Mapping[str, Any], tensors: Mapping[str, Tensor], end: int
) -> bool:
    """Whether the checksum is that of this format, so that its number alone is damaged."""
    rest = {name: each for name, each in description.items() if name != "sha256"}
    return description.get("sha256") == _digest({"format": FORMAT, **rest}, _payload(file, size, tensors, end))


def _octets(array: np.ndarray[Any, Any]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data
