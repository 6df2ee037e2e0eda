"""The file format of a network: safetensors with a JSON description. It holds no pickle, import path or code."""

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
from dlx.host import HostArray

NamedArrays = Mapping[str, HostArray]
FORMAT = 1
KEY = "dlx"  # the only metadata entry: the order of several, and so the bytes, could vary
BROKEN = (AttributeError, LookupError, TypeError, ValueError, ArithmeticError, RecursionError)  # by bad files
DTYPES = {"U64": "<u8", "I64": "<i8", "F64": "<f8", "F32": "<f4", "U32": "<u4", "I32": "<i4"}  # by width, as in files
DTYPES |= {"F16": "<f2", "U16": "<u2", "I16": "<i2", "I8": "|i1", "U8": "|u1", "BOOL": "|b1"}
DTYPE_NAMES = {code: name for name, code in DTYPES.items()}
MOST_BYTES = 1 << 23  # of a header; long data belong in tensors
MOST_AXES = 8
MOST_PARTS = 1 << 18  # of a JSON text; a part may take a hundred bytes of memory


class FileError(ValueError):
    """A file that is not a network of dlx, or a damaged one; the text names the file and says what is wrong."""


class FormatError(FileError):
    """A file in another format than that of this dlx, which may be intact."""


class Tensor(NamedTuple):
    """A tensor as a header describes it. Its bytes are counted from the end of the header."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int = 0
    stop: int = 0


Layout = Mapping[str, tuple[Any, tuple[int, ...]]]  # dtype and shape by the name of the tensor


def write(path: Target, description: Mapping[str, Any], arrays: NamedArrays) -> None:
    """Write `arrays` and their `description` to a stream, or to a file, which is replaced when all is on the disk."""
    streams.put(path, *parts_of(description, arrays))


def parts_of(description: Mapping[str, Any], arrays: NamedArrays) -> list[bytes | memoryview]:
    """The content of the file: the header, then each array's memory, uncopied if contiguous.

    Equal contents give equal bytes, which are those that the safetensors library writes. That library copies everything
    once more, and its version 0.8 writes wrong numbers for arrays that are not contiguous.
    """
    contiguous = {name: np.asarray(array, array.dtype.newbyteorder("<"), order="C") for name, array in arrays.items()}
    entries = {"format": FORMAT, **description}
    header: dict[str, Any] = {"__metadata__": {KEY: _text({**entries, "sha256": _digest(entries, contiguous)})}}
    end = 0
    order = list(DTYPE_NAMES)  # the widest dtypes first, so that all arrays are aligned
    ordered = sorted(contiguous.items(), key=lambda item: (order.index(item[1].dtype.str), item[0]))
    for name, array in ordered:
        offsets = [end, end := end + array.nbytes]
        header[name] = {"dtype": DTYPE_NAMES[array.dtype.str], "shape": list(array.shape), "data_offsets": offsets}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MOST_BYTES or _count_parts(text) > MOST_PARTS:
        rule, got = f"hold a description of at most {MOST_BYTES} bytes and {MOST_PARTS} parts", f"{len(text)} bytes"
        checks.reject("path", rule, got, "Use fewer layers, or fewer and shorter labels.")
    return [len(text).to_bytes(8, "little") + text, *(_octets(array) for _, array in ordered)]


def read(path: Source, layout: Callable[[dict[str, Any]], Layout]) -> tuple[dict[str, Any], dict[str, HostArray]]:
    """The description and the arrays that `write` wrote, with their checksum verified.

    `layout` returns the names, dtypes and shapes that a description promises. Memory for arrays is only allocated
    after the header agrees with them and fills the file exactly. A stream is read from its position to its end.
    """
    with _opened(path) as (file, size), file_errors(path):
        text, tensors, end = _header(file, size)
        description = _parsed(text)
        canonical = _text(description)
        file_format = description.pop("format")
        if file_format != FORMAT and not _is_ours(file, size, description, tensors, end):
            got = f"{streams.display_name(path)} of format {truncated(json.dumps(file_format), 80)}"
            raise FormatError(f"`path` must have format {FORMAT}; got {got}. Update dlx to read it.")
        if file_format != FORMAT or canonical != text:
            raise ValueError("a description that dlx has not written")
        promised = description.pop("sha256")
        require_layout(layout(description), tensors)
        arrays = _payload(file, size, tensors, end)
        if promised != _digest({"format": FORMAT, **description}, arrays):
            got = f"{streams.display_name(path)}, whose checksum differs"
            raise FileError(f"`path` must hold what dlx wrote; got {got}. Copy it again.")
    return description, arrays


def as_read(description: Mapping[str, Any]) -> dict[str, Any]:
    """The description as `read` will return it."""
    return _parsed(_text(description))


def require_layout(promised: Layout, tensors: Mapping[str, Any]) -> None:
    """Raise if tensors, or arrays, differ in name, dtype or shape from those that a description promises."""
    expected = {name: (np.dtype(dtype), tuple(shape)) for name, (dtype, shape) in promised.items()}
    actual = {name: (tensor.dtype.newbyteorder("="), tuple(tensor.shape)) for name, tensor in tensors.items()}
    if expected == actual:
        return
    name = min(name for name in expected | actual if expected.get(name) != actual.get(name))
    raise ValueError(f"tensors of other names, dtypes or shapes than it describes: {escaped(truncated(name, 40))}")


@contextmanager
def file_errors(path: Source) -> Iterator[None]:
    """Turn errors about the content of the file into a `FileError` that names the file."""
    try:
        yield
    except FileError:
        raise
    except BROKEN as reason:
        what = escaped(truncated(f"{type(reason).__name__}: {reason}".rstrip(". "), 300))
        raise FileError(
            f"`path` must be a file that dlx saved, and whole; got {streams.display_name(path)} ({what}). "
            "Save it again, or read it with safetensors."
        ) from reason


def truncated(text: str, most: int) -> str:
    """The text, cut to `most` characters, with an ellipsis at its end if any are missing."""
    return text if len(text) <= most else text[: most - 3] + "..."


def escaped(text: str) -> str:
    """The text in ASCII, without control characters, which the maker of a file may have put there for a terminal."""
    return text.encode("unicode_escape").decode()


@contextmanager
def _opened(path: Source) -> Iterator[tuple[BinaryIO, int | None]]:
    """The open file or stream, and its size, or None for a stream.

    Errors of the operating system are raised as OSError. A pipe or a device is refused, as it might never end.
    """
    streams.require_source(path, "net.safetensors")
    if not isinstance(path, str | bytes | os.PathLike):
        yield streams.reader(path), None
        return
    kind = os.stat(path).st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        remedy = "Save to a file, and load that."
        raise FileError(f"`path` must be a file; got {streams.display_name(path)}, a device or pipe. {remedy}")
    with open(path, "rb") as file:
        yield file, os.fstat(file.fileno()).st_size


def _header(file: BinaryIO, size: int | None) -> tuple[str, dict[str, Tensor], int]:
    """The text of the description, the tensors, and their size in bytes, checked against the size of the file."""
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
    for tensor in sorted(tensors.values(), key=lambda tensor: tensor[2:]):
        if tensor.start != end:
            raise ValueError("tensors that overlap or leave holes")
        end = tensor.stop
    if size is not None and end != size - 8 - length:
        raise ValueError(f"{size - 8 - length} bytes instead of {end}")
    return metadata[KEY], tensors, end


def _tensor(dtype: str, shape: list[int], data_offsets: list[int]) -> Tensor:
    """A tensor from its entry in a header, checked."""
    kind, (start, stop) = np.dtype(DTYPES[dtype]), data_offsets
    if any(type(number) is not int or number < 0 for number in (*shape, start, stop)):
        raise TypeError(f"shape {shape} and place {data_offsets}")
    if len(shape) > MOST_AXES or any(length >= 1 << 63 for length in shape):
        raise ValueError("a shape beyond any memory")
    if math.prod(shape) * kind.itemsize != stop - start:
        raise ValueError(f"{stop - start} bytes for shape {shape} of {dtype}")
    return Tensor(kind, tuple(shape), start, stop)


def _payload(file: BinaryIO, size: int | None, tensors: Mapping[str, Tensor], end: int) -> dict[str, HostArray]:
    """The arrays, as views of one block of memory."""
    block = _rest_of(file, end) if size is None else np.empty(end, np.uint8)
    if size is not None and file.readinto(block.data) != end:  # type: ignore[attr-defined]
        raise ValueError("a file that was cut while it was read")
    return {name: block[start:stop].view(dtype).reshape(shape) for name, (dtype, shape, start, stop) in tensors.items()}


def _rest_of(stream: BinaryIO, end: int) -> HostArray:
    """The rest of a stream, which must be `end` bytes long. Memory is allocated for bytes as they arrive."""
    content = bytearray()
    while len(content) < end and (piece := stream.read(min(streams.AT_ONCE, end - len(content)))):
        content += piece
    if len(content) != end:
        raise ValueError(f"{len(content)} bytes instead of {end}")
    if stream.read(1):
        raise ValueError(f"more than {end} bytes")
    return np.frombuffer(content, np.uint8)


def _text(description: Mapping[str, Any]) -> str:
    """The canonical JSON text of a description."""
    return json.dumps(description, sort_keys=True, allow_nan=False)


def _parsed(text: str) -> dict[str, Any]:
    """A JSON object, in which no name may occur twice."""
    if _count_parts(text.encode()) > MOST_PARTS:
        raise ValueError("a description of too many parts")

    def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entries = dict(pairs)
        if len(entries) != len(pairs):
            raise ValueError("a name that is there twice")
        return entries

    value = json.loads(text, object_pairs_hook=without_repeats)
    if not isinstance(value, dict):
        raise TypeError(f"a {type(value).__name__} instead of an object")
    return value


def _count_parts(text: bytes) -> int:
    """An upper bound for the number of values in a JSON text."""
    return sum(text.count(mark) for mark in (b",", b"[", b"{"))


def _digest(entries: Mapping[str, Any], arrays: NamedArrays) -> str:
    """The SHA-256 of the description and of every array's name, dtype, shape and bytes.

    It detects a flipped bit, which safetensors does not.
    """
    digest = hashlib.sha256(_text(entries).encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        digest.update(_octets(array))
    return digest.hexdigest()


def _is_ours(
    file: BinaryIO, size: int | None, description: Mapping[str, Any], tensors: Mapping[str, Tensor], end: int
) -> bool:
    """Whether the checksum is correct for this format, so that only the number of the format is damaged."""
    rest = {name: entry for name, entry in description.items() if name != "sha256"}
    return description.get("sha256") == _digest({"format": FORMAT, **rest}, _payload(file, size, tensors, end))


def _octets(array: HostArray) -> memoryview:
    """The bytes of a contiguous array."""
    return array.reshape(-1).view(np.uint8).data
