"""A Hugging Face folder as a source: safetensors or PyTorch files, quantized by MLX or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.chat_template.template import named_template_files
from edgellm.checkpoint.folder import (
    CONFIG,
    GENERATION_CONFIG,
    INDEX,
    MANIFEST,
    inside,
    leads_elsewhere,
    no_config,
    read_headers,
    weight_files,
)
from edgellm.converters.huggingface.torch_file import TorchTensor, read_rows, read_torch_file
from edgellm.converters.tensors.file_rows import files_fingerprint
from edgellm.converters.tensors.floats import stored
from edgellm.converters.tensors.source import AS_SHOWN, Bytes, SourceTensor
from edgellm.converters.tokenizers.named_templates import with_named_templates
from edgellm.converters.tokenizers.tekken import TEKKEN, with_tekken
from edgellm.errors import FormatError, ModelNotFoundError
from edgellm.files.strict_json import quoted, read_json

TORCH_FILES = "pytorch_model*.bin"
TORCH_INDEX = "pytorch_model.bin.index.json"

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
TEXTS = ("LICENSE*", "NOTICE*", "USE_POLICY*")
"""Texts that go along; nothing reads them, so a link out of the folder is not followed."""

COMPANIONS = (GENERATION_CONFIG, *TOKENIZER_FILES, *TEXTS)
"""Files that go along; never a program, and no model card: it tells of the unconverted model."""

SHOWN_DTYPES = {"F64": "F32"}
"""Types that become another one as they are read; no arithmetic here is in float64."""

LEFT_OUT = (".rotary_emb.inv_freq", ".rotary_emb.cos_cached", ".rotary_emb.sin_cached")
"""Tables that old checkpoints hold and every reader computes."""


class HuggingFaceSource:
    """A folder with ``config.json`` and weights in one of Hugging Face's formats.

    Args:
        path: the folder.
        weights: the pattern of safetensors files that are called otherwise; None: they are not.

    Raises:
        ModelNotFoundError: there is no such folder.
        FormatError: a file is missing, damaged, or holds anything but weights.
        ReadError: a file cannot be read.
    """

    forms = AS_SHOWN

    def __init__(self, path: Path, *, weights: str | None = None) -> None:
        if not path.is_dir():
            raise ModelNotFoundError(f"there is no folder {path}", hint="check how it is written")
        if (path / MANIFEST).exists():
            raise FormatError(f"{path} is itself a conversion that has not finished")
        if not (path / CONFIG).exists():
            raise no_config(path)
        self.path = path
        self.config: Mapping[str, Any] = read_json(inside(path, CONFIG), finite=False)
        self._places = _read_places(path, weights)
        self.tensors: Mapping[str, SourceTensor] = {
            name: SourceTensor(shown_dtype(tensor), tensor.info.shape)
            for name, tensor in self._places.items()
        }
        companions = companions_in(path)
        self._origins = {file for file in companions.values() if isinstance(file, Path)}
        self._origins |= {inside(file.parent, file.name) for file in named_template_files(path)}
        if (path / TEKKEN).exists():
            self._origins.add(inside(path, TEKKEN))
        named = with_named_templates(path, companions)
        self.notes: Sequence[str]
        self.companions: Mapping[str, Path | bytes]
        self.companions, self.notes = with_tekken(path, named)

    @property
    def fingerprint(self) -> str:
        """A digest of names, sizes and times of all files that the conversion reads."""
        files = {tensor.info.file for tensor in self._places.values()} | {self.path / CONFIG}
        return files_fingerprint(files | self._origins)

    def rows(self, name: str, start: int, stop: int) -> Bytes:
        """Read the bytes of some rows, gathered where PyTorch has stored a view with gaps."""
        return read_shown(self._places[name], start, stop)


def shown_dtype(tensor: TorchTensor) -> str:
    """Return the type in which a stored tensor is shown."""
    return SHOWN_DTYPES.get(tensor.info.dtype, tensor.info.dtype)


def read_shown(tensor: TorchTensor, start: int, stop: int) -> Bytes:
    """Read the bytes of some rows in the type in which they are shown. Raises ReadError."""
    content = read_rows(tensor, start, stop)
    if tensor.info.dtype == "F64":
        return stored(content.view(np.float64).astype(np.float32), "F32")
    return content


def companions_in(path: Path) -> dict[str, Path | bytes]:
    """Return the files of a folder that go along with its weights, by their names.

    Raises FormatError, ReadError.
    """
    if (path / GENERATION_CONFIG).exists():
        read_json(inside(path, GENERATION_CONFIG))  # refused here rather than copied
    return {
        file.name: inside(path, file.name)
        for pattern in COMPANIONS
        for file in sorted(path.glob(pattern))
        if not file.is_dir() and not (pattern in TEXTS and leads_elsewhere(file))
    }


def _read_places(path: Path, pattern: str | None) -> dict[str, TorchTensor]:
    """Find where each tensor lies: in safetensors if there are some, else in PyTorch's files."""
    if pattern is not None:
        headers = read_headers(
            weight_files(path, pattern=pattern, index=f"{pattern.replace('*', '')}.index.json")
        )
        places = {name: TorchTensor(info, None) for name, info in headers.items()}
    elif not list(path.glob("model*.safetensors")) and not (path / INDEX).exists():
        places = {}
        for file in weight_files(path, pattern=TORCH_FILES, index=TORCH_INDEX):
            for name, tensor in read_torch_file(file).items():
                if name in places:
                    raise FormatError(
                        f"tensor {quoted(name)} lies in {places[name].info.file.name} "
                        f"and in {file.name}"
                    )
                places[name] = tensor
    else:
        places = {
            name: TorchTensor(info, None) for name, info in read_headers(weight_files(path)).items()
        }
    return {name: place for name, place in places.items() if not name.endswith(LEFT_OUT)}
