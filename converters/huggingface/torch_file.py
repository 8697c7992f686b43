"""PyTorch's weight files: where tensors lie, in zips (torch 1.6 on) and older files."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

from edgellm.checkpoint.safetensors_file import DTYPE_BYTES, MAX_RANK, TensorInfo
from edgellm.converters.huggingface.unpickler import (
    MAX_TEXT_BYTES,
    PickledTensor,
    Storage,
    read_pickle,
)
from edgellm.converters.tensors.file_rows import read_span
from edgellm.converters.tensors.source import Bytes
from edgellm.errors import FormatError
from edgellm.files.bounded import (
    LFS_MARK,
    read_errors,
    refuse_lfs_pointer,
    require_regular_file,
)
from edgellm.files.strict_json import quoted

STORAGE_DTYPES: Final[Mapping[str, str]] = {
    "BFloat16Storage": "BF16",
    "HalfStorage": "F16",
    "FloatStorage": "F32",
    "DoubleStorage": "F64",
    "BoolStorage": "BOOL",
    "ByteStorage": "U8",
    "CharStorage": "I8",
    "ShortStorage": "I16",
    "IntStorage": "I32",
    "LongStorage": "I64",
}

ZIP_MAGIC = b"PK\x03\x04"
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""The first pickle of the older layout."""

MAX_DIRECTORY_BYTES = 4 << 20
MAX_REPEATED_BYTES = 1 << 20
"""Of a view that says numbers of its storage again and again, where its file is smaller."""

ZIP64 = 0xFFFFFFFF
END = struct.Struct("<4s4H2IH")
LOCATOR64 = struct.Struct("<4sIQI")
END64 = struct.Struct("<4sQ2H2I4Q")
ENTRY = struct.Struct("<4s4x2H8x2I3H8xI")
"""A directory's entry: magic, flags, method, packed and plain size, three lengths, offset."""

LOCAL = struct.Struct("<4s5H3I2H")


@dataclass(frozen=True, slots=True)
class TorchTensor:
    """A tensor's place; ``strides`` in bytes, one an axis; None: contiguous."""

    info: TensorInfo
    strides: tuple[int, ...] | None


def read_torch_file(path: Path, *, member: str | None = None) -> dict[str, TorchTensor]:
    """Read the places of a PyTorch weight file's tensors, by name; nothing in it is run.

    Args:
        path: the file.
        member: the name under which the tensors may lie, beside an optimizer's and others, which
            are then left alone.

    Raises:
        FormatError: it is damaged, lies, or holds anything but tensors.
        ReadError: it cannot be read.
    """
    size = require_regular_file(path)
    try:
        with read_errors(path), path.open("rb") as file:
            head = file.read(len(LFS_MARK))
            refuse_lfs_pointer(path, head)
            zipped = head.startswith(ZIP_MAGIC)
            read = _read_zip if zipped else _read_legacy
            pickled, places = read(file, path, size)
    except struct.error as error:
        raise FormatError(f"{path} is cut short", hint="download it again") from error
    if isinstance(pickled, dict) and isinstance(pickled.get(member), dict):
        pickled = pickled[member]
    if not isinstance(pickled, dict):
        raise FormatError(f"{path} does not hold a dictionary of tensors")
    tensors = {}
    for name, tensor in pickled.items():
        if not isinstance(tensor, PickledTensor):
            raise FormatError(f"{path} holds {quoted(name)}, which is not a tensor")
        placed = _place(name, tensor, places, path)
        if placed.info.nbytes > max(size, MAX_REPEATED_BYTES):
            raise FormatError(
                f"tensor {quoted(name)} of {path} has {placed.info.nbytes} bytes, the file {size}: "
                "it repeats what little it holds",
                hint="use the model's safetensors files",
            )
        tensors[name] = placed
    return tensors


