"""llama2.c's model files as a source: versions 0 and 1 in float32, version 2 in int8.

All begin with seven numbers and hold the tensors one after the other, each kind for all layers;
rows of a head are in Meta's order. The format is that of llama2.c's export.py.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.checkpoint.model_config import ModelConfig
from edgellm.checkpoint.quantization import GROUP_SIZES, Quantization, chosen_quantization
from edgellm.converters.llama2c.tokenizer import TOKENIZER, tokenizer_files
from edgellm.converters.tensors.file_rows import (
    LLAMA2C_MAGIC,
    LLAMA2C_NUMBERS,
    files_fingerprint,
    read_span,
)
from edgellm.converters.tensors.rope_permutation import halves_from_pairs
from edgellm.converters.tensors.source import Bytes, SourceTensor
from edgellm.errors import FormatError, TokenizerError
from edgellm.files.bounded import read_errors, require_regular_file

HEADER = struct.Struct("<4si7iB")
GROUP = struct.Struct("<i")
MAX_GROUP = 1 << 16
HEADER_BYTES = 256
"""Of versions 1 and 2; version 0 has only the seven numbers."""

INT8_BITS = 8
REQUANTIZED_GROUP = 64
"""The group in which int8 values are quantized again where theirs is none of MLX's."""

NORMS = ("input_layernorm.weight", "post_attention_layernorm.weight")
ATTENTION = tuple(f"self_attn.{letter}_proj.weight" for letter in "qkvo")
FEED_FORWARD = ("mlp.gate_proj.weight", "mlp.down_proj.weight", "mlp.up_proj.weight")
ROTATED = ("self_attn.q_proj", "self_attn.k_proj")
EMBEDDING, NORM, HEAD = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"
ROTARY_TABLE = "rotary table of "
"""Begins the names of what a file holds between tensors and no source shows."""


@dataclass(frozen=True, slots=True)
class Header:
    """The beginning of a file.

    Attributes:
        version: 0, 1 or 2.
        config: as Hugging Face's.
        group_size: int8 values that share a scale; 0 for float32.
        start: the byte at which the tensors begin.
    """

    version: int
    config: Mapping[str, Any]
    group_size: int
    start: int


class Llama2cSource:
    """A ``model.bin`` of llama2.c, with the ``tokenizer.bin`` beside it.

    Raises:
        FormatError: it is cut short, or its numbers are impossible.
        ReadError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        size = require_regular_file(path)
        header = _read_header(path)
        self.config: dict[str, Any] = dict(header.config)
        self._model = ModelConfig.from_dict(self.config)
        self._group = header.group_size
        order = list(_order(self._model, header.version))
        widths = {shape[1] for _, shape in order if len(shape) == 2}
        # whether the int8 values become MLX's codes as they are
        self._keeps_codes = self._group in GROUP_SIZES
        self._keeps_codes &= not any(width % self._group for width in widths if self._group)
        self._shapes = dict(order)
        self._offsets: dict[str, int] = {}
        self.tensors: dict[str, SourceTensor] = {}
        self.forms: dict[str, Quantization] = {}
        end = header.start
        for name, shape in order:
            self._offsets[name] = end
            end += self._stored_bytes(shape)
            if not name.startswith(ROTARY_TABLE):
                self._show(name, shape)
        if end != size:
            fault = "holds more than its numbers say"
            if end > size:
                fault = "is cut short"
            raise FormatError(f"{path} {fault}: its tensors end at byte {end}, the file at {size}")
        if self._keeps_codes:
            self.config["quantization"] = Quantization(INT8_BITS, self._group).as_config()

    @property
    def notes(self) -> Sequence[str]:
        """A sentence where int8 values cannot be kept."""
        if not self._group or self._keeps_codes:
            return ()
        return (
            f"rows do not divide into groups of a size that MLX has (here {self._group}): "
            "the int8 values are quantized again",
        )

    @property
    def companions(self) -> Mapping[str, Path | bytes]:
        """The tokenizer. Raises TokenizerError where there is none."""
        file = self.path.with_name(TOKENIZER)
        if not file.exists():
            raise TokenizerError(
                f"there is no {TOKENIZER} beside {self.path}", hint="name one with --tokenizer"
            )
        return tokenizer_files(file, vocabulary=self._model.vocab_size)

    @property
    def fingerprint(self) -> str:
        """Names, sizes and times of the files that the conversion reads."""
        files = [self.path, self.path.with_name(TOKENIZER)]
        return files_fingerprint([file for file in files if file.exists()])

    def rows(self, name: str, start: int, stop: int) -> Bytes:
        """Return the bytes of some rows, heads in Hugging Face's order."""
        read = partial(self._rows, name)
        if name.rpartition(".")[0].endswith(ROTATED):
            return halves_from_pairs(read, self._model.head_dim, start, stop)
        return read(start, stop)

    def _is_quantized(self, shape: tuple[int, ...]) -> bool:
        return bool(self._group) and len(shape) == 2

    def _stored_bytes(self, shape: tuple[int, ...]) -> int:
        """Return the bytes of a tensor in the file: int8 values, then a float32 scale a group."""
        count = math.prod(shape)
        if self._is_quantized(shape):
            return count + count // self._group * 4
        return count * 4

    def _show(self, name: str, shape: tuple[int, ...]) -> None:
        """Add a tensor of the file to those that the source shows."""
        path = name.removesuffix(".weight")
        if not self._is_quantized(shape):
            self.tensors[name] = SourceTensor("F32", shape)
        elif self._keeps_codes:
            parts = Quantization(INT8_BITS, self._group).stored(shape[0], shape[1], "F32")
            for part, stored in parts.items():
                self.tensors[f"{path}.{part}"] = SourceTensor(*stored)
        else:
            self.tensors[name] = SourceTensor("F32", shape)
            form = chosen_quantization(shape[1], INT8_BITS, REQUANTIZED_GROUP)
            if form is not None:
                self.forms[path] = form

    def _rows(self, name: str, start: int, stop: int) -> Bytes:
        """Return the bytes of some rows in the file's own order."""
        path, _, part = name.rpartition(".")
        offset = self._offsets[f"{path}.weight"]
        shape = self._shapes[f"{path}.weight"]
        columns = math.prod(shape[1:])
        first = start * columns
        count = (stop - start) * columns
        if not self._is_quantized(shape):
            return read_span(self.path, offset + 4 * first, 4 * count)
        if self._keeps_codes and part == "weight":
            # int8 from -128 on become codes from 0 on
            return read_span(self.path, offset + first, count) ^ np.uint8(0x80)
        # groups may reach over the ends of rows: all that the rows touch
        low, high = first // self._group, -(-(first + count) // self._group)
        scales_offset = offset + math.prod(shape)
        stored = read_span(self.path, scales_offset + 4 * low, 4 * (high - low))
        scales = stored.view(np.float32)
        if not self._keeps_codes:
            values = read_span(self.path, offset + first, count).view(np.int8)
            spread = np.repeat(scales, self._group)[first - low * self._group :][:count]
            return (values * spread).view(np.uint8)
        if part == "biases":
            # scale * (code - 128) = scale * code + bias
            scales = scales * np.float32(-128)
        return scales.view(np.uint8)


