"""A GGUF file as a source: its blocks as MLX stores them, its rows in Hugging Face's order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgellm.checkpoint.quantization import Quantization
from edgellm.converters.gguf.architectures.names import is_permuted, norm_offset
from edgellm.converters.gguf.blocks.level_blocks import dequantize_blocks
from edgellm.converters.gguf.blocks.scale_cache import BIASES, WEIGHT, ScaleCache
from edgellm.converters.gguf.blocks.table import (
    FLOATS,
    FORMS,
    split_blocks,
)
from edgellm.converters.gguf.header import GgufTensor, open_gguf
from edgellm.converters.gguf.metadata import OTHER_FILE, ModelNumbers
from edgellm.converters.gguf.model_config import read_config
from edgellm.converters.gguf.model_tensors import (
    float_row,
    form_of,
    keeps_codes,
    model_tensors,
    type_notes,
    usual_quantization,
)
from edgellm.converters.gguf.rope_scaling import FACTOR_TENSORS, read_rope_scaling
from edgellm.converters.gguf.tokenizer import tokenizer_files
from edgellm.converters.tensors.file_rows import files_fingerprint, read_span
from edgellm.converters.tensors.floats import floats, stored
from edgellm.converters.tensors.rope_permutation import halves_from_pairs
from edgellm.converters.tensors.source import Bytes, SourceTensor, require_no_more_layers
from edgellm.errors import FormatError, UnsupportedModelError

EMBEDDING = "model.embed_tokens.weight"

THREADS = 2
"""Threads that dequantize the types of ``REQUANTIZED``. Others only move, two files at a time."""

THREAD_BYTES = 1 << 20
"""Rows of fewer bytes are not worth a second thread."""


@dataclass(frozen=True, slots=True)
class _TensorOrigin:
    """The place in the file that a tensor comes from.

    Attributes:
        tensor: what the file has.
        path: the matrix's name, without its last part.
        part: ``weight``, ``scales`` or ``biases`` of a quantized matrix; empty: the tensor itself.
        head_dim: rows of a head, where GGUF has them in pairs; None: they lie as they should.
    """

    tensor: GgufTensor
    path: str
    part: str
    head_dim: int | None


class GgufSource:
    """A dense LLaMA-like model in a GGUF file, its shards, or a folder with one such model.

    If any matrix is quantized, everything unquantized becomes float16 unless another type is asked
    for, so that the model has one type throughout.

    Args:
        path: the file or folder.
        unquantized: whether the model is to become unquantized: codes that come only near the
            file's numbers are not made then.

    Raises:
        FormatError: the file is damaged or lies, a tensor is missing.
        UnsupportedModelError: another kind of model.
        TokenizerError: its tokenizer is damaged, or of an unknown kind.
        ReadError: the file cannot be read.
    """

    def __init__(self, path: Path, *, unquantized: bool = False) -> None:
        model = open_gguf(path)
        self._files = model.files
        self._keeps_codes = partial(keeps_codes, exactly=unquantized)
        architecture = model.metadata.text("general.architecture") or ""
        tensors = model_tensors(model.tensors, architecture)
        embedding = tensors.get(EMBEDDING)
        if embedding is None:
            raise FormatError("the GGUF file has no embedding (token_embd.weight)")
        vocab_size = embedding.shape[0]
        config = read_config(model.metadata, vocab_size, tensors)
        factors = {
            name: float_row(model.tensors[name]) for name in FACTOR_TENSORS if name in model.tensors
        }
        numbers = ModelNumbers(model.metadata, architecture)
        config["rope_scaling"] = read_rope_scaling(numbers, config, factors)
        self.companions: Mapping[str, Path | bytes]
        self.companions, token_ids, notes = tokenizer_files(model.metadata, vocab_size)
        self._architecture = architecture
        self._quantized = any(tensor.kind not in FLOATS for tensor in tensors.values())
        self._origins: dict[str, _TensorOrigin] = {}
        self.tensors: dict[str, SourceTensor] = {}
        for name, tensor in tensors.items():
            head_dim = None
            if is_permuted(architecture, name):
                head_dim = _checked_head_dim(tensor, config["head_dim"])
            self._show(name, tensor, head_dim)
        self.config: Mapping[str, Any] = config | token_ids | usual_quantization(tensors)
        require_no_more_layers(self.tensors, self.config, path)
        self.forms: Mapping[str, Quantization] = {
            name.removesuffix(".weight"): form
            for name, tensor in tensors.items()
            if (form := form_of(tensor)) is not None and not self._keeps_codes(tensor)
        }
        self.notes: Sequence[str] = notes
        if not unquantized:
            self.notes = [*notes, *type_notes(tensors.values())]
        self._scale_cache = ScaleCache()

    @property
    def fingerprint(self) -> str:
        """Names, sizes and times of the files."""
        return files_fingerprint(self._files)

    def rows(self, name: str, start: int, stop: int) -> Bytes:
        """Return the bytes of rows ``start`` to ``stop`` of a tensor, shape (bytes,).

        Raises ReadError.
        """
        origin = self._origins[name]
        kind, scale = origin.tensor.kind, np.float32(origin.tensor.scale)
        if self._keeps_codes(origin.tensor):
            return self._block_rows(origin, start, stop)
        content = _read(origin, start, stop)
        dtype = self.tensors[name].dtype
        offset = np.float32(norm_offset(self._architecture, name))
        if kind == dtype and scale == 1 and not offset:
            return content
        if kind in FORMS:
            values = _dequantized(kind, content.reshape(stop - start, -1))
        else:
            values = floats(content, kind)
        with np.errstate(all="ignore"):  # what is not a number is refused where it is written
            return stored(values * scale - offset, dtype)

    def _block_rows(self, origin: _TensorOrigin, start: int, stop: int) -> Bytes:
        """Return a part of some rows' blocks; scales and biases are mostly in the cache by then."""
        if origin.part != WEIGHT:
            cached = self._scale_cache.get(origin.path, origin.part, start, stop)
            if cached is not None:
                return cached.reshape(-1).view(np.uint8)
        tensor = origin.tensor
        blocks = _read(origin, start, stop).reshape(stop - start, -1)
        weight, scales, biases = split_blocks(tensor.kind, blocks)
        if origin.part == WEIGHT:
            self._scale_cache.put(origin.path, tensor.shape[0], start, scales, biases)
            return weight.reshape(-1)
        values = scales
        if origin.part == BIASES and biases is not None:
            values = biases
        return values.reshape(-1).view(np.uint8)

    def _show(self, name: str, tensor: GgufTensor, head_dim: int | None) -> None:
        """Add one of the file's tensors, or the three parts of a quantized matrix, to our own."""
        path = name.removesuffix(".weight")
        kind = tensor.kind
        if kind not in FLOATS and kind not in FORMS:
            raise UnsupportedModelError(
                f"tensor {tensor.name} of {tensor.file} is of type {kind}, "
                "which edgellm does not know"
            )
        # llama.cpp writes no vectors in blocks, and cannot compute with them
        if kind not in FLOATS and (len(tensor.shape) != 2 or path == name):
            raise FormatError(
                f"tensor {tensor.name} of {tensor.file} has the shape {tensor.shape} and is of "
                f"type {kind}; only matrices are stored in blocks",
                hint=OTHER_FILE,
            )
        if self._keeps_codes(tensor):
            rows, columns = tensor.shape
            parts = FORMS[kind].stored(rows, columns, "F16")
            for part, (dtype, shape) in parts.items():
                self.tensors[f"{path}.{part}"] = SourceTensor(dtype, shape)
                self._origins[f"{path}.{part}"] = _TensorOrigin(tensor, path, part, head_dim)
            return
        dtype, becomes = kind, None
        if kind in FORMS:
            dtype = "F32"
        if self._quantized:
            becomes = "F16"
        self.tensors[name] = SourceTensor(dtype, tensor.shape, becomes)
        self._origins[name] = _TensorOrigin(tensor, path, "", head_dim)


