"""A GGUF file's header: read and checked before anything trusts it.

The gguf library maps the whole file and believes what it says of itself: a length of 2**60 or an
array of arrays keeps it busy for ever. So the header is read here, within fixed bounds; from the
library come the names and sizes of the block types.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from edgellm.checkpoint.folder import DOWNLOAD_AGAIN, inside
from edgellm.errors import FormatError, ReadError, UnsupportedModelError
from edgellm.files.strict_json import quoted, require_regular_file

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ALIGNMENT = 32
"""Bytes, where ``general.alignment`` says nothing else."""

MAX_HEADER = 64 << 20
"""Bytes; a vocabulary of 262,144 tokens with its merges takes 16 MB."""

MAX_KEYS = 4096
MAX_TENSORS = 1 << 16
MAX_STRINGS = 1 << 20
"""Texts in all arrays together."""

MAX_SHARDS = 1024
MAX_NAME = 256  # bytes; ggml takes 64
MAX_RANK = 4
MAX_NUMBERS = 1 << 46
READ_CHUNK = 1 << 20

STRING, ARRAY = 8, 9
SCALARS: Mapping[int, str] = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip
"""How each plain value is stored, by GGUF's number for its type."""

SHARD = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """Where one tensor lies: ``kind`` as ggml calls it (``Q4_0``), ``shape`` with the longest stride first."""

    name: str
    kind: str
    shape: tuple[int, ...]
    file: Path
    offset: int
    nbytes: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one step along the first axis."""
        return self.nbytes // self.shape[0]


@dataclass(frozen=True, slots=True)
class GgufModel:
    """What a GGUF file, or all its shards together, say of themselves. Values are numbers, texts, and arrays of them."""

    files: tuple[Path, ...]
    metadata: Mapping[str, Any]
    tensors: Mapping[str, GgufTensor]


def open_gguf(path: Path) -> GgufModel:
    """The header of a GGUF file, with those of its other shards; or of the one model in a folder of such files.

    Raises:
        FormatError: a file is damaged or lies, or a shard is missing.
        UnsupportedModelError: a type or version that edgellm does not know.
        ReadError: a file cannot be read.
    """
    files = _shards(_only_model(path) if path.is_dir() else path)
    metadata, tensors = _read_header(files[0])
    if len(files) > 1 or metadata.get("split.count", 1) not in (0, 1):
        said = metadata.get("split.count", 0), metadata.get("split.no", 0)
        if said != (len(files), 0):
            raise FormatError(
                f"{files[0]} is named as the first of {len(files)} files and says another thing of itself"
            )
    for number, file in enumerate(files[1:], start=1):
        own, further = _read_header(file)
        if (own.get("split.no"), own.get("split.count")) != (number, len(files)):
            raise FormatError(f"{file} is not the shard that its name says")
        for name, tensor in further.items():
            if name in tensors:
                raise FormatError(
                    f"tensor {quoted(name)} lies in {tensors[name].file.name} and in {file.name}"
                )
            tensors[name] = tensor
    if not tensors:
        raise FormatError(f"{files[0]} holds no tensor", hint=DOWNLOAD_AGAIN)
    return GgufModel(files, metadata, tensors)


def _only_model(folder: Path) -> Path:
    names = sorted(file.name for file in folder.glob("*.gguf"))
    first = [
        name
        for name in names
        if (part := SHARD.fullmatch(name)) is None or int(part["number"]) == 1
    ]
    if len(first) != 1:
        listed = ", ".join(map(quoted, (first or names)[:5])) or "none"
        raise FormatError(
            f"{folder} holds not one GGUF model but {len(first)}: {listed}",
            hint="name one of the files",
        )
    return inside(folder, first[0])


def _shards(path: Path) -> tuple[Path, ...]:
    part = SHARD.fullmatch(path.name)
    if part is None:
        return (path,)
    count = int(part["count"])
    if not 1 <= count <= MAX_SHARDS:
        raise FormatError(f"{path} is named as one of {count} files; {MAX_SHARDS} are the most")
    return tuple(
        inside(path.parent, f"{part['stem']}-{number:05d}-of-{count:05d}.gguf")
        for number in range(1, count + 1)
    )


def _read_header(path: Path) -> tuple[dict[str, Any], dict[str, GgufTensor]]:
    size = require_regular_file(path)
    try:
        with path.open("rb") as file:
            return _parse(_Header(path, file), path, size)
    except OSError as error:
        raise ReadError(f"{path} cannot be read: {error.strerror}") from error


class _Header:
    """The bytes at the beginning of a file, read as they are asked for, up to a bound."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self.at = 0
        self.strings = 0
        self._file = file
        self._bytes = bytearray()

    def fault(self, what: str) -> FormatError:
        return FormatError(f"{self.path} is damaged: {what}", hint=DOWNLOAD_AGAIN)

    def take(self, count: int) -> int:
        """Move on by ``count`` bytes, which are then there; returns where they begin."""
        start, end = self.at, self.at + count
        if end > MAX_HEADER:
            raise self.fault(
                f"its header claims {end} bytes or more; at most {MAX_HEADER} are read"
            )
        while len(self._bytes) < end:
            more = self._file.read(max(READ_CHUNK, end - len(self._bytes)))
            if not more:
                raise FormatError(
                    f"{self.path} is cut short: its header goes on past its end",
                    hint=DOWNLOAD_AGAIN,
                )
            self._bytes += more
        self.at = end
        return start

    def numbers(self, form: str, count: int = 1) -> tuple[Any, ...]:
        form = f"<{count}{form[-1]}"
        return struct.unpack_from(form, self._bytes, self.take(struct.calcsize(form)))

    def count(self, limit: int, what: str) -> int:
        (number,) = self.numbers("Q")
        if number > limit:
            raise self.fault(f"it claims {number} {what}; {limit} are the most")
        return int(number)

    def text(self, limit: int, what: str) -> str:
        length = self.count(limit, f"bytes for {what}")
        start = self.take(length)
        try:
            return self._bytes[start : self.at].decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.fault(f"{what} is no UTF-8") from error

    def value(self, kind: int, key: str) -> Any:
        """A value of metadata: a number, a flag, a text, or an array of one of these."""
        if kind == STRING:
            return self.text(MAX_HEADER, quoted(key))
        if kind != ARRAY:
            return self.scalars(kind, 1, key).tolist()[0]
        (inner,) = self.numbers("I")
        length = self.count(MAX_HEADER, f"values for {quoted(key)}")
        if inner == STRING:
            self.strings += length
            if self.strings > MAX_STRINGS:
                raise self.fault(f"it claims {self.strings} texts; {MAX_STRINGS} are the most")
            return [self.text(MAX_HEADER, quoted(key)) for _ in range(length)]
        return self.scalars(inner, length, key)

    def scalars(self, kind: int, length: int, key: str) -> npt.NDArray[Any]:
        form = SCALARS.get(kind)
        if form is None:
            raise self.fault(f"{quoted(key)} has a value of the unknown type {kind}")
        width = struct.calcsize(form)
        start = self.take(length * width)
        return np.frombuffer(bytes(self._bytes[start : self.at]), form)