def _read_header(path: Path) -> Header:
    with read_errors(path), path.open("rb") as file:
        head = file.read(HEADER_BYTES)
    try:
        if not head.startswith(LLAMA2C_MAGIC):
            numbers = LLAMA2C_NUMBERS.unpack_from(head)
            return Header(0, _config(numbers, tied=numbers[5] > 0), 0, LLAMA2C_NUMBERS.size)
        _, version, *values, tied = HEADER.unpack_from(head)
        group = 0
        if version == 2:
            [group] = GROUP.unpack_from(head, HEADER.size)
    except struct.error as error:
        raise FormatError(f"{path} is cut short") from error
    known = version in (1, 2) and tied in (0, 1) and len(head) == HEADER_BYTES
    if not known or (version == 2 and not 1 <= group <= MAX_GROUP):
        raise FormatError(
            f"{path} is damaged, "
            f"or of a version of llama2.c's that edgellm does not know ({version})"
        )
    return Header(version, _config(values, tied=bool(tied)), group, HEADER_BYTES)


def _config(numbers: Sequence[int], *, tied: bool) -> dict[str, Any]:
    """Return Hugging Face's config.

    In version 0 a vocabulary below zero says that the head is not a copy of the embedding.
    """
    hidden, inner, layers, heads, key_value_heads, vocabulary, positions = numbers
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_value_heads,
        "vocab_size": abs(vocabulary),
        "max_position_embeddings": positions,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": tied,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


def _order(config: ModelConfig, version: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield every tensor's name and shape in the order of the file."""
    shapes, outer = config.tensor_shapes(), config.outer_shapes()
    layers = range(config.num_hidden_layers)

    def of_layers(*names: str) -> Iterator[tuple[str, tuple[int, ...]]]:
        for name in names:
            for index in layers:
                yield f"model.layers.{index}.{name}", shapes[name]

    if version == 0:
        yield EMBEDDING, outer[EMBEDDING]
        yield from of_layers(NORMS[0], *ATTENTION, NORMS[1], *FEED_FORWARD)
        yield NORM, outer[NORM]
        for table in ("cosines", "sines"):  # which every reader computes
            yield f"{ROTARY_TABLE}{table}", (config.max_position_embeddings, config.head_dim // 2)
    else:
        yield from of_layers(*NORMS)
        yield NORM, outer[NORM]
        yield EMBEDDING, outer[EMBEDDING]
        yield from of_layers(*ATTENTION, *FEED_FORWARD)
    if HEAD in outer:
        yield HEAD, outer[HEAD]
