"""The shape of a model that is to be made: its config, its tensors and its tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgellm.checkpoint.dialects.names import BLOCKS, spelled
from edgellm.checkpoint.folder import CONFIG, LAYER_PREFIX, inside, no_config
from edgellm.checkpoint.model_config import ModelConfig
from edgellm.converters.huggingface.source import companions_in
from edgellm.converters.synthetic.byte_tokenizer import BYTES, tokenizer_files
from edgellm.converters.tensors.settings import CODES
from edgellm.errors import ConfigError
from edgellm.files.given_path import given_path
from edgellm.files.strict_json import read_json
from edgellm.models.presets import shape_config
from edgellm.tokenizer.tokenizer import has_vocabulary


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A model without weights.

    Attributes:
        config: as its ``config.json`` says it.
        numbers: the config checked.
        code: the format's code of its unquantized type.
        companions: files of its tokenizer, by name.
    """

    config: Mapping[str, Any]
    numbers: ModelConfig
    code: str
    companions: Mapping[str, Path | bytes]

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of all tensors, by their full names."""
        shapes = self.numbers.outer_shapes()
        for index in range(self.numbers.num_hidden_layers):
            shapes |= {
                f"{LAYER_PREFIX}{index}.{name}": size
                for name, size in self.numbers.tensor_shapes().items()
            }
        return shapes


def shape_of(shape: str | Path, *, dtype: str | None = None) -> ModelShape:
    """Return a published model's shape, or that of a folder with a ``config.json``.

    A published shape has a tokenizer of bytes; a folder has its own, if there is one.

    Args:
        shape: a name of ``presets.SHAPES``, or a folder.
        dtype: ``float16``, ``bfloat16`` or ``float32``; None: the config's.

    Raises:
        ConfigError: there is no such shape, or the tokenizer of bytes does not fit.
        FormatError, ReadError, UnsupportedModelError: the folder's config is none.
    """
    folder = given_path(shape)
    companions: Mapping[str, Path | bytes] = {}
    if folder.is_dir():
        if not (folder / CONFIG).exists():
            raise no_config(folder)
        raw = spelled(read_json(inside(folder, CONFIG), finite=False), {}).config
        for key in BLOCKS:  # weights that are drawn are stored as it is asked for now
            raw.pop(key, None)
        companions = companions_in(folder)
    else:
        raw = spelled(shape_config(str(shape)), {}).config
    raw["torch_dtype"] = dtype or raw.get("torch_dtype") or raw.pop("dtype", None) or "float32"
    raw.pop("dtype", None)
    if not has_vocabulary(companions):
        raw |= {"bos_token_id": BYTES, "eos_token_id": BYTES + 1}
        if raw["vocab_size"] < BYTES + 2:
            raise ConfigError(
                f"a vocabulary of {raw['vocab_size']} has no room for a tokenizer of bytes",
                hint="put the files of a tokenizer beside config.json",
            )
        companions = tokenizer_files(raw["vocab_size"], raw["max_position_embeddings"])
    if raw["torch_dtype"] not in CODES:
        raise ConfigError(
            f"the config's type is {raw['torch_dtype']!r}", hint=f"give --dtype {next(iter(CODES))}"
        )
    return ModelShape(raw, ModelConfig.from_dict(raw), CODES[raw["torch_dtype"]], companions)
