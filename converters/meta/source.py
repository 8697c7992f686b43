"""Meta's own folders as a source: params.json, consolidated.*.pth, tokenizer.model.

A large model comes in shards, one for each GPU that it was trained on; each holds some of the rows
or of the columns of every matrix, and the whole of every vector. Rows are put together when they
are asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.checkpoint.folder import inside
from edgellm.converters.huggingface.torch_file import TorchTensor, read_rows, read_torch_file
from edgellm.converters.meta.model_config import PARAMS, MetaShape, config_of, shape_of
from edgellm.converters.meta.tokenizer import TOKENIZER, tokenizer_files
from edgellm.converters.tensors.file_rows import META_SHARDS, files_fingerprint
from edgellm.converters.tensors.rope_permutation import halves_from_pairs
from edgellm.converters.tensors.source import AS_SHOWN, Bytes, SourceTensor, have_same_rows
from edgellm.errors import FormatError
from edgellm.files.strict_json import quoted, read_json

ROWS = "rows"
COLUMNS = "columns"
COPIES = "copies"

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
QUERIES = "self_attn.q_proj.weight"
KEYS = "self_attn.k_proj.weight"

OUTER: Mapping[str, tuple[str, str]] = {
    "tok_embeddings.weight": (EMBEDDING, COLUMNS),
    "norm.weight": ("model.norm.weight", COPIES),
    "output.weight": (HEAD, ROWS),
}
INNER: Mapping[str, tuple[str, str]] = {
    "attention_norm.weight": ("input_layernorm.weight", COPIES),
    "attention.wq.weight": (QUERIES, ROWS),
    "attention.wk.weight": (KEYS, ROWS),
    "attention.wv.weight": ("self_attn.v_proj.weight", ROWS),
    "attention.wo.weight": ("self_attn.o_proj.weight", COLUMNS),
    "ffn_norm.weight": ("post_attention_layernorm.weight", COPIES),
    "feed_forward.w1.weight": ("mlp.gate_proj.weight", ROWS),
    "feed_forward.w2.weight": ("mlp.down_proj.weight", COLUMNS),
    "feed_forward.w3.weight": ("mlp.up_proj.weight", ROWS),
}
"""Meta's names: Hugging Face's, and how shards divide the tensor.

Llama 3 divides the embedding by rows instead.
"""

DIVISIONS = dict([*OUTER.values(), *INNER.values()])
"""How shards divide a tensor, by Hugging Face's name inside its layer."""

PERMUTED = (QUERIES, KEYS)
"""Matrices whose heads' rows Meta has in another order than Hugging Face."""

LAYER = re.compile(r"layers\.(0|[1-9]\d{0,3})\.(.+)")
LAYER_PREFIX = "model.layers."
ROPE_TABLES = ("rope.freqs", "attention.inner_attention.rope.freqs")
LEGAL_FILES = ("LICENSE*", "NOTICE*", "USE_POLICY*")


