"""Mistral's own folders as a source: params.json, consolidated*.safetensors, a tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgellm.checkpoint.folder import inside, read_headers, weight_files
from edgellm.console.units import plural
from edgellm.converters.huggingface.torch_file import TorchTensor
from edgellm.converters.meta.model_config import PARAMS, shape_of
from edgellm.converters.meta.shards import (
    EMBEDDING,
    HEAD,
    by_huggingface_name,
    is_tied,
    joined_shards,
)
from edgellm.converters.meta.source import legal_files
from edgellm.converters.mistral.model_config import mistral_config, refuse_unsupported
from edgellm.converters.mistral.tokenizer import mistral_tokenizer
from edgellm.converters.tensors.file_rows import (
    MISTRAL_FILES,
    MISTRAL_INDEX,
    files_fingerprint,
)
from edgellm.converters.tensors.source import (
    AS_SHOWN,
    Bytes,
    SourceTensor,
    require_no_more_layers,
)
from edgellm.files.strict_json import read_json

AUDIO_PREFIXES = ("mm_whisper_embeddings.", "mm_streams_embeddings.embedding_module.")
"""Before the embedding's name, and before the parts that hear, in models that do."""

OTHER_PARTS = (
    "vision_encoder.",
    "vision_language_adapter.",
    "patch_merger.",
    "pre_mm_projector_norm.",
    "whisper_encoder.",
    "audio_language_projection.",
    "audio_language_adapter.",
)
"""Tensors that no text goes through, by the beginning of their names."""


class MistralSource:
    """A folder as Mistral distributes it.

    Raises:
        FormatError: a file is missing, damaged, or holds anything but weights.
        ReadError: a file cannot be read.
        UnsupportedModelError: another kind of model, or a quantized one.
    """

    forms = AS_SHOWN

    def __init__(self, path: Path) -> None:
        self.path = path
        params = read_json(inside(path, PARAMS))
        refuse_unsupported(params)
        files = weight_files(path, pattern=MISTRAL_FILES, index=MISTRAL_INDEX)
        stored = {_without_prefix(name): place for name, place in read_headers(files).items()}
        places = {
            name: TorchTensor(place, None)
            for name, place in stored.items()
            if not name.startswith(OTHER_PARTS)
        }
        named = by_huggingface_name(places, files[0])
        shape = shape_of(params, {name: place.info.shape for name, place in named.items()}, 1)
        self._tensors = joined_shards([named], files[:1], shape)
        self.tensors: dict[str, SourceTensor] = {
            name: tensor.joined for name, tensor in self._tensors.items()
        }
        vocabulary = 0
        if EMBEDDING in self.tensors:
            vocabulary = self.tensors[EMBEDDING].rows
        tied = is_tied(self._tensors)
        if tied:
            self.tensors.pop(HEAD, None)
        self.config: Mapping[str, Any]
        self.config, notes = mistral_config(params, shape, vocabulary=vocabulary, tied=tied)
        require_no_more_layers(self.tensors, self.config, path)
        tokenizer_files, tokenizer, said = mistral_tokenizer(path)
        self.companions: Mapping[str, Path | bytes] = legal_files(path) | tokenizer_files
        self._files = [*files, path / PARAMS]
        if tokenizer is not None:
            self._files.append(tokenizer)
        notes += said
        if len(places) < len(stored):
            unused = plural(len(stored) - len(places), "tensor")
            notes.append(f"{unused} that no text goes through left out")
        self.notes: Sequence[str] = notes

    @property
    def fingerprint(self) -> str:
        """Names, sizes and times of all files that the conversion reads."""
        return files_fingerprint(self._files)

    def rows(self, name: str, start: int, stop: int) -> Bytes:
        """Return the bytes of some rows, in Hugging Face's order. Raises ReadError."""
        return self._tensors[name].rows(start, stop)


def _without_prefix(name: str) -> str:
    for prefix in AUDIO_PREFIXES:
        name = name.removeprefix(prefix)
    return name