def _parse(header: _Header, path: Path, size: int) -> tuple[dict[str, Any], dict[str, GgufTensor]]:
    start = header.take(4)
    if bytes(header._bytes[start:4]) != MAGIC:
        raise FormatError(f"{path} is no GGUF file")
    (version,) = header.numbers("I")
    if version not in VERSIONS:
        raise UnsupportedModelError(
            f"{path} is GGUF of version {version if version < 1 << 16 else f'{version:#x} (big-endian)'}",
            hint=f"edgellm reads versions {' and '.join(map(str, VERSIONS))}, little-endian",
        )
    tensor_count = header.count(MAX_TENSORS, "tensors")
    key_count = header.count(MAX_KEYS, "entries of metadata")
    metadata: dict[str, Any] = {}
    for _ in range(key_count):
        key = header.text(MAX_NAME, "a key of its metadata")
        if key in metadata:
            raise header.fault(f"its metadata has {quoted(key)} twice")
        metadata[key] = header.value(header.numbers("I")[0], key)
    claims = [_claim(header) for _ in range(tensor_count)]
    alignment = metadata.get("general.alignment", ALIGNMENT)
    if (
        type(alignment) is not int
        or not 1 <= alignment <= READ_CHUNK
        or alignment & (alignment - 1)
    ):
        raise header.fault(f"its alignment is {quoted(alignment)}")
    begin = -(-header.at // alignment) * alignment
    return metadata, _tensors(claims, header, begin, alignment, size)


def _claim(header: _Header) -> tuple[str, tuple[int, ...], int, int]:
    """What the header says of one tensor: name, shape, type and offset."""
    name = header.text(MAX_NAME, "the name of a tensor")
    (rank,) = header.numbers("I")
    if not 1 <= rank <= MAX_RANK:
        raise header.fault(f"tensor {quoted(name)} has {rank} axes")
    axes = header.numbers("Q", rank)
    if min(axes) < 1 or math.prod(axes) > MAX_NUMBERS:
        raise header.fault(f"tensor {quoted(name)} has the impossible shape {quoted(axes[::-1])}")
    (kind,), (offset,) = header.numbers("I"), header.numbers("Q")
    while len(axes) > 1 and axes[-1] == 1:
        axes = axes[:-1]
    return name, tuple(axes[::-1]), kind, offset


def _tensors(
    claims: list[tuple[str, tuple[int, ...], int, int]],
    header: _Header,
    begin: int,
    alignment: int,
    size: int,
) -> dict[str, GgufTensor]:
    """The tensors in the order of their bytes: each inside the file, apart from all others."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    tensors: dict[str, GgufTensor] = {}
    end = begin
    for name, shape, number, offset in sorted(claims, key=lambda claim: claim[3]):
        try:
            kind = GGMLQuantizationType(number)
            block, block_bytes = GGML_QUANT_SIZES[kind]
        except (ValueError, KeyError) as error:
            raise header.fault(f"tensor {quoted(name)} has the unknown type {number}") from error
        if shape[-1] % block:
            raise header.fault(
                f"tensor {quoted(name)} has rows of {shape[-1]}, which are no whole blocks of {block}"
            )
        nbytes = math.prod(shape) // block * block_bytes
        if name in tensors:
            raise header.fault(f"tensor {quoted(name)} comes twice")
        if offset % alignment or begin + offset < end:
            raise header.fault(
                f"tensor {quoted(name)} begins inside another one or off the alignment"
            )
        end = begin + offset + nbytes
        if end > size:
            raise FormatError(
                f"{header.path} is cut short: tensor {quoted(name)} ends at byte {end}, the file at {size}",
                hint=DOWNLOAD_AGAIN,
            )
        tensors[name] = GgufTensor(name, kind.name, shape, header.path, begin + offset, nbytes)
    return tensors
