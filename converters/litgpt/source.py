"""LitGPT's ``lit_model.pth``, and Lit-LLaMA's bare .pth, as a source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.checkpoint.folder import CONFIG, LAYER_PREFIX, inside
from edgellm.converters.huggingface.source import companions_in, read_shown, shown_dtype
from edgellm.converters.huggingface.torch_file import TorchTensor, read_torch_file
from edgellm.converters.litgpt.layer_kinds import POST_NORMS, WAY_ROUND
from edgellm.converters.litgpt.lit_llama import lit_llama_config
from edgellm.converters.litgpt.model_config import (
    LitShape,
    config_of,
    in_todays_words,
    shape_of,
)
from edgellm.converters.litgpt.tensor_names import (
    EMBEDDING,
    HEAD,
    LIT_LLAMA_QKV,
    PARTS,
    heads_of_parts,
    huggingface_paths,
)
from edgellm.converters.litgpt.yaml_file import read_yaml
from edgellm.converters.tensors.file_rows import (
    LIT_LLAMA_FILE,
    LITGPT_ADAPTER,
    LITGPT_FILE,
    files_fingerprint,
)
from edgellm.converters.tensors.rope_permutation import halves_from_pairs
from edgellm.converters.tensors.source import (
    AS_SHOWN,
    Bytes,
    SourceTensor,
    have_same_rows,
    require_no_more_layers,
)
from edgellm.errors import FormatError, UnsupportedModelError
from edgellm.files.strict_json import quoted, read_json
from edgellm.tokenizer.tokenizer import has_vocabulary

TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
CONFIG_FILES = ("model_config.yaml", "lit_config.json")
MODEL = "model"
"""Where Fabric saves the weights beside whatever else a training needs."""

COMPILED = "_orig_mod."
"""What torch.compile puts into names."""

PARAMETERS = {"weight": "weight", "bias": "bias", "scale": "weight"}
"""Last parts of names; ``scale`` is Lit-LLaMA's word for a norm's weight."""

VALUES = PARTS[2]
LIT_LLAMA_TOKENIZER = "tokenizer.model"
QUANTIZED_ENDINGS = (".absmax", ".quant_map", ".SCB", ".quant_weight", ".scales", ".zeros")
"""Ends of names that bitsandbytes and Lit-LLaMA's own GPTQ write."""