def read_rows(tensor: TorchTensor, start: int, stop: int) -> Bytes:
    """Read some rows of a tensor, gathered where it is a view with gaps. Raises ReadError."""
    info = tensor.info
    row_shape = info.shape[1:]
    width = DTYPE_BYTES[info.dtype]
    # rows of a contiguous tensor are one run of bytes
    if tensor.strides is None:
        row = math.prod(row_shape) * width
        return read_span(info.file, info.offset + start * row, (stop - start) * row)
    lengths = (stop - start, *row_shape)
    last = _last_place(lengths, tensor.strides)
    # from the first number to the last one, with what lies between; then only the view's own
    content = read_span(info.file, info.offset + start * tensor.strides[0], last + width)
    view = np.ndarray((*lengths, width), np.uint8, content, 0, (*tensor.strides, 1))
    return np.ascontiguousarray(view).reshape(-1)


def _place(
    name: str, tensor: PickledTensor, places: Mapping[str, tuple[int, int]], path: Path
) -> TorchTensor:
    """Return a tensor's place in the file, checked to lie within its storage."""
    where = f"tensor {quoted(name)} of {path}"
    dtype = STORAGE_DTYPES.get(tensor.storage.kind)
    if dtype is None:
        raise FormatError(f"{where} has the unknown type {quoted(tensor.storage.kind)}")
    if tensor.storage.key not in places or len(tensor.shape) > MAX_RANK:
        raise FormatError(f"{where} has no bytes, or an impossible shape")
    start, nbytes = places[tensor.storage.key]
    width = DTYPE_BYTES[dtype]
    empty = 0 in tensor.shape
    last = tensor.offset + _last_place(tensor.shape, tensor.strides)
    if tensor.storage.count * width > nbytes or (not empty and last >= tensor.storage.count):
        raise FormatError(f"{where} lies beyond the bytes it has")
    size = math.prod(tensor.shape) * width
    info = TensorInfo(name, dtype, tensor.shape, path, start + tensor.offset * width, size)
    plain, step = True, 1
    for length, stride in zip(reversed(tensor.shape), reversed(tensor.strides), strict=True):
        plain &= length == 1 or stride == step
        step *= length
    if plain or empty:
        return TorchTensor(info, None)
    # along an axis of one step a stride means nothing, and may be any number
    steps = zip(tensor.shape, tensor.strides, strict=True)
    return TorchTensor(info, tuple((length > 1) * stride * width for length, stride in steps))


def _last_place(shape: Sequence[int], strides: Sequence[int]) -> int:
    """Return how far the last number of a tensor lies behind its first, in units of the strides."""
    return sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))


