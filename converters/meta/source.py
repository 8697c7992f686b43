"""Meta's own folders as a source: params.json, consolidated.*.pth, tokenizer.model.

A large model comes in shards, one for each GPU that it was trained on; each holds some of the rows
or of the columns of every matrix, and the whole of every vector. Rows are put together when they
are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgellm.checkpoint.folder import inside
from edgellm.converters.huggingface.torch_file import read_torch_file
from edgellm.converters.meta.model_config import PARAMS, MetaShape, config_of, shape_of
from edgellm.converters.meta.shards import (
    EMBEDDING,
    HEAD,
    LAYER_PREFIX,
    QUERIES,
    by_huggingface_name,
    is_tied,
    joined_shards,
)
from edgellm.converters.meta.tokenizer import TOKENIZER, tokenizer_files
from edgellm.converters.tensors.file_rows import META_SHARDS, files_fingerprint
from edgellm.converters.tensors.source import (
    AS_SHOWN,
    Bytes,
    SourceTensor,
    require_no_more_layers,
)
from edgellm.errors import FormatError
from edgellm.files.strict_json import read_json

LEGAL_FILES = ("LICENSE*", "NOTICE*", "USE_POLICY*")


class MetaSource:
    """A folder as Meta distributes it, of one shard or several.

    Raises:
        FormatError: a file is missing, damaged, or holds anything but weights; shards do not fit
            each other.
        ReadError: a file cannot be read.
        UnsupportedModelError: another kind of model.
    """

    notes: Sequence[str] = ()
    forms = AS_SHOWN

    def __init__(self, path: Path) -> None:
        self.path = path
        params = read_json(inside(path, PARAMS))
        names = sorted(file.name for file in path.glob(META_SHARDS))
        files = [inside(path, name) for name in names]
        _require_no_gap(files, path)
        shards = [by_huggingface_name(read_torch_file(file), file) for file in files]
        shapes = {name: tensor.info.shape for name, tensor in shards[0].items()}
        self._shape = shape_of(params, shapes, len(shards))
        _require_last(shapes, files, self._shape)
        self._tensors = joined_shards(shards, files, self._shape)
        self.tensors: dict[str, SourceTensor] = {
            name: tensor.joined for name, tensor in self._tensors.items()
        }
        tokenizer = _tokenizer_file(path)
        scaled = bool(params.get("use_scaled_rope"))
        tokenizer_content, token_ids = tokenizer_files(tokenizer, scaled=scaled)
        self.companions: Mapping[str, Path | bytes] = legal_files(path) | tokenizer_content
        self._files = [*files, path / PARAMS, tokenizer]
        vocab_size = 0
        if EMBEDDING in self.tensors:
            vocab_size = self.tensors[EMBEDDING].rows
        tied = is_tied(self._tensors)
        if tied:
            self.tensors.pop(HEAD, None)
        self.config: Mapping[str, Any] = config_of(
            params, self._shape, vocabulary=vocab_size, tied=tied, ends=token_ids
        )
        require_no_more_layers(self.tensors, self.config, path)

    @property
    def fingerprint(self) -> str:
        """Names, sizes and times of all files that the conversion reads."""
        return files_fingerprint(self._files)

    def rows(self, name: str, start: int, stop: int) -> Bytes:
        """Return the bytes of some rows, from the shards that have them, in Hugging Face's order.

        Raises ReadError.
        """
        return self._tensors[name].rows(start, stop)


def _require_no_gap(files: Sequence[Path], path: Path) -> None:
    """Refuse a folder that lacks a shard before its last one; they are numbered from 00."""
    for number, file in enumerate(files):
        if file.name not in (f"consolidated.{number:02d}.pth", "consolidated.pth"):
            raise FormatError(
                f"{path} lacks consolidated.{number:02d}.pth", hint="download the model again"
            )


def _require_last(
    first_shard: Mapping[str, tuple[int, ...]], files: Sequence[Path], shape: MetaShape
) -> None:
    """Refuse a folder that lacks its last shards.

    Each shard holds an equal part of the queries' rows: where all parts together are too few,
    shards are missing.
    """
    queries = first_shard.get(f"{LAYER_PREFIX}0.{QUERIES}")
    if not queries or not queries[0]:
        return
    wanted, rest = divmod(shape.heads * shape.head_dim, queries[0])
    if wanted > len(files) and not rest:
        raise FormatError(
            f"{files[0].parent} holds {len(files)} of what {PARAMS} makes {wanted} shards: "
            f"consolidated.{len(files):02d}.pth may be missing",
            hint="download the model again",
        )


def legal_files(path: Path) -> dict[str, Path | bytes]:
    """Return the licenses beside the weights, which go along."""
    files: dict[str, Path | bytes] = {}
    for pattern in LEGAL_FILES:
        for file in sorted(path.glob(pattern)):
            files[file.name] = inside(path, file.name)
    return files


def _tokenizer_file(path: Path) -> Path:
    """Return the tokenizer beside the weights or, as with Llama 1, in the folder above."""
    for folder in (path, path.parent):
        if (folder / TOKENIZER).exists():
            return inside(folder, TOKENIZER)
    raise FormatError(f"{path} has no {TOKENIZER}", hint="copy it from where the model came from")
