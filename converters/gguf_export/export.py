"""A model folder as one GGUF file: the same codes where llama.cpp has a block type for them."""

from __future__ import annotations

import errno
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgellm.checkpoint.folder import GENERATION_CONFIG
from edgellm.checkpoint.model_config import ModelConfig, token_ids
from edgellm.converters.convert import SPARE_BYTES, ConversionStep, ConvertCallback
from edgellm.converters.gguf.model_config import PERMUTED, ROPE_FACTORS, gguf_name, stretch_factors
from edgellm.converters.gguf_export.matrices import GgufMatrix
from edgellm.converters.gguf_export.vocabulary import ADD_SPACE, vocabulary_metadata
from edgellm.converters.gguf_export.writer import GgufOutput, write_gguf
from edgellm.converters.huggingface.source import HuggingFaceSource
from edgellm.converters.tensors.recipe import ConversionSettings, make_recipe
from edgellm.errors import ConversionError, UnsupportedModelError
from edgellm.files.atomic import Data
from edgellm.files.strict_json import read_json
from edgellm.hub.resolve import locate
from edgellm.tokenizer.added_tokens import read_settings

FILE_TYPES: Mapping[str, int] = {"F32": 0, "F16": 1, "Q4_1": 3, "Q8_0": 7, "Q5_1": 9, "BF16": 32}
"""llama.cpp's number for a file by the type that most of its weights have; for people only."""


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export has made.

    Attributes:
        path: the file.
        file_bytes: its size.
        kinds: matrices of each of llama.cpp's types.
        errors: of each matrix that is not exactly what it was, by its path: the root mean square of
            the change over that of the weights.
        notes: where llama.cpp will not compute what edgellm does.
    """

    path: Path
    file_bytes: int
    kinds: Mapping[str, int]
    errors: Mapping[str, float]
    notes: tuple[str, ...]


def export(
    model: str | Path,
    destination: str | Path,
    *,
    force: bool = False,
    progress: ConvertCallback | None = None,
) -> ExportReport:
    """Make a GGUF file of a model folder.

    4-bit matrices become Q4_1, 5-bit ones Q5_1, with their own codes; 8-bit ones Q8_0; other
    quantized ones F16; unquantized ones stay as they are.

    Args:
        model: a folder, a bundled name or a Hub id.
        destination: the file to be made.
        force: replace the file that is there, once the new one is whole.
        progress: called after each piece of the model.

    Raises:
        ModelNotFoundError, DownloadError, FormatError, ReadError, TokenizerError: the model is not
        there, or damaged.
        UnsupportedModelError: llama.cpp does not run such a model.
        ConversionError: the destination is taken, there is no space, or the disk refuses.
    """
    path = Path(destination).expanduser().resolve()
    if path.is_dir():
        raise ConversionError(f"{path} is a folder", hint="name a file that ends in .gguf")
    if path.exists() and not force:
        raise ConversionError(
            f"{path} already exists", hint="name another one, or replace it with --force"
        )
    folder = locate(model)
    source = HuggingFaceSource(folder)
    recipe = make_recipe(source, ConversionSettings(bits=16))
    config = ModelConfig.from_dict(recipe.config)
    read = _Meter(
        path.name, sum(file.source_bytes for file in recipe.files), progress or (lambda _: None)
    )
    matrices = {
        tensor.name: GgufMatrix(
            source=source,
            path=tensor.name
            if tensor.matrix is None or tensor.matrix.stored is None
            else tensor.matrix.path,
            shape=tensor.shape,
            stored=tensor.matrix.stored if tensor.matrix else None,
            head_dim=config.head_dim
            if _kind(config) == "llama" and tensor.name.endswith(_PERMUTED)
            else None,
            on_read=read,
        )
        for file in recipe.files
        for tensor in file.tensors
    }
    ends = config.eos_token_ids
    if (folder / GENERATION_CONFIG).exists():
        ends |= token_ids(read_json(folder / GENERATION_CONFIG).get("eos_token_id"))
    metadata = _metadata(
        config, folder.resolve().name, {name: matrix.kind for name, matrix in matrices.items()}
    )
    vocabulary = vocabulary_metadata(folder, config.vocab_size, ends)
    metadata |= vocabulary
    notes = _notes(config, folder, vocabulary)
    for note in notes:
        read.say(note)
    outputs = [
        *_stretch(config),
        *(GgufOutput(gguf_name(name), m.kind, m.shape, m.pieces) for name, m in matrices.items()),
    ]
    _require_space(path, sum(output.nbytes for output in outputs))
    record = write_gguf(path, metadata, outputs)
    wide = {name: matrix for name, matrix in matrices.items() if len(matrix.shape) > 1}
    return ExportReport(
        path=path,
        file_bytes=record.size,
        kinds=Counter(matrix.kind for matrix in wide.values()),
        errors={
            name.removesuffix(".weight"): matrix.error
            for name, matrix in wide.items()
            if matrix.error
        },
        notes=tuple(notes),
    )


class _Meter:
    """Counts the model's bytes for whoever watches."""

    def __init__(self, file: str, total: int, progress: ConvertCallback) -> None:
        self._file, self._total, self._progress = file, total, progress
        self._done = 0

    def __call__(self, nbytes: int) -> None:
        self._done += nbytes
        self._progress(ConversionStep(self._file, self._done, self._total, None))

    def say(self, message: str) -> None:
        self._progress(ConversionStep("", self._done, self._total, message))