@dataclass(frozen=True, slots=True)
class FileRows:
    """Rows of a stored tensor that make one of Hugging Face's.

    Attributes:
        tensor: the stored one.
        heads: those of its heads, in their order; None: all rows.
        head_dim: rows of a head.
        pairs: whether rows of a head that turn together are neighbours.
    """

    tensor: TorchTensor
    heads: Sequence[int] | None = None
    head_dim: int = 1
    pairs: bool = False

    @property
    def shown(self) -> SourceTensor:
        """Type and shape."""
        shape = self.tensor.info.shape
        if self.heads is not None:
            shape = (len(self.heads) * self.head_dim, *shape[1:])
        return SourceTensor(shown_dtype(self.tensor), shape)

    def read(self, start: int, stop: int) -> Bytes:
        """Return the bytes of some rows, in Hugging Face's order. Raises ReadError."""
        if self.pairs:
            return halves_from_pairs(self._rows, self.head_dim, start, stop)
        return self._rows(start, stop)

    def _rows(self, start: int, stop: int) -> Bytes:
        if self.heads is None:
            return read_shown(self.tensor, start, stop)
        content = []
        for index in range(start // self.head_dim, -(-stop // self.head_dim)):
            begin = index * self.head_dim
            stored = (self.heads[index] - index) * self.head_dim
            first, last = max(start, begin), min(stop, begin + self.head_dim)
            content.append(read_shown(self.tensor, stored + first, stored + last))
        return np.concatenate(content)


class LitGPTSource:
    """A folder with ``lit_model.pth``, or the file; or Lit-LLaMA's.

    Raises:
        FormatError: a file is missing, damaged, or holds anything but such a model.
        ReadError: a file cannot be read.
        UnsupportedModelError: a model that is no LLaMA, is quantized, or is an adapter alone.
    """

    notes: Sequence[str] = ()
    forms = AS_SHOWN

    def __init__(self, path: Path) -> None:
        file = _weight_file(path)
        self.path: Path = file.parent
        places = {
            name.replace(COMPILED, ""): tensor
            for name, tensor in read_torch_file(file, member=MODEL).items()
        }
        _require_whole(places, file)
        stored_config, config_file = _stored_config(file, places)
        stored_config = in_todays_words(stored_config, config_file.name)
        shape = shape_of(stored_config, config_file.name)
        post_norms = bool(stored_config.get(POST_NORMS))
        self._rows = _rows_by_name(places, shape, file, post_norms=post_norms)
        self.tensors: dict[str, SourceTensor] = {
            name: rows.shown for name, rows in self._rows.items()
        }
        if EMBEDDING not in self.tensors:
            raise FormatError(f"{file} has no embedding", hint="name the whole model's file")
        tied = self._is_tied()
        if tied:
            self.tensors.pop(HEAD, None)
        self.config: Mapping[str, Any] = {
            **_token_ids(self.path),
            **config_of(
                stored_config,
                shape,
                config_file.name,
                vocabulary=self.tensors[EMBEDDING].rows,
            ),
            "tie_word_embeddings": tied,
        }
        require_no_more_layers(self.tensors, self.config, file)
        self.companions: Mapping[str, Path | bytes] = _companions(self.path)
        self._files = [file, config_file]

    @property
    def fingerprint(self) -> str:
        """Names, sizes and times of all files that the conversion reads."""
        files = {*self._files, *self.companions.values()}
        if (self.path / CONFIG).exists():
            files.add(self.path / CONFIG)
        return files_fingerprint(file for file in files if isinstance(file, Path))

    def rows(self, name: str, start: int, stop: int) -> Bytes:
        """Return the bytes of some rows, in Hugging Face's order. Raises ReadError."""
        return self._rows[name].read(start, stop)

    def _is_tied(self) -> bool:
        """Return whether the head is missing, or the embedding once more: LitGPT stores both."""
        head = self.tensors.get(HEAD)
        if head is None:
            return True
        if head != self.tensors[EMBEDDING]:
            return False
        return have_same_rows(head, partial(self.rows, HEAD), partial(self.rows, EMBEDDING))


def _weight_file(path: Path) -> Path:
    """Return the file of the weights. Raises FormatError, UnsupportedModelError."""
    file = path
    if path.is_dir():
        names = [name for name in (LITGPT_FILE, LIT_LLAMA_FILE) if (path / name).exists()]
        if not names:
            raise UnsupportedModelError(
                f"{path} holds a LoRA alone, {LITGPT_ADAPTER}",
                hint="convert the model that it belongs to, and name this folder with --adapter",
            )
        file = path / names[0]
    if file.is_dir():
        raise UnsupportedModelError(
            f"{file} is a folder, a checkpoint in the shards of a training",
            hint="join them: python -m lightning.fabric.utilities.consolidate_checkpoint",
        )
    return inside(file.parent, file.name)


def _require_whole(places: Mapping[str, TorchTensor], file: Path) -> None:
    for name in places:
        if name.startswith(LAYER_PREFIX):
            raise FormatError(
                f"{file} holds {quoted(name)}, one of Hugging Face's names",
                hint="call it pytorch_model.bin, beside its config.json, and name the folder",
            )
        if "lora_" in name:
            raise UnsupportedModelError(
                f"{file} holds {quoted(name)}, a part of a LoRA",
                hint="convert the model that it belongs to, and name this file with --adapter",
            )
        if name.endswith(QUANTIZED_ENDINGS):
            raise UnsupportedModelError(
                f"{file} is quantized: it holds {quoted(name)}",
                hint="convert the unquantized model that it was made from",
            )


def _stored_config(file: Path, places: Mapping[str, TorchTensor]) -> tuple[dict[str, Any], Path]:
    """Return LitGPT's config, and where it was read; Lit-LLaMA's follows from its tensors."""
    is_lit_llama = any(name.endswith(f"{LIT_LLAMA_QKV}.weight") for name in places)
    for name in CONFIG_FILES:
        beside = file.with_name(name)
        if beside.exists():
            inside(file.parent, name)
            read = read_yaml
            if beside.suffix == ".json":
                read = read_json
            if is_lit_llama:
                return lit_llama_config(places, file) | read(beside), beside
            return read(beside), beside
    if not is_lit_llama:
        raise FormatError(
            f"{file} has no {CONFIG_FILES[0]} beside it, which tells heads and positions",
            hint="copy it from where the model came from",
        )
    config = lit_llama_config(places, file)
    if "n_head" not in config:
        raise FormatError(
            f"{file} is a Lit-LLaMA of no published size, and does not say how many heads it has",
            hint=f"put a {CONFIG_FILES[0]} with n_head beside it",
        )
    return config, file


def _rows_by_name(
    places: Mapping[str, TorchTensor], shape: LitShape, file: Path, *, post_norms: bool
) -> dict[str, FileRows]:
    """Return each of Hugging Face's tensors. Raises FormatError, UnsupportedModelError."""
    found: dict[str, FileRows] = {}
    for name, tensor in places.items():
        path, _, part = name.rpartition(".")
        targets = huggingface_paths(path, post_norms=post_norms)
        if not targets or part not in PARAMETERS:
            raise UnsupportedModelError(
                f"{file} holds {quoted(name)}, which no model of LitGPT's that edgellm knows has",
                hint=WAY_ROUND,
            )
        rows = [FileRows(tensor)]
        if len(targets) > 1:
            rows = _fused_rows(name, path, tensor, shape, file)
        for target, item in zip(targets, rows, strict=True):
            ours = f"{target}.{PARAMETERS[part]}"
            if ours in found:
                raise FormatError(f"{file} holds {ours} twice: {quoted(name)} is one of them")
            found[ours] = item
    return found


def _fused_rows(
    name: str, path: str, tensor: TorchTensor, shape: LitShape, file: Path
) -> list[FileRows]:
    """Return which rows of a fused matrix, or of its bias, are queries, keys and values."""
    rows = (shape.heads + 2 * shape.key_value_heads) * shape.head_dim
    if tensor.info.shape[:1] != (rows,):
        raise FormatError(
            f"{quoted(name)} of {file} has the shape {tensor.info.shape}; its config makes "
            f"{rows} rows"
        )
    pairs = path.endswith(LIT_LLAMA_QKV)
    return [
        FileRows(tensor, heads, shape.head_dim, pairs and part != VALUES)
        for part, heads in zip(PARTS, heads_of_parts(path, shape), strict=True)
    ]


def _token_ids(path: Path) -> dict[str, Any]:
    """Return the special tokens that the config of the model it was made from names, if any."""
    if not (path / CONFIG).exists():
        return {}
    config = read_json(inside(path, CONFIG), finite=False)
    return {key: config[key] for key in TOKEN_IDS if key in config}


def _companions(path: Path) -> Mapping[str, Path | bytes]:
    """Return the tokenizer's files beside the weights; Lit-LLaMA's lies in the folder above."""
    files = companions_in(path)
    if not has_vocabulary(files) and (path.parent / LIT_LLAMA_TOKENIZER).is_file():
        return files | {LIT_LLAMA_TOKENIZER: inside(path.parent, LIT_LLAMA_TOKENIZER)}
    return files
