"""A GGUF file as a source: its blocks as MLX stores them, its rows in Hugging Face's order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from edgellm.checkpoint.quantization import QUANTIZED_PARTS, Quantization, quantization_block
from edgellm.converters.gguf.block_types import (
    AFFINE,
    FLOATS,
    GROUP,
    REQUANTIZED,
    dequantize_blocks,
    split_blocks,
)
from edgellm.converters.gguf.header import GgufTensor, open_gguf
from edgellm.converters.gguf.model_config import (
    PERMUTED,
    ROPE_FACTORS,
    huggingface_name,
    read_config,
    read_stretch,
)
from edgellm.converters.gguf.tokenizer import tokenizer_files
from edgellm.converters.tensors.file_rows import files_fingerprint, read_span
from edgellm.converters.tensors.floats import floats, stored
from edgellm.converters.tensors.rope_permutation import halves_from_pairs
from edgellm.converters.tensors.source import Bytes, SourceTensor
from edgellm.errors import FormatError, UnsupportedModelError
from edgellm.files.strict_json import quoted

Result = TypeVar("Result")

THREADS = 2
"""Blocks that MLX has no type for are dequantized by this many; the others are only moved, two files at a time."""

THREAD_BYTES = 1 << 20
"""Rows of fewer bytes are not worth a second thread."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a tensor comes from: a part of what the file has, in which order its rows lie."""

    tensor: GgufTensor
    part: str
    head_dim: int | None
    """Rows of a head, where GGUF has them in pairs; None: they lie as they should."""