def _checked_head_dim(tensor: GgufTensor, head_dim: int) -> int:
    """Return ``head_dim`` if the tensor's rows are whole heads of two halves."""
    if head_dim < 2 or head_dim % 2 or tensor.shape[0] % head_dim:
        raise FormatError(
            f"tensor {tensor.name} has {tensor.shape[0]} rows, "
            f"which do not divide into heads of {head_dim}"
        )
    return head_dim


def _read(origin: _TensorOrigin, start: int, stop: int) -> Bytes:
    """Return the file's bytes of some rows, in Hugging Face's order."""
    tensor = origin.tensor

    def read(first: int, last: int) -> Bytes:
        offset = tensor.offset + first * tensor.row_bytes
        return read_span(tensor.file, offset, (last - first) * tensor.row_bytes)

    if origin.head_dim is None:
        return read(start, stop)
    return halves_from_pairs(read, origin.head_dim, start, stop)


def _dequantized(kind: str, rows: Bytes) -> npt.NDArray[np.float32]:
    """Return the values of rows of blocks (R, bytes), shape (R, columns), by two threads."""
    if rows.nbytes < THREAD_BYTES or len(rows) < THREADS:
        return dequantize_blocks(kind, rows)
    with ThreadPoolExecutor(THREADS) as pool:
        values = pool.map(partial(dequantize_blocks, kind), np.array_split(rows, THREADS))
        return np.concatenate(list(values))
