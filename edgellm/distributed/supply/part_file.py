"""A layer, or some rows of it, as a file of its own: the form that goes to other machines.

What is outside the layers counts as one more, behind the last: embedding, norm, output matrix.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgellm.checkpoint.buffer import place_tensors
from edgellm.checkpoint.checkpoint import Checkpoint, TensorGroup
from edgellm.checkpoint.folder import LAYER_PREFIX, layer_file
from edgellm.checkpoint.safetensors_file import TensorInfo, make_header
from edgellm.checkpoint.tensor_order import tensor_order
from edgellm.distributed.parts.digests import KeptDigests, state_of
from edgellm.distributed.parts.output import bounds_from, with_output_rows
from edgellm.distributed.parts.rows import Bounds, RowShare, checkpoint_rows, share_from
from edgellm.distributed.supply.told_model import (
    EMBEDDING_PREFIX,
    HEAD_PREFIX,
    NORM_PREFIX,
    outer_groups,
)
from edgellm.errors import ReadError
from edgellm.files.bounded import read_errors

CHUNK = 4 << 20
"""Bytes that are read, and sent, at once."""

OUTER_FILE = "model-outer.safetensors"
"""Of what is outside the layers."""

TensorPlaces = Mapping[str, TensorInfo]
"""Where tensors lie, by their names in the model."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A machine's part of a model.

    Attributes:
        layers: their numbers; that behind the last one's is what is outside the layers.
        rows: of each of these; None: all.
        output: rows of the output matrix, with norm, where what is outside is some of its rows.
    """

    layers: Sequence[int]
    rows: RowShare | None = None
    output: Bounds | None = None

    @property
    def head(self) -> dict[str, Any]:
        """The part as it is asked for, but for the layers."""
        if self.rows is None:
            return {}
        return {"rows": self.rows.as_dict(), "output": self.output}

    @classmethod
    def asked(cls, head: Mapping[str, Any]) -> Wanted:
        """Return a part as it was asked for."""
        layers = [int(number) for number in head["layers"]]
        if "rows" not in head:
            return cls(layers)
        return cls(layers, share_from(head["rows"]), bounds_from(head["output"]))

    @classmethod
    def of_rows(cls, checkpoint: Checkpoint, rows: RowShare, output: Bounds | None) -> Wanted:
        """Return rows of all layers, and those of the output matrix where there are any."""
        count = len(checkpoint.layers)
        return cls(range(count if output is None else count + 1), rows, output)


@dataclass(frozen=True, slots=True)
class PartFile:
    """A file of safetensors that holds a layer, or rows of it; its bytes may lie elsewhere yet.

    Attributes:
        layer: the number of the layer.
        title: the same in words.
        name: of the file.
        header: what stands before the tensors' bytes.
        tensors: where their bytes lie, in the order of the file.
    """

    layer: int
    title: str
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


def part_files(checkpoint: Checkpoint, wanted: Wanted) -> list[PartFile]:
    """Return a file for each layer of a machine's part of a model, or for its rows of it."""
    part = _part_of(checkpoint, wanted)
    count = len(checkpoint.layers)
    return [
        _outer_file(part, wanted) if number == count else _layer_file(part, number, wanted)
        for number in wanted.layers
    ]


def _part_of(checkpoint: Checkpoint, wanted: Wanted) -> Checkpoint:
    if wanted.rows is None:
        return checkpoint
    part = checkpoint_rows(checkpoint, wanted.rows)
    return part if wanted.output is None else with_output_rows(part, wanted.output)


def _layer_file(part: Checkpoint, number: int, wanted: Wanted) -> PartFile:
    group, prefix = part.layers[number], f"{LAYER_PREFIX}{number}."
    order = tensor_order({name: tensor.nbytes for name, tensor in group.tensors.items()})
    tensors = tuple(replace(group.tensors[name], name=prefix + name) for name in order)
    name = layer_file(number)
    if wanted.rows is not None:
        name = _named_by(name, wanted.rows.as_dict())
    return PartFile(number, f"layer {number}", name, make_header(tensors), tensors)


def _outer_file(part: Checkpoint, wanted: Wanted) -> PartFile:
    tensors = tuple(
        replace(tensor, name=prefix + name)
        for prefix, group in outer_groups(part)
        if wanted.output is None or prefix != EMBEDDING_PREFIX
        for name, tensor in group.tensors.items()
    )
    name, title = OUTER_FILE, "what is outside the layers"
    if wanted.output is not None:
        name = _named_by(name, list(wanted.output))
    return PartFile(len(part.layers), title, name, make_header(tensors), tensors)


def _named_by(name: str, rows: object) -> str:
    """Return a file's name with a digest of the rows that it has."""
    digest = hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
    return name.replace(".safetensors", f"-rows-{digest[:16]}.safetensors")


def with_files(
    checkpoint: Checkpoint, wanted: Wanted, files: Mapping[int, TensorPlaces]
) -> Checkpoint:
    """Return a model whose layers lie in files of parts, as far as these are named.

    Args:
        checkpoint: the model, of which nothing is here.
        wanted: what the files have. Other rows are not here, and must not be read.
        files: where the tensors of a layer lie, by its number.
    """
    part = _part_of(checkpoint, wanted)
    layers = list(checkpoint.layers)
    for number, places in files.items():
        if number == len(layers):
            checkpoint = _with_outer(checkpoint, part, places)
            continue
        prefix = f"{LAYER_PREFIX}{number}."
        layers[number] = _placed(layers[number], part.layers[number], prefix, places)
    return replace(checkpoint, layers=tuple(layers))


def _with_outer(checkpoint: Checkpoint, part: Checkpoint, places: TensorPlaces) -> Checkpoint:
    """Return a model whose tensors outside the layers lie in a file, as far as it has them."""
    norm = _placed(checkpoint.norm, part.norm, NORM_PREFIX, places)
    found = replace(checkpoint, norm=norm)
    if f"{EMBEDDING_PREFIX}weight" in places:
        own = _placed(checkpoint.embed_tokens, part.embed_tokens, EMBEDDING_PREFIX, places)
        found = replace(found, embed_tokens=own)
    if part.lm_head is None:
        return found
    output = _placed(checkpoint.output_matrix, part.lm_head, HEAD_PREFIX, places)
    if checkpoint.lm_head is None:  # rows of an embedding that multiplies
        return replace(found, embed_tokens=output)
    return replace(found, lm_head=output)


def _placed(whole: TensorGroup, own: TensorGroup, prefix: str, places: TensorPlaces) -> TensorGroup:
    """Return a group whose tensors lie where a file has them, or rows of them."""
    tensors = {}
    for name, tensor in whole.tensors.items():
        place = places[prefix + name]
        # where the first row would begin if it were here: rows are counted from there
        first = place.offset - (own.tensors[name].offset - tensor.offset)
        tensors[name] = replace(tensor, file=place.file, offset=first)
    layout, extents = place_tensors(tensors)
    return replace(whole, layout=layout, extents=extents, tensors=tensors)