class GgufSource:
    """A GGUF file of a dense LLaMA-like model, with its other shards, or a folder with one such model.

    If any matrix is quantized, everything unquantized is shown as float16, so that the model has
    one type throughout.

    Raises:
        FormatError: the file is damaged or lies, a tensor is missing.
        UnsupportedModelError: another kind of model.
        TokenizerError: its tokenizer is damaged, or of an unknown kind.
        ReadError: the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        model = open_gguf(path)
        self._files = model.files
        named = {name: huggingface_name(name) for name in model.tensors if name != ROPE_FACTORS}
        unknown = sorted(name for name, ours in named.items() if ours is None)
        if unknown:
            raise UnsupportedModelError(
                f"the GGUF file holds tensors that no model of ours has: {', '.join(map(quoted, unknown[:3]))}"
            )
        found = {ours: model.tensors[name] for name, ours in named.items() if ours is not None}
        embedding = found.get("model.embed_tokens.weight")
        if embedding is None:
            raise FormatError("the GGUF file has no embedding (token_embd.weight)")
        config = read_config(model.metadata, embedding.shape[0], found)
        factors = model.tensors.get(ROPE_FACTORS)
        config["rope_scaling"] = read_stretch(
            model.metadata, config, None if factors is None else _factors(factors)
        )
        self.companions: Mapping[str, Path | bytes]
        self.companions, ids = tokenizer_files(model.metadata, embedding.shape[0])
        self._quantized = any(tensor.kind not in FLOATS for tensor in found.values())
        self._places: dict[str, _Place] = {}
        self.tensors: dict[str, SourceTensor] = {}
        for name, tensor in found.items():
            head_dim = (
                config["head_dim"]
                if config["model_type"] == "llama" and name.endswith(_PERMUTED)
                else None
            )
            if head_dim and (head_dim < 2 or tensor.shape[0] % head_dim or head_dim % 2):
                raise FormatError(
                    f"tensor {tensor.name} has {tensor.shape[0]} rows, which are no whole heads of {head_dim}"
                )
            self._add(name, tensor, head_dim)
        self.config: Mapping[str, Any] = config | ids | self._quantization(found)
        self.forms: Mapping[str, Quantization] = {
            name.removesuffix(".weight"): Quantization(REQUANTIZED[tensor.kind], GROUP)
            for name, tensor in found.items()
            if tensor.kind in REQUANTIZED
        }
        again = Counter(tensor.kind for tensor in found.values() if tensor.kind in REQUANTIZED)
        self.notes: Sequence[str] = [
            f"{count} matrices of type {kind}, which MLX does not have, are quantized again to {REQUANTIZED[kind]} bits"
            for kind, count in again.items()
        ]
        self._waiting: dict[str, tuple[npt.NDArray[np.float16], int]] = {}

    @property
    def fingerprint(self) -> str:
        """Names, sizes and times of the files."""
        return files_fingerprint(self._files)

    def rows(self, name: str, start: int, stop: int) -> Bytes:
        """The bytes of rows ``start`` to ``stop`` of a tensor, shape (bytes,). Raises ReadError."""
        place = self._places[name]
        tensor, kind = place.tensor, place.tensor.kind
        if kind in FLOATS:
            content = self._read(place, start, stop)
            return (
                content
                if self.tensors[name].dtype == kind
                else stored(floats(content, kind), "F16")
            )
        if kind in REQUANTIZED:
            rows = self._read(place, start, stop).reshape(stop - start, -1)
            return stored(np.concatenate(_shared(partial(dequantize_blocks, kind), rows)), "F16")
        waiting = self._waiting.get(name)
        if waiting is not None and stop <= waiting[1]:
            if stop == tensor.shape[0]:
                del self._waiting[name]
            return waiting[0][start:stop].view(np.uint8).reshape(-1)
        rows = self._read(place, start, stop).reshape(stop - start, -1)
        parts: dict[str, npt.NDArray[Any]] = dict(
            zip(QUANTIZED_PARTS, split_blocks(kind, rows), strict=True)
        )
        if place.part == "weight":
            self._keep(name.removesuffix("weight"), parts, start, stop)
        made: Bytes = parts[place.part].view(np.uint8).reshape(-1)
        return made

    def _add(self, name: str, tensor: GgufTensor, head_dim: int | None) -> None:
        """Show one of the file's tensors as one of ours, or as the three parts of a quantized matrix."""
        path, kind = name.removesuffix(".weight"), tensor.kind
        if kind in FLOATS or kind in REQUANTIZED:
            dtype = "F16" if self._quantized else FLOATS[kind]
            self.tensors[name] = SourceTensor(dtype, tensor.shape)
            self._places[name] = _Place(tensor, "", head_dim)
        elif kind not in AFFINE:
            raise UnsupportedModelError(
                f"tensor {tensor.name} is of type {kind}, which edgellm does not know"
            )
        elif len(tensor.shape) != 2 or path == name:
            raise FormatError(f"tensor {tensor.name} is quantized and no matrix")
        else:
            form = Quantization(AFFINE[kind][0], GROUP)
            for part, (dtype, shape) in form.stored(*tensor.shape, "F16").items():
                self.tensors[f"{path}.{part}"] = SourceTensor(dtype, shape)
                self._places[f"{path}.{part}"] = _Place(tensor, part, head_dim)

    def _quantization(self, found: Mapping[str, GgufTensor]) -> dict[str, Any]:
        """The config's block: the form that most weights have, and the exceptions."""
        if not self._quantized:
            return {}
        bits = {kind: value[0] for kind, value in AFFINE.items()} | dict(REQUANTIZED)
        forms = {
            name.removesuffix(".weight"): Quantization(bits[tensor.kind], GROUP)
            if tensor.kind in bits
            else None
            for name, tensor in found.items()
            if len(tensor.shape) == 2
        }
        sizes: Counter[Quantization] = Counter()
        for name, tensor in found.items():
            form = forms.get(name.removesuffix(".weight"))
            if form is not None:
                sizes[form] += prod(tensor.shape)
        return (
            {"quantization": quantization_block(sizes.most_common(1)[0][0], forms)} if sizes else {}
        )

    def _read(self, place: _Place, start: int, stop: int) -> Bytes:
        """The file's bytes of some rows, in our order."""
        tensor = place.tensor

        def read(first: int, last: int) -> Bytes:
            return read_span(
                tensor.file,
                tensor.offset + first * tensor.row_bytes,
                (last - first) * tensor.row_bytes,
            )

        return (
            read(start, stop)
            if place.head_dim is None
            else halves_from_pairs(read, place.head_dim, start, stop)
        )

    def _keep(
        self, stem: str, parts: Mapping[str, npt.NDArray[Any]], start: int, stop: int
    ) -> None:
        """Hold the scales and biases that came along with a piece of the weights until they are asked for."""
        for part in QUANTIZED_PARTS[1:]:
            name = stem + part
            shape = self.tensors[name].shape
            whole, done = (
                self._waiting.get(name, (None, 0)) if start else (np.empty(shape, np.float16), 0)
            )
            if whole is not None and done == start:
                whole[start:stop] = parts[part]
                self._waiting[name] = (whole, stop)


def _shared(work: Callable[[Bytes], Result], rows: Bytes) -> list[Result]:
    """What ``work`` makes of some rows, in pieces, one after the other."""
    if rows.nbytes < THREAD_BYTES or len(rows) < THREADS:
        return [work(rows)]
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, np.array_split(rows, THREADS)))


def _factors(tensor: GgufTensor) -> npt.NDArray[np.float32]:
    if tensor.kind != "F32" or len(tensor.shape) != 1:
        raise FormatError(f"tensor {tensor.name} is no row of float32 numbers")
    return read_span(tensor.file, tensor.offset, tensor.nbytes).view("<f4")


_PERMUTED = tuple(f".{path}.{part}" for path in PERMUTED for part in ("weight", "bias"))
