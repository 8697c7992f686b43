"""A GGUF file's header: read and checked before anything trusts it.

The gguf library's reader maps the whole file and believes what it says of itself. So the header is
read here, within fixed bounds (``header_reader``), and every tensor is checked to lie inside its
file, apart from all others. Names and sizes of the block types are the library's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgellm.checkpoint.folder import DOWNLOAD_AGAIN, inside
from edgellm.converters.gguf.blocks.sizes import type_of
from edgellm.converters.gguf.header_reader import HeaderReader
from edgellm.converters.gguf.metadata import OTHER_FILE, Metadata
from edgellm.converters.tensors.file_rows import GGUF_MAGIC
from edgellm.errors import FormatError, ReadError, UnsupportedModelError
from edgellm.files.bounded import LFS_MARK, refuse_lfs_pointer, require_regular_file
from edgellm.files.strict_json import quoted

VERSIONS = (2, 3)

ALIGNMENT = 32
"""Bytes, where ``general.alignment`` says nothing else."""

MAX_ALIGNMENT = 1 << 20
MAX_KEYS = 4096
MAX_TENSORS = 1 << 16
MAX_SHARDS = 1024
MAX_NAME_BYTES = 256
"""ggml takes 64."""

MAX_RANK = 4
MAX_VALUES = 1 << 46
"""Numbers in one tensor."""

SHARD = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """The place of one tensor.

    Attributes:
        name: as the file has it.
        kind: its type as ggml calls it (``Q4_0``).
        shape: in NumPy's order, rows first; GGUF has it the other way round.
        file: where it lies.
        offset: the offset of its first byte in the file.
        nbytes: bytes of all its blocks.
        scale: a factor of all its values, which another tensor has.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    file: Path
    offset: int
    nbytes: int
    scale: float = 1.0

    @property
    def row_bytes(self) -> int:
        """Bytes of one step along the first axis."""
        return self.nbytes // self.shape[0]


@dataclass(frozen=True, slots=True)
class GgufModel:
    """The header of a GGUF file, or of all its shards together."""

    files: tuple[Path, ...]
    metadata: Metadata
    tensors: Mapping[str, GgufTensor]


@dataclass(frozen=True, slots=True)
class _TensorClaim:
    """One tensor as the header has it, not yet checked against the file.

    ``kind`` is ggml's number; ``offset`` counts from the first tensor's alignment on.
    """

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int


def open_gguf(path: Path) -> GgufModel:
    """Read the header of a GGUF file with those of its other shards, or of a folder's one model.

    Raises:
        FormatError: a file is damaged or lies, or a shard is missing.
        UnsupportedModelError: a type or version that edgellm does not know.
        ReadError: a file cannot be read.
    """
    if path.is_dir():
        path = _only_model(path)
    files = _shards(path)
    metadata, tensors = _read_header(files[0])
    split = _split_of(metadata)
    is_whole = len(files) == 1 and split[1] in (0, 1)
    if not is_whole and split != (0, len(files)):
        raise FormatError(
            f"{files[0]} is named as the first of {len(files)} files "
            "and does not say the same itself"
        )
    for number, file in enumerate(files[1:], start=1):
        own_metadata, own_tensors = _read_header(file)
        if _split_of(own_metadata) != (number, len(files)):
            raise FormatError(f"{file} is not the shard that its name says it is")
        for name, tensor in own_tensors.items():
            if name in tensors:
                raise FormatError(
                    f"tensor {quoted(name)} lies in {tensors[name].file.name} and in {file.name}"
                )
            tensors[name] = tensor
    if not tensors:
        raise FormatError(f"{files[0]} holds no tensor", hint=DOWNLOAD_AGAIN)
    return GgufModel(files, metadata, tensors)


def _only_model(folder: Path) -> Path:
    """Return the one GGUF file of a folder, or the first shard of the one model there."""
    names = sorted(file.name for file in folder.glob("*.gguf"))
    models = []
    for name in names:
        shard = SHARD.fullmatch(name)
        if shard is None or int(shard["number"]) == 1:
            models.append(name)
    if len(models) != 1:
        listed = ", ".join(map(quoted, (models or names)[:5])) or "none"
        raise FormatError(
            f"{folder} holds not one GGUF model but {len(models)}: {listed}",
            hint="name one of the files",
        )
    return inside(folder, models[0])


def _shards(path: Path) -> tuple[Path, ...]:
    """Return all files of the model that a file is a part of."""
    shard = SHARD.fullmatch(path.name)
    if shard is None:
        return (path,)
    count = int(shard["count"])
    if not 1 <= count <= MAX_SHARDS:
        raise FormatError(f"{path} is named as one of {count} files; the maximum is {MAX_SHARDS}")
    return tuple(
        inside(path.parent, f"{shard['stem']}-{number:05d}-of-{count:05d}.gguf")
        for number in range(1, count + 1)
    )