@dataclass(frozen=True, slots=True)
class ShardedTensor:
    """One tensor: its part in each shard, equal in shape, and how they make the whole."""

    parts: tuple[TorchTensor, ...]
    division: str
    permuted: bool

    @property
    def joined(self) -> SourceTensor:
        """Type and shape of all parts together."""
        first = self.parts[0].info
        shape = list(first.shape)
        if self.division == ROWS:
            shape[0] *= len(self.parts)
        elif self.division == COLUMNS:
            shape[1] *= len(self.parts)
        return SourceTensor(first.dtype, tuple(shape))

    def rows(self, start: int, stop: int) -> Bytes:
        """Return the bytes of some rows, in Meta's order. Raises ReadError."""
        if self.division == COPIES:
            return read_rows(self.parts[0], start, stop)
        if self.division == COLUMNS:
            parts = [read_rows(part, start, stop).reshape(stop - start, -1) for part in self.parts]
            return np.concatenate(parts, axis=1).reshape(-1)
        part_rows = self.parts[0].info.shape[0]
        content = []
        for index, part in enumerate(self.parts):
            begin = index * part_rows
            first = max(start, begin)
            last = min(stop, begin + part_rows)
            if first < last:
                content.append(read_rows(part, first - begin, last - begin))
        return np.concatenate(content)


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
        shards = [_by_huggingface_name(read_torch_file(file), file) for file in files]
        shapes = {name: tensor.info.shape for name, tensor in shards[0].items()}
        self._shape = shape_of(params, shapes, len(shards))
        _require_last(shapes, files, self._shape)
        self._tensors = _join(shards, files, self._shape)
        self.tensors: dict[str, SourceTensor] = {
            name: tensor.joined for name, tensor in self._tensors.items()
        }
        tokenizer = _tokenizer_file(path)
        scaled = bool(params.get("use_scaled_rope"))
        tokenizer_content, token_ids = tokenizer_files(tokenizer, scaled=scaled)
        self.companions: Mapping[str, Path | bytes] = _legal_files(path) | tokenizer_content
        self._files = [*files, path / PARAMS, tokenizer]
        vocab_size = 0
        if EMBEDDING in self.tensors:
            vocab_size = self.tensors[EMBEDDING].rows
        tied = self._is_tied()
        if tied:
            self.tensors.pop(HEAD, None)
        self.config: Mapping[str, Any] = config_of(
            params, self._shape, vocabulary=vocab_size, tied=tied, ends=token_ids
        )

    @property
    def fingerprint(self) -> str:
        """Names, sizes and times of all files that the conversion reads."""
        return files_fingerprint(self._files)

    def rows(self, name: str, start: int, stop: int) -> Bytes:
        """Return the bytes of some rows, from the shards that have them, in Hugging Face's order.

        Raises ReadError.
        """
        tensor = self._tensors[name]
        if tensor.permuted:
            return halves_from_pairs(tensor.rows, self._shape.head_dim, start, stop)
        return tensor.rows(start, stop)

    def _is_tied(self) -> bool:
        """Return whether the head is missing, or the embedding once more, as in Llama 3.2.

        Reads until they differ.
        """
        head = self.tensors.get(HEAD)
        if head is None:
            return True
        if head != self.tensors.get(EMBEDDING):
            return False
        return have_same_rows(head, partial(self.rows, HEAD), partial(self.rows, EMBEDDING))


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


def _by_huggingface_name(tensors: Mapping[str, TorchTensor], file: Path) -> dict[str, TorchTensor]:
    """Return a shard's tensors, without the tables that every reader computes."""
    named = {}
    for name, tensor in tensors.items():
        if name.endswith(ROPE_TABLES):
            continue
        layer = LAYER.fullmatch(name)
        if layer and layer[2] in INNER:
            ours, _ = INNER[layer[2]]
            named[f"{LAYER_PREFIX}{layer[1]}.{ours}"] = tensor
        elif name in OUTER:
            ours, _ = OUTER[name]
            named[ours] = tensor
        else:
            raise FormatError(f"{file} holds {quoted(name)}, which no LLaMA of Meta's has")
    return named


def _join(
    shards: Sequence[Mapping[str, TorchTensor]], files: Sequence[Path], shape: MetaShape
) -> dict[str, ShardedTensor]:
    """Return each tensor's parts over all shards, which must agree in everything but values."""
    for shard, file in zip(shards, files, strict=True):
        unequal = sorted(shard.keys() ^ shards[0].keys())
        if unequal:
            raise FormatError(
                f"{file.name} and {files[0].name} do not hold the same tensors: "
                f"{quoted(unequal[0])} is in one only"
            )
    return {name: _sharded(name, [shard[name] for shard in shards], shape) for name in shards[0]}


def _sharded(name: str, parts: Sequence[TorchTensor], shape: MetaShape) -> ShardedTensor:
    first = parts[0].info
    for part in parts:
        if part.info.shape != first.shape or part.info.dtype != first.dtype:
            raise FormatError(
                f"{quoted(name)} is of another type or shape in each shard",
                hint="download the model again",
            )
    inner = name
    if name.startswith(LAYER_PREFIX):
        _, _, _, inner = name.split(".", 3)
    division = DIVISIONS[inner]
    if inner == EMBEDDING and first.shape[1:] == (shape.hidden_size,):
        division = ROWS
    rank = 2
    if division == COPIES:
        rank = 1
    if len(first.shape) != rank:
        raise FormatError(f"{quoted(name)} has the impossible shape {first.shape}")
    return ShardedTensor(tuple(parts), division, permuted=inner in PERMUTED)


def _legal_files(path: Path) -> dict[str, Path | bytes]:
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