def _read_zip(file: BinaryIO, path: Path, size: int) -> tuple[object, dict[str, tuple[int, int]]]:
    """Read the pickle's value, and (offset, bytes) of each storage by its key."""
    members = _zip_members(file, path, size)
    pickles = [name for name in members if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise FormatError(f"{path} is not a PyTorch weight file: it holds no data.pkl")
    prefix = pickles[0].removesuffix("data.pkl")
    byte_order = members.get(f"{prefix}byteorder")
    if byte_order is not None and _content(file, *byte_order) != b"little":
        raise FormatError(
            f"{path} was written on a big-endian machine", hint="use the model's safetensors files"
        )
    offset, length = members[pickles[0]]
    if length > MAX_TEXT_BYTES:
        raise FormatError(
            f"the pickle in {path} has {length} bytes; at most {MAX_TEXT_BYTES} are read"
        )
    value = read_pickle(BytesIO(_content(file, offset, length)), f"the pickle in {path}")
    data = f"{prefix}data/"
    return value, {
        name.removeprefix(data): place for name, place in members.items() if name.startswith(data)
    }


def _zip_members(file: BinaryIO, path: Path, size: int) -> dict[str, tuple[int, int]]:
    """Find (offset of the data, bytes) of each member of a zip file that packs none of them."""
    tail_length = min(size, END.size + 0xFFFF)
    tail = _content(file, size - tail_length, tail_length)
    at = tail.rfind(b"PK\x05\x06")  # a comment of up to 64 KiB may follow the end record
    if at < 0:
        raise FormatError(
            f"{path} is cut short: its directory is missing", hint="download it again"
        )
    length, start = END.unpack_from(tail, at)[5:7]
    # a directory beyond 4 GiB is told of in a zip64 record, found by a locator before the end one
    locator = size - tail_length + at - LOCATOR64.size
    if locator >= 0:
        magic, _, end64, _ = LOCATOR64.unpack(_content(file, locator, LOCATOR64.size))
        if magic == b"PK\x06\x07":
            length, start = END64.unpack(_content(file, min(end64, size), END64.size))[8:10]
    if length > MAX_DIRECTORY_BYTES or start + length > size:
        raise FormatError(
            f"{path} is damaged: its directory claims {length} bytes at {start} of {size}"
        )
    directory, at, members = _content(file, start, length), 0, {}
    while at < len(directory):
        magic, flags, method, packed, nbytes, *lengths, offset = ENTRY.unpack_from(directory, at)
        name_length, extra_length, comment_length = lengths
        name_end = at + ENTRY.size + name_length
        name = directory[at + ENTRY.size : name_end].decode("utf-8", "replace")
        extra = directory[name_end : name_end + extra_length]
        packed, nbytes, offset = _wide(nbytes, packed, offset, extra)
        at = name_end + extra_length + comment_length
        if magic != b"PK\x01\x02" or method or flags & 1 or packed != nbytes or name in members:
            raise FormatError(f"{path} is damaged, or its member {quoted(name)} is packed")
        members[name] = (_data_offset(file, path, min(offset, size)), nbytes)
        if members[name][0] + nbytes > size:
            raise FormatError(
                f"{path} is cut short: {quoted(name)} ends beyond it", hint="download it again"
            )
    return members


def _wide(nbytes: int, packed: int, offset: int, extra: bytes) -> tuple[int, int, int]:
    """Return packed size, size and offset; those beyond 32 bits are in the zip64 field."""
    at, wide = 0, b""
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            wide = extra[at + 4 : at + 4 + length]
        at += 4 + length
    numbers = [nbytes, packed, offset]
    place = 0
    for index, number in enumerate(numbers):
        if number == ZIP64:
            (numbers[index],) = struct.unpack_from("<Q", wide, place)
            place += 8
    return numbers[1], numbers[0], numbers[2]


def _data_offset(file: BinaryIO, path: Path, offset: int) -> int:
    magic, *_, name_length, extra_length = LOCAL.unpack(_content(file, offset, LOCAL.size))
    if magic != ZIP_MAGIC:
        raise FormatError(f"{path} is damaged: no member begins at byte {offset}")
    return offset + LOCAL.size + int(name_length) + int(extra_length)


def _read_legacy(
    file: BinaryIO, path: Path, size: int
) -> tuple[object, dict[str, tuple[int, int]]]:
    """Read an older file: five pickles, then each storage behind its length.

    The pickles are magic number, protocol, machine, tensors and storage keys.
    """
    stream = BytesIO(_content(file, 0, min(size, MAX_TEXT_BYTES)))
    name = f"the pickle in {path}"
    if read_pickle(stream, name) != LEGACY_MAGIC:
        raise FormatError(f"{path} is not a PyTorch weight file")
    read_pickle(stream, name)
    machine = read_pickle(stream, name)
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise FormatError(
            f"{path} was written on a big-endian machine", hint="use the model's safetensors files"
        )
    value, keys = read_pickle(stream, name), read_pickle(stream, name)
    tensors = value.values() if isinstance(value, dict) else ()
    found = [item.storage for item in tensors if isinstance(item, PickledTensor)]
    storages = {storage.key: storage for storage in found}
    if not isinstance(keys, list) or not all(
        isinstance(key, str) and key in storages for key in keys
    ):
        raise FormatError(f"{path} lists storages that no tensor has")
    at, places = stream.tell(), {}
    for key in keys:
        # int64 count, then the numbers
        (count,) = struct.unpack("<q", _content(file, at, 8))
        nbytes = count * _width(storages[key], path)
        if count != storages[key].count or at + 8 + nbytes > size:
            raise FormatError(f"{path} is cut short", hint="download it again")
        places[key] = (at + 8, nbytes)
        at += 8 + nbytes
    return value, places


def _width(storage: Storage, path: Path) -> int:
    if storage.kind not in STORAGE_DTYPES:
        raise FormatError(f"{path} holds the unknown type {quoted(storage.kind)}")
    return DTYPE_BYTES[STORAGE_DTYPES[storage.kind]]


def _content(file: BinaryIO, offset: int, length: int) -> bytes:
    """Exactly these bytes; a shorter answer fails in the unpacking that follows."""
    file.seek(offset)
    return file.read(length)
