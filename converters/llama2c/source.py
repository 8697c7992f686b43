"""llama2.c's model files as a source: versions 0 and 1 in float32, version 2 in groups of int8.

All begin with seven numbers and hold the tensors one after the other, each kind for all layers;
heads are in Meta's order.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.checkpoint.model_config import ModelConfig
from edgellm.checkpoint.quantization import GROUP_SIZES, Quantization, chosen_quantization
from edgellm.converters.llama2c.tokenizer import TOKENIZER, tokenizer_files
from edgellm.converters.tensors.file_marks import LLAMA2C_MAGIC, LLAMA2C_NUMBERS
from edgellm.converters.tensors.file_rows import files_fingerprint, read_span
from edgellm.converters.tensors.rope_permutation import halves_from_pairs
from edgellm.converters.tensors.source import Bytes, SourceTensor
from edgellm.errors import FormatError, ReadError, TokenizerError
from edgellm.files.strict_json import require_regular_file

HEADER = struct.Struct("<4si7iB")
GROUP = struct.Struct("<i")
HEADER_BYTES = 256
"""Of versions 1 and 2; version 0 has only the seven numbers."""

INT8_BITS = 8
FITTING = 64
"""The group in which int8 values are quantized again where theirs is none of MLX's."""

NORMS = ("input_layernorm.weight", "post_attention_layernorm.weight")
ATTENTION = tuple(f"self_attn.{letter}_proj.weight" for letter in "qkvo")
FEED_FORWARD = ("mlp.gate_proj.weight", "mlp.down_proj.weight", "mlp.up_proj.weight")
ROTATED = ("self_attn.q_proj", "self_attn.k_proj")
EMBEDDING, NORM, HEAD = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"
TABLE = "table of "


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of itself."""

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
        self._kept = self._group in GROUP_SIZES and not any(width % self._group for width in widths)
        self._shapes = dict(order)
        self._places: dict[str, int] = {}
        self.tensors: dict[str, SourceTensor] = {}
        self.forms: dict[str, Quantization] = {}
        end = header.start
        for name, shape in order:
            self._places[name] = end
            count = math.prod(shape)
            end += count + count // self._group * 4 if self._is_quantized(shape) else count * 4
            if not name.startswith(TABLE):
                self._show(name, shape)
        if end != size:
            fault = "is cut short" if end > size else "holds more than its numbers say"
            raise FormatError(f"{path} {fault}: its tensors end at byte {end}, the file at {size}")
        if self._kept:
            self.config["quantization"] = Quantization(INT8_BITS, self._group).as_config()

    @property
    def notes(self) -> Sequence[str]:
        """Whether int8 values cannot be kept."""
        if not self._group or self._kept:
            return ()
        return (
            f"rows are no whole groups of a size that MLX has (here {self._group}): the int8 values are quantized again",
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
        tokenizer = self.path.with_name(TOKENIZER)
        return files_fingerprint([self.path, *([tokenizer] if tokenizer.exists() else [])])

    def rows(self, name: str, start: int, stop: int) -> Bytes:
        """The bytes of some rows, heads in Hugging Face's order."""
        if name.rpartition(".")[0].endswith(ROTATED):
            return halves_from_pairs(
                lambda first, last: self._rows(name, first, last), self._model.head_dim, start, stop
            )
        return self._rows(name, start, stop)

    def _is_quantized(self, shape: tuple[int, ...]) -> bool:
        return bool(self._group) and len(shape) == 2

    def _show(self, name: str, shape: tuple[int, ...]) -> None:
        path = name.removesuffix(".weight")
        if self._is_quantized(shape) and self._kept:
            for part, stored in (
                Quantization(INT8_BITS, self._group).stored(shape[0], shape[1], "F32").items()
            ):
                self.tensors[f"{path}.{part}"] = SourceTensor(*stored)
            return
        self.tensors[name] = SourceTensor("F32", shape)
        form = (
            chosen_quantization(shape[1], INT8_BITS, FITTING) if self._is_quantized(shape) else None
        )
        if form is not None:
            self.forms[path] = form

    def _rows(self, name: str, start: int, stop: int) -> Bytes:
        """The bytes of some rows in the file's own order."""
        path, _, part = name.rpartition(".")
        place = self._places[f"{path}.weight"]
        shape = self._shapes[f"{path}.weight"]
        columns = math.prod(shape[1:])
        if not self._is_quantized(shape):
            return read_span(self.path, place + start * columns * 4, (stop - start) * columns * 4)
        first, last = start * columns, stop * columns
        if self._kept and part == "weight":
            # int8 from -128 on: codes from 0 on
            return read_span(self.path, place + first, last - first) ^ np.uint8(0x80)
        low, high = first // self._group, -(-last // self._group)
        scales = read_span(self.path, place + math.prod(shape) + low * 4, (high - low) * 4).view(
            np.float32
        )
        if not self._kept:
            codes = read_span(self.path, place + first, last - first).view(np.int8)
            spread = np.repeat(scales, self._group)[first - low * self._group :][: last - first]
            return (codes * spread).view(np.uint8)
        return (scales if part == "scales" else scales * np.float32(-128)).view(np.uint8)


def _read_header(path: Path) -> Header:
    try:
        with path.open("rb") as file:
            head = file.read(HEADER_BYTES)
    except OSError as error:
        raise ReadError(f"{path} cannot be read: {error.strerror}") from error
    try:
        if not head.startswith(LLAMA2C_MAGIC):
            numbers = LLAMA2C_NUMBERS.unpack_from(head)
            return Header(0, _config(numbers, tied=numbers[5] > 0), 0, LLAMA2C_NUMBERS.size)
        _, version, *values, tied = HEADER.unpack_from(head)
        group = GROUP.unpack_from(head, HEADER.size)[0] if version == 2 else 0
    except struct.error as error:
        raise FormatError(f"{path} is cut short") from error
    if (
        version not in (1, 2)
        or tied not in (0, 1)
        or (version == 2 and not 1 <= group <= 1 << 16)
        or len(head) < HEADER_BYTES
    ):
        raise FormatError(
            f"{path} is damaged, or of a version of llama2.c's that edgellm does not know ({version})"
        )
    return Header(version, _config(values, tied=bool(tied)), group, HEADER_BYTES)


def _config(numbers: Sequence[int], *, tied: bool) -> dict[str, Any]:
    """Hugging Face's config; a vocabulary below zero says in version 0 that the head is no copy of the embedding."""
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
    """Every tensor's name and shape in the order of the file."""
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
            yield f"{TABLE}{table}", (config.max_position_embeddings, config.head_dim // 2)
    else:
        yield from of_layers(*NORMS)
        yield NORM, outer[NORM]
        yield EMBEDDING, outer[EMBEDDING]
        yield from of_layers(*ATTENTION, *FEED_FORWARD)
    if HEAD in outer:
        yield HEAD, outer[HEAD]
