"""A layer, or some rows of it, as a file of its own: the form that goes to other machines."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from edgellm.checkpoint.buffer import place_tensors
from edgellm.checkpoint.checkpoint import Checkpoint, TensorGroup
from edgellm.checkpoint.folder import LAYER_PREFIX, layer_file
from edgellm.checkpoint.safetensors_file import TensorInfo, make_header
from edgellm.checkpoint.tensor_order import tensor_order
from edgellm.distributed.parts.digests import KeptDigests, state_of
from edgellm.distributed.parts.rows import RowShare, checkpoint_rows
from edgellm.errors import ReadError
from edgellm.files.bounded import read_errors

CHUNK = 4 << 20
"""Bytes that are read, and sent, at once."""

TensorPlaces = Mapping[str, TensorInfo]
"""Where tensors lie, by their names in the model."""


@dataclass(frozen=True, slots=True)
class PartFile:
    """A file of safetensors that holds a layer, or rows of it; its bytes may lie elsewhere yet.

    Attributes:
        layer: the number of the layer.
        name: of the file.
        header: what stands before the tensors' bytes.
        tensors: where their bytes lie, in the order of the file.
    """

    layer: int
    name: str
    header: bytes
    tensors: tuple[TensorInfo, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the file."""
        return len(self.header) + sum(tensor.nbytes for tensor in self.tensors)

    def read(self, start: int = 0) -> Iterator[bytes]:
        """Yield the file's bytes from ``start`` on, some megabytes at a time. Raises ReadError."""
        gathered = bytearray()
        for piece in self._pieces(start):
            gathered += piece
            if len(gathered) >= CHUNK:
                yield bytes(gathered)
                gathered.clear()
        if gathered:
            yield bytes(gathered)

    def digest(self, kept: KeptDigests) -> str:
        """Return the file's SHA-256, which is kept until one of the files that it is of changes."""
        files = sorted({tensor.file for tensor in self.tensors})
        places = [tensor.offset for tensor in self.tensors]
        made_of = json.dumps([[state_of(file) for file in files], places]).encode()
        key = hashlib.sha256(self.header + made_of).hexdigest()

        def compute() -> str:
            digest = hashlib.sha256()
            for data in self.read():
                digest.update(data)
            return digest.hexdigest()

        return kept.get(key, compute)

    def _pieces(self, start: int) -> Iterator[bytes]:
        if start < len(self.header):
            yield self.header[start:]
        left = max(0, start - len(self.header))
        for tensor in self.tensors:
            if left >= tensor.nbytes:
                left -= tensor.nbytes
                continue
            yield from _bytes_of(tensor, left)
            left = 0


def _bytes_of(tensor: TensorInfo, start: int) -> Iterator[bytes]:
    with read_errors(tensor.file), tensor.file.open("rb") as file:
        file.seek(tensor.offset + start)
        count = tensor.nbytes - start
        while count:
            data = file.read(min(CHUNK, count))
            if not data:
                raise ReadError(f"{tensor.file} ends within tensor {tensor.name}")
            count -= len(data)
            yield data


def part_files(
    checkpoint: Checkpoint, layers: Sequence[int], rows: RowShare | None
) -> list[PartFile]:
    """Return a file for each of some layers of a model, or for a machine's rows of them."""
    part = checkpoint if rows is None else checkpoint_rows(checkpoint, rows)
    return [_part_file(part.layers[number], number, rows) for number in layers]


def _part_file(group: TensorGroup, number: int, rows: RowShare | None) -> PartFile:
    order = tensor_order({name: tensor.nbytes for name, tensor in group.tensors.items()})
    prefix = f"{LAYER_PREFIX}{number}."
    tensors = tuple(replace(group.tensors[name], name=prefix + name) for name in order)
    name = layer_file(number)
    if rows is not None:
        digest = hashlib.sha256(json.dumps(rows.as_dict(), sort_keys=True).encode()).hexdigest()
        name = name.replace(".safetensors", f"-rows-{digest[:16]}.safetensors")
    return PartFile(number, name, make_header(tensors), tensors)


def with_files(
    checkpoint: Checkpoint, rows: RowShare | None, files: Mapping[int, TensorPlaces]
) -> Checkpoint:
    """Return a model whose layers lie in files of parts, as far as these are named.

    Args:
        checkpoint: the model, of which nothing is here.
        rows: those that the files have; None: all. Others are not here, and must not be read.
        files: where the tensors of a layer lie, by its number.
    """
    part = checkpoint if rows is None else checkpoint_rows(checkpoint, rows)
    layers = list(checkpoint.layers)
    for number, places in files.items():
        whole, own = layers[number], part.layers[number]
        tensors = {}
        for name, tensor in whole.tensors.items():
            place = places[f"{LAYER_PREFIX}{number}.{name}"]
            # where the first row would begin if it were here: rows are counted from there
            first = place.offset - (own.tensors[name].offset - tensor.offset)
            tensors[name] = replace(tensor, file=place.file, offset=first)
        layout, extents = place_tensors(tensors)
        layers[number] = replace(whole, layout=layout, extents=extents, tensors=tensors)
    return replace(checkpoint, layers=tuple(layers))
