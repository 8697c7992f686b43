"""A model folder of either kind: ours, or one that mlx-lm's own model class runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlx.core as mx

from edgellm.checkpoint.checkpoint import Checkpoint, checkpoint_of, end_tokens
from edgellm.checkpoint.folder import ModelFolder, inside, open_folder, read_headers
from edgellm.checkpoint.model_config import CommonConfig, is_known_family, unknown_family
from edgellm.checkpoint.quantization import FLOATS
from edgellm.errors import FormatError, UnsupportedModelError
from edgellm.files.strict_json import quoted, read_json
from edgellm.models.through_mlx_lm import library
from edgellm.models.through_mlx_lm.cache import CacheGrowth, measure_growth
from edgellm.models.through_mlx_lm.hollow import folder_on_disk
from edgellm.models.through_mlx_lm.old_words import in_old_words, say_unread_scaling
from edgellm.settings import MAX_CONTEXT, is_int

CONTEXT_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "max_sequence_length",
    "max_seq_len",
    "seq_length",
    "n_ctx",
    "model_max_length",
)
"""Where configs say how long a text may be."""

USUAL_CONTEXT = 32768
"""Tokens, where a config says nothing, as those of state-space models do not."""

LAYER_KEYS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
HEAD_KEYS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
WIDTH_KEYS = ("hidden_size", "d_model", "n_embd", "model_dim", "dim")

MOST_MODULES = 4096
"""Layers or experts that a config may ask for; more where there are as many tensors. Each is made
in Python before the first tensor is missed."""

NEVER_ZERO = ("heads", "head_dim", "hidden_size", "group_size", "n_groups")
"""Ends of keys whose numbers have to be above 0."""

LARGEST_NUMBER = 1 << 40
"""Of a whole number in a config."""

WEIGHTS = "model*.safetensors"
"""The files that mlx-lm reads, whatever an index says."""

NVIDIA_CONFIG = "hf_quant_config.json"
"""Which mlx-lm reads too."""


@dataclass(frozen=True, slots=True)
class MLXLMCheckpoint:
    """A model folder that mlx-lm's own model class runs.

    Attributes:
        folder: the files.
        config: the model's numbers.
        dtype: the type of most unquantized weights, by safetensors' code.
        eos_token_ids: tokens that end a text.
        hidden_size: of a token's state; None where the config does not say it.
        attention_heads: in a layer; None likewise.
        weight_bytes: bytes of all weights in memory, as mlx-lm makes them of those stored.
        parameters: how many it has.
        usual_bits: of most weights; 16 stands for all that is not quantized.
        caches: how a sequence's caches grow.
        settings: settings that mlx-lm takes instead of those in the config.
    """

    folder: ModelFolder
    config: CommonConfig
    dtype: str
    eos_token_ids: frozenset[int]
    hidden_size: int | None
    attention_heads: int | None
    weight_bytes: int
    parameters: int
    usual_bits: int
    caches: CacheGrowth
    settings: dict[str, Any]

    @property
    def nbytes(self) -> int:
        """Bytes of all weights on disk."""
        return sum(tensor.nbytes for tensor in self.folder.tensors.values())


AnyCheckpoint = Checkpoint | MLXLMCheckpoint


def read_any_checkpoint(path: Path) -> AnyCheckpoint:
    """Read a model folder's config and headers, and check them.

    Raises:
        ModelNotFoundError, ReadError, FormatError: as ``read_checkpoint``.
        UnsupportedModelError: neither edgellm nor mlx-lm runs it, or it needs code of its own.
    """
    return any_checkpoint_of(open_folder(path))


def any_checkpoint_of(folder: ModelFolder) -> AnyCheckpoint:
    """Check a folder's tensors against its config. Raises as ``read_any_checkpoint``."""
    if is_known_family(folder.config):
        return checkpoint_of(folder)
    return _mlx_lm_checkpoint(folder)


