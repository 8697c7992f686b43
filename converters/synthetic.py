"""Model folders of a known shape with random weights, to measure a machine with."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.checkpoint.buffer import DTYPES
from edgellm.checkpoint.dialects.names import spelled
from edgellm.checkpoint.model_config import ModelConfig
from edgellm.checkpoint.quantization import (
    DEFAULT_BITS,
    DEFAULT_GROUP_SIZE,
    Quantization,
    chosen_quantization,
    quantization_block,
)
from edgellm.checkpoint.safetensors_file import DTYPE_BYTES
from edgellm.converters.conversion import (
    ConversionReport,
    ConvertCallback,
    convert_source,
)
from edgellm.converters.destination import destination_path
from edgellm.converters.tensors.settings import CODES, UNQUANTIZED_BITS, ConversionSettings
from edgellm.converters.tensors.source import AS_SHOWN, Bytes, SourceTensor
from edgellm.device.machine import core_count
from edgellm.models.presets import shape_config
from edgellm.tokenizer.detokenizer import BYTE_OF

BEGIN, END = "<|begin|>", "<|end|>"
BYTES = 256
"""Ids below it are bytes; the special tokens come next, then what pads the vocabulary."""

TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<' + message['role'] + '>\n' + message['content'] + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>\n' }}{% endif %}"
)
WORKERS = 4
"""Files made at the same time: a disk writes faster than a core makes numbers and checksums."""

LEVELS = 256
"""Different values of a scale, a norm or a bias: one for each random byte."""

_FLOAT_BITS: Mapping[str, tuple[type[np.unsignedinteger[Any]], int, int]] = {
    "F16": (np.uint16, 10, 5),
    "BF16": (np.uint16, 7, 8),
    "F32": (np.uint32, 23, 8),
}
"""An unsigned type of the same width, and the bits of fraction and exponent."""


def synthesize(
    shape: str,
    destination: str | Path,
    *,
    bits: int = DEFAULT_BITS,
    group_size: int | None = None,
    dtype: str | None = None,
    seed: int = 0,
    force: bool = False,
    progress: ConvertCallback | None = None,
) -> ConversionReport:
    """Make a model folder of random weights, the same each time, laid out as by ``convert``.

    Args:
        shape: a name in ``shapes.SHAPES``.
        destination: the folder to be made.
        bits: 1, 2, 3, 4, 5, 6, 8, or 16 for unquantized.
        group_size: weights a scale, 32, 64 or 128; None: 64.
        dtype: ``float16``, ``bfloat16`` or ``float32``; None: the published model's.
        seed: the seed of the weights.
        force: replace the model that is at the destination.
        progress: called after each piece.

    Raises:
        ConfigError: there is no such shape, or a setting is out of range.
        ConversionError: the destination is taken, there is no space, or the disk refuses.
    """
    settings = ConversionSettings(bits=bits, group_size=group_size, dtype=dtype)
    quantization = None
    if bits < UNQUANTIZED_BITS:
        quantization = Quantization(bits, group_size or DEFAULT_GROUP_SIZE)
        settings = ConversionSettings()  # the source comes quantized, and is taken as it is
    source = SyntheticSource(shape, quantization, dtype=dtype, seed=seed)
    return convert_source(
        source,
        destination_path(destination),
        settings,
        force=force,
        report=False,
        progress=progress or (lambda _: None),
        workers=min(WORKERS, core_count()),
        command="edgellm synth",
    )


class SyntheticSource:
    """A source of random numbers in a model's shape, quantized; a row is always the same.

    Codes are uniform, and scales such that a matrix keeps the size of what it multiplies, so that
    activations stay in range through any number of layers.
    """

    notes: Sequence[str] = ()
    forms = AS_SHOWN

    def __init__(
        self,
        shape: str,
        quantization: Quantization | None,
        *,
        dtype: str | None = None,
        seed: int = 0,
    ) -> None:
        raw = spelled(shape_config(shape), {}).config | {
            "bos_token_id": BYTES,
            "eos_token_id": BYTES + 1,
        }
        if dtype is not None:
            raw["torch_dtype"] = dtype
        code = CODES[raw["torch_dtype"]]
        config = ModelConfig.from_dict(raw)
        shapes = config.outer_shapes()
        for index in range(config.num_hidden_layers):
            shapes |= {
                f"model.layers.{index}.{name}": size
                for name, size in config.tensor_shapes().items()
            }
        self.tensors: Mapping[str, SourceTensor] = {}
        self._tables: dict[str, npt.NDArray[Any]] = {}
        self._columns: dict[str, int] = {}
        forms: dict[str, Quantization | None] = {}
        for name, size in shapes.items():
            path, _, part = name.rpartition(".")
            if len(size) == 2:
                forms[path] = None
                if quantization:
                    forms[path] = chosen_quantization(
                        size[1], quantization.bits, quantization.group_size
                    )
            form = forms.get(path)
            if len(size) == 2 and form is not None:
                self.tensors |= {
                    f"{path}.{part}": SourceTensor(*stored)
                    for part, stored in form.stored(size[0], size[1], code).items()
                }
                self._tables |= {
                    f"{path}.{part}": table for part, table in _scales(form, size[1], code).items()
                }
                continue
            self.tensors |= {name: SourceTensor(code, size)}
            if len(size) == 2:
                self._columns[name] = size[1]
            else:
                self._tables[name] = _stored(
                    np.linspace(-0.1, 0.1, LEVELS) + (part == "weight"), code
                )
        if quantization:
            raw["quantization"] = quantization_block(quantization, forms)
        self.config: Mapping[str, Any] = raw
        self.companions: Mapping[str, Path | bytes] = tokenizer_files(
            config.vocab_size, config.max_position_embeddings
        )
        self._seed = seed

    @property
    def fingerprint(self) -> str:
        """The seed; all else the recipe's digest tells apart."""
        return f"synthetic {self._seed}"

    def rows(self, name: str, start: int, stop: int) -> Bytes:
        """Make the bytes of rows ``start`` to ``stop`` of a tensor, shape (bytes,)."""
        tensor = self.tensors[name]
        begin, end = start * tensor.row_bytes, stop * tensor.row_bytes
        if name in self._tables:
            width = DTYPE_BYTES[tensor.dtype]
            scales = name.removesuffix(".biases") + ".scales"
            of = scales if name.endswith(".biases") and scales in self._tables else name
            return self._tables[name][self._random(of, begin // width, end // width)].view(np.uint8)
        numbers = self._random(name, begin, end)
        if name in self._columns:
            _make_floats(numbers, tensor.dtype, self._columns[name] ** -0.5)
        return numbers

    def _random(self, name: str, begin: int, end: int) -> Bytes:
        """Make bytes ``begin`` to ``end`` of an endless stream that name and seed determine."""
        key = hashlib.sha256(f"{self._seed} {name}".encode()).digest()
        stream = np.random.PCG64DXSM(int.from_bytes(key, "little")).advance(begin // 8)
        words = stream.random_raw(-(-end // 8) - begin // 8)
        return words.view(np.uint8)[begin % 8 : begin % 8 + end - begin]


def _scales(form: Quantization, columns: int, code: str) -> dict[str, npt.NDArray[Any]]:
    """Return scales and biases by random byte; uniform codes then have variance 1 / columns."""
    deviation = math.sqrt((4**form.bits - 1) / 12)
    scales = np.linspace(0.75, 1.25, LEVELS) / (deviation * math.sqrt(columns))
    return {
        "scales": _stored(scales, code),
        "biases": _stored(scales * -(2**form.bits - 1) / 2, code),
    }


def _stored(values: npt.NDArray[np.float64], code: str) -> npt.NDArray[Any]:
    """Numbers as the format stores them, each as one unsigned integer."""
    array = mx.array(values.astype(np.float32)).astype(DTYPES[code])
    return np.array(array.view(mx.uint8)).view(_FLOAT_BITS[code][0])


def _make_floats(numbers: Bytes, code: str, deviation: float) -> None:
    """Turn random bytes into random floats in place.

    Sign, fraction and the lowest bit of the exponent stay as they are.
    What comes out lies between 1 and 4 times a power of 4, with a deviation of 2.4 times that
    power.
    """
    unsigned, fraction, exponent = _FLOAT_BITS[code]
    words = numbers.view(unsigned)
    middle = (1 << (exponent - 1)) - 1
    smallest = (middle + round(math.log2(deviation / 2.4))) & ~1
    words &= unsigned((1 << (fraction + exponent)) | ((2 << fraction) - 1))
    words |= unsigned(smallest << fraction)


def tokenizer_files(vocabulary: int, context: int) -> dict[str, Path | bytes]:
    """Make a tokenizer of bytes, padded with tokens that no text contains, and a chat template."""
    vocab = dict(sorted(BYTE_OF.items(), key=lambda item: item[1]))
    specials = {BEGIN: BYTES, END: BYTES + 1}
    vocab |= specials
    vocab |= {f"Ġ<{number}>": number for number in range(len(vocab), vocabulary)}
    switches = ("single_word", "lstrip", "rstrip", "normalized")
    plain = {"special": True} | dict.fromkeys(switches, False)
    by_bytes = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": number, "content": token} | plain for token, number in specials.items()
        ],
        "normalizer": None,
        "pre_tokenizer": by_bytes,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": BEGIN, "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            "pair": [
                {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {BEGIN: {"id": BEGIN, "ids": [BYTES], "tokens": [BEGIN]}},
        },
        "decoder": by_bytes,
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    }
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BEGIN,
        "eos_token": END,
        "clean_up_tokenization_spaces": False,
        "model_max_length": context,
        "chat_template": TEMPLATE,
    }
    return {
        "tokenizer.json": json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")).encode(),
        "tokenizer_config.json": json.dumps(settings, indent=2).encode(),
    }