def _split_of(metadata: Metadata) -> tuple[int, int]:
    """Return the number and the count of shards that a file says of itself, 0 where it does not."""
    return metadata.integer("split.no", 0), metadata.integer("split.count", 0)


def _read_header(path: Path) -> tuple[Metadata, dict[str, GgufTensor]]:
    """Return metadata and tensors of one file, the tensors in the order of their bytes."""
    file_bytes = require_regular_file(path)
    try:
        with path.open("rb") as file:
            refuse_lfs_pointer(path, file.read(len(LFS_MARK)))
            file.seek(0)
            reader = HeaderReader(path, file)
            metadata, claims = _parse(reader)
    except OSError as error:
        raise ReadError(f"{path} cannot be read: {error.strerror}") from error
    alignment = metadata.integer("general.alignment", ALIGNMENT)
    if not 1 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise reader.damage(f"its alignment is {alignment}")
    return metadata, _tensors(claims, reader, alignment, file_bytes)


def _parse(reader: HeaderReader) -> tuple[Metadata, list[_TensorClaim]]:
    if reader.take(4) != GGUF_MAGIC:
        raise FormatError(f"{reader.path} is not a GGUF file")
    version = reader.uint32()
    if version not in VERSIONS:
        name = str(version)
        if version >= 1 << 16:
            name = f"{version:#x} (big-endian)"
        raise UnsupportedModelError(
            f"{reader.path} is GGUF of version {name}",
            hint=f"edgellm reads versions {' and '.join(map(str, VERSIONS))}, little-endian",
        )
    tensor_count = reader.count(MAX_TENSORS, "tensors")
    key_count = reader.count(MAX_KEYS, "entries of metadata")
    metadata: dict[str, Any] = {}
    for _ in range(key_count):
        key = reader.text(MAX_NAME_BYTES, "a key of its metadata")
        if key in metadata:
            raise reader.damage(f"its metadata has {quoted(key)} twice")
        metadata[key] = reader.value(key)
    return Metadata(reader.path, metadata), [_claim(reader) for _ in range(tensor_count)]


def _claim(reader: HeaderReader) -> _TensorClaim:
    name = reader.text(MAX_NAME_BYTES, "the name of a tensor")
    rank = reader.uint32()
    if not 1 <= rank <= MAX_RANK:
        raise reader.damage(f"tensor {quoted(name)} has {rank} axes")
    shape = [reader.uint64() for _ in range(rank)][::-1]
    if min(shape) < 1 or math.prod(shape) > MAX_VALUES:
        raise reader.damage(
            f"tensor {quoted(name)} has the impossible shape {quoted(tuple(shape))}"
        )
    while len(shape) > 1 and shape[0] == 1:
        del shape[0]
    return _TensorClaim(name, tuple(shape), kind=reader.uint32(), offset=reader.uint64())


def _tensors(
    claims: list[_TensorClaim], reader: HeaderReader, alignment: int, file_bytes: int
) -> dict[str, GgufTensor]:
    """Return the tensors in the order of their bytes: each inside the file, apart from others."""
    tensors: dict[str, GgufTensor] = {}
    first = -(-reader.offset // alignment) * alignment
    end = first
    for claim in sorted(claims, key=lambda claim: claim.offset):
        name = quoted(claim.name)
        kind, block, block_bytes = type_of(claim.kind)
        if not block:
            raise UnsupportedModelError(
                f"tensor {name} of {reader.path} has the type {claim.kind}, "
                "which edgellm does not know",
                hint=OTHER_FILE,
            )
        columns = claim.shape[-1]
        if columns % block:
            raise reader.damage(
                f"tensor {name} has rows of {columns}, which do not divide into blocks of {block}"
            )
        if claim.name in tensors:
            raise reader.damage(f"tensor {name} occurs twice")
        offset = first + claim.offset
        if claim.offset % alignment or offset < end:
            raise reader.damage(f"tensor {name} begins inside another one or off the alignment")
        nbytes = math.prod(claim.shape) // block * block_bytes
        end = offset + nbytes
        if end > file_bytes:
            raise FormatError(
                f"{reader.path} is cut short: "
                f"tensor {name} ends at byte {end}, the file at {file_bytes}",
                hint=DOWNLOAD_AGAIN,
            )
        tensors[claim.name] = GgufTensor(claim.name, kind, claim.shape, reader.path, offset, nbytes)
    return tensors