def _kind(config: ModelConfig) -> str:
    """What llama.cpp calls this kind of model. Raises UnsupportedModelError."""
    if config.model_type in ("qwen2", "qwen3") and (config.output_bias or config.mlp_bias):
        raise UnsupportedModelError(f"llama.cpp's {config.model_type} has no such biases")
    if config.model_type == "qwen3" and config.qkv_bias:
        raise UnsupportedModelError("llama.cpp's qwen3 has no biases")
    return "llama" if config.model_type == "mistral" else config.model_type


def _notes(config: ModelConfig, folder: Path, vocabulary: Mapping[str, Any]) -> list[str]:
    notes = []
    if config.sliding_window is not None:
        notes.append(
            f"llama.cpp attends to all tokens, also to those before this model's window of {config.sliding_window}"
        )
    pieces = not (folder / "tokenizer.json").exists() and vocabulary[ADD_SPACE]
    if pieces and not read_settings(folder).flag("legacy", False):
        notes.append(
            "after a special token within a text llama.cpp puts a space, and this model's tokenizer does not"
        )
    return notes


def _metadata(config: ModelConfig, name: str, kinds: Mapping[str, str]) -> dict[str, Any]:
    """What the file says of the model's shape."""
    kind = _kind(config)
    usual = Counter(
        kinds[name] for name in kinds if name.startswith("model.layers.0.") and "_proj" in name
    ).most_common(1)
    scaling = config.rope_scaling
    said: dict[str, Any] = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.dimension_count": config.head_dim,
        "rope.freq_base": config.rope_theta,
        "vocab_size": config.vocab_size,
    }
    if scaling is not None and scaling.kind == "linear":
        said |= {"rope.scaling.type": "linear", "rope.scaling.factor": scaling.factor}
    if scaling is not None and scaling.kind == "llama3":  # the factors themselves are a tensor
        said["rope.scaling.original_context_length"] = scaling.original_max_position_embeddings
    return {
        "general.architecture": kind,
        "general.type": "model",
        "general.name": name,
        "general.file_type": FILE_TYPES[usual[0][0]],
        "general.quantization_version": 2,
    } | {f"{kind}.{key}": value for key, value in said.items()}


def _stretch(config: ModelConfig) -> Iterator[GgufOutput]:
    """Llama 3's stretching of the rotary wavelengths, as llama.cpp takes it."""
    if config.rope_scaling is not None and config.rope_scaling.kind == "llama3":
        factors = stretch_factors(config.head_dim, config.rope_theta, config.rope_scaling)

        def pieces() -> Iterator[Data]:
            yield factors

        yield GgufOutput(ROPE_FACTORS, "F32", factors.shape, pieces)


def _require_space(path: Path, needed: int) -> None:
    """Refuse at once what cannot end well. Raises ConversionError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(path.parent).free
    except OSError as error:
        raise ConversionError(
            f"{path} cannot be written: {error.strerror or os.strerror(errno.EIO)}"
        ) from error
    if needed + SPARE_BYTES > free:
        raise ConversionError(
            f"{path} needs {needed / 1e9:.1f} GB and the disk has {free / 1e9:.1f} GB free",
            hint="free some space, or name a destination on another disk",
        )


_PERMUTED = tuple(f".{path}.{part}" for path in PERMUTED for part in ("weight", "bias"))