def _mlx_lm_checkpoint(folder: ModelFolder) -> MLXLMCheckpoint:
    raw = folder.config
    _refuse_code(raw)
    tensors = folder.tensors
    if folder.path.is_dir():
        tensors = read_headers(inside(folder.path, file.name) for file in _read_by_mlx_lm(folder))
        if (folder.path / NVIDIA_CONFIG).exists():
            _check_numbers(read_json(inside(folder.path, NVIDIA_CONFIG)), MOST_MODULES)
    folder = replace(folder, tensors=tensors)
    _check_numbers(raw, most=max(MOST_MODULES, len(tensors)))
    settings = in_old_words(raw)
    with folder_on_disk(folder) as path:
        model = library.open_model(path, settings=settings, name=folder.path)
        say_unread_scaling(raw, settings, path)
    with library.renamed_errors(f"cannot run {folder.path}"):
        vocab_size, caches = measure_growth(model)
    numbers = _numbers(raw)
    config = CommonConfig(
        model_type=str(raw.get("model_type")),
        num_hidden_layers=_first(numbers, LAYER_KEYS) or len(model.layers),
        vocab_size=vocab_size,
        max_position_embeddings=min(_first(numbers, CONTEXT_KEYS) or USUAL_CONTEXT, MAX_CONTEXT),
    )
    weights = library.arrays_in(model.parameters())
    return MLXLMCheckpoint(
        folder=folder,
        config=config,
        dtype=_usual_dtype(folder),
        eos_token_ids=end_tokens(replace(folder, config=numbers), vocab_size),
        hidden_size=_first(numbers, WIDTH_KEYS),
        attention_heads=_first(numbers, HEAD_KEYS),
        weight_bytes=sum(array.nbytes for array in weights),
        parameters=library.count_parameters(model),
        usual_bits=_usual_bits(model),
        caches=caches,
        settings=settings,
    )


def _refuse_code(raw: Mapping[str, Any]) -> None:
    """Raise UnsupportedModelError for what neither edgellm nor mlx-lm has, or code would have."""
    if raw.get("model_file") is not None:
        raise UnsupportedModelError(
            f"config.json names code to run (model_file {quoted(raw['model_file'])}), and "
            "edgellm runs no code from a model's folder",
            hint="take a model of a family that edgellm or mlx-lm has",
        )
    model_type = raw.get("model_type")
    if library.has_family(model_type):
        return  # whatever auto_map names, mlx-lm's own class is there and nobody looks at it
    if raw.get("auto_map") is not None:
        raise UnsupportedModelError(
            f"model_type {quoted(model_type)} is defined only by code in the model's folder "
            "(auto_map), which edgellm does not run",
            hint=f"take a model of a family that edgellm or {library.mlx_lm_name()} has",
        )
    raise unknown_family(model_type, also=library.mlx_lm_name())


def _read_by_mlx_lm(folder: ModelFolder) -> list[Path]:
    """Return the files that mlx-lm reads; more than ours where an index leaves some out."""
    return sorted(folder.path.glob(WEIGHTS))


def _check_numbers(value: Any, most: int, key: str = "") -> None:
    """Raise FormatError for numbers of a config that mlx-lm would run out of time or memory by."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            _check_numbers(item, most, str(name))
    elif isinstance(value, list):
        for item in value:
            _check_numbers(item, most)
    elif is_int(value):
        is_count = "layer" in key or "expert" in key
        limit = most if is_count else LARGEST_NUMBER
        claim = f"config.json: {quoted(key)} is {quoted(value)}"
        if abs(value) > limit:
            raise FormatError(f"{claim}; the maximum is {limit}")
        if value < 1 and key.endswith(NEVER_ZERO):
            raise FormatError(f"{claim}; it must be above 0")


def _numbers(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with what the text part of a model that also sees says of itself."""
    text = raw.get("text_config")
    if not isinstance(text, Mapping):
        return dict(raw)
    return {**raw, **text}


def _first(numbers: Mapping[str, Any], keys: tuple[str, ...]) -> int | None:
    """Return the first whole number above 0 under one of these keys."""
    for key in keys:
        value = numbers.get(key)
        if is_int(value) and value > 0:
            return value
    return None


def _usual_dtype(folder: ModelFolder) -> str:
    sizes: Counter[str] = Counter()
    for tensor in folder.tensors.values():
        if tensor.dtype in FLOATS:
            sizes[tensor.dtype] += tensor.nbytes
    if not sizes:
        return "BF16"
    return sizes.most_common(1)[0][0]


def _usual_bits(model: Any) -> int:
    """Return the bits of most weights; 16 stands for all that is not quantized."""
    sizes: Counter[int] = Counter()
    for _, module in model.named_modules():
        weight = module.get("weight")
        if isinstance(weight, mx.array) and weight.ndim > 1:
            sizes[getattr(module, "bits", 16)] += weight.nbytes
    return max(sizes, key=lambda bits: sizes[bits], default=16)
