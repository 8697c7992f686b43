"""Meta's own folders as a source: params.json, consolidated.*.pth, tokenizer.model.

A large model comes in shards, one for each GPU that it was trained on; each holds some of the rows
or of the columns of every matrix, and the whole of every vector. Rows are put together when they
are asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.checkpoint.folder import inside
from edgellm.converters.huggingface.torch_file import TorchTensor, read_rows, read_torch_file
from edgellm.converters.meta.model_config import PARAMS, MetaShape, config_of, shape_of
from edgellm.converters.meta.tokenizer import TOKENIZER, tokenizer_files
from edgellm.converters.tensors.file_marks import META_SHARDS
from edgellm.converters.tensors.file_rows import files_fingerprint
from edgellm.converters.tensors.rope_permutation import halves_from_pairs
from edgellm.converters.tensors.source import AS_SHOWN, Bytes, SourceTensor
from edgellm.errors import FormatError
from edgellm.files.strict_json import quoted, read_json

ROWS, COLUMNS, COPIES = "rows", "columns", "copies"

OUTER: Mapping[str, tuple[str, str]] = {
    "tok_embeddings.weight": ("model.embed_tokens.weight", COLUMNS),
    "norm.weight": ("model.norm.weight", COPIES),
    "output.weight": ("lm_head.weight", ROWS),
}
INNER: Mapping[str, tuple[str, str]] = {
    "attention_norm.weight": ("input_layernorm.weight", COPIES),
    "attention.wq.weight": ("self_attn.q_proj.weight", ROWS),
    "attention.wk.weight": ("self_attn.k_proj.weight", ROWS),
    "attention.wv.weight": ("self_attn.v_proj.weight", ROWS),
    "attention.wo.weight": ("self_attn.o_proj.weight", COLUMNS),
    "ffn_norm.weight": ("post_attention_layernorm.weight", COPIES),
    "feed_forward.w1.weight": ("mlp.gate_proj.weight", ROWS),
    "feed_forward.w2.weight": ("mlp.down_proj.weight", COLUMNS),
    "feed_forward.w3.weight": ("mlp.up_proj.weight", ROWS),
}
"""Meta's names: Hugging Face's, and how shards divide the tensor. Llama 3 divides the embedding by rows instead."""

ROTATED = ("self_attn.q_proj.weight", "self_attn.k_proj.weight")
LAYER = re.compile(r"layers\.(0|[1-9]\d{0,3})\.(.+)")
TABLES = ("rope.freqs", "attention.inner_attention.rope.freqs")
LEGAL = ("LICENSE*", "NOTICE*", "USE_POLICY*")


@dataclass(frozen=True, slots=True)
class Divided:
    """One tensor: its part in each shard, and how they make the whole."""

    parts: tuple[TorchTensor, ...]
    axis: str
    rotated: bool

    @property
    def whole(self) -> SourceTensor:
        """Type and shape of all parts together."""
        shapes = [part.info.shape for part in self.parts]
        first = shapes[0]
        if self.axis == ROWS:
            return SourceTensor(
                self.parts[0].info.dtype, (sum(shape[0] for shape in shapes), *first[1:])
            )
        if self.axis == COLUMNS:
            return SourceTensor(
                self.parts[0].info.dtype, (first[0], sum(shape[1] for shape in shapes))
            )
        return SourceTensor(self.parts[0].info.dtype, first)


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
        self._files = [
            inside(path, name) for name in sorted(file.name for file in path.glob(META_SHARDS))
        ]
        _require_all(self._files, path)
        shards = [_named(read_torch_file(file), file) for file in self._files]
        self._shape = shape_of(
            params, {name: tensor.info.shape for name, tensor in shards[0].items()}, len(shards)
        )
        _require_last(shards[0], self._files, self._shape)
        self._tensors = _joined(shards, self._files, self._shape)
        self.tensors: Mapping[str, SourceTensor] = {
            name: tensor.whole for name, tensor in self._tensors.items()
        }
        tokenizer = _tokenizer_file(path)
        files, ends = tokenizer_files(tokenizer, scaled=bool(params.get("use_scaled_rope")))
        legal = {
            file.name: inside(path, file.name)
            for pattern in LEGAL
            for file in sorted(path.glob(pattern))
        }
        self.companions: Mapping[str, Path | bytes] = {**legal, **files}
        self._read = [*self._files, path / PARAMS, tokenizer]
        rows = (
            self.tensors["model.embed_tokens.weight"].rows
            if "model.embed_tokens.weight" in self.tensors
            else 0
        )
        self.config: Mapping[str, Any] = config_of(
            params, self._shape, vocabulary=rows, tied=self._tied(), ends=ends
        )

    @property
    def fingerprint(self) -> str:
        """Names, sizes and times of all files that the conversion reads."""
        return files_fingerprint(self._read)

    def rows(self, name: str, start: int, stop: int) -> Bytes:
        """The bytes of some rows, from the shards that have them, in Hugging Face's order."""
        tensor = self._tensors[name]
        if tensor.rotated:
            return halves_from_pairs(
                lambda first, last: _joined_rows(tensor, first, last),
                self._shape.head_dim,
                start,
                stop,
            )
        return _joined_rows(tensor, start, stop)

    def _tied(self) -> bool:
        """Whether the head is missing, or is the embedding once more, as in Llama 3.2. Reads until they differ."""
        head, embedding = (
            self.tensors.get("lm_head.weight"),
            self.tensors.get("model.embed_tokens.weight"),
        )
        if head is None or head != embedding:
            return head is None
        step = max(1, (16 << 20) // head.row_bytes)
        for start in range(0, head.rows, step):
            span = start, min(start + step, head.rows)
            if not np.array_equal(
                self.rows("lm_head.weight", *span), self.rows("model.embed_tokens.weight", *span)
            ):
                return False
        return True


def _require_all(files: Sequence[Path], path: Path) -> None:
    """Shards are numbered from 00; one that is missing in the middle shows here, one at the end in ``_require_last``."""
    for number, file in enumerate(files):
        if file.name not in (f"consolidated.{number:02d}.pth", "consolidated.pth"):
            raise FormatError(
                f"{path} lacks consolidated.{number:02d}.pth", hint="download the model again"
            )


def _require_last(
    first: Mapping[str, TorchTensor], files: Sequence[Path], shape: MetaShape
) -> None:
    """Each shard holds an equal part of the queries' rows: where all parts together are too few, shards are missing."""
    queries = first.get(f"model.layers.0.{ROTATED[0]}")
    rows = queries.info.shape[0] if queries is not None and queries.info.shape else 0
    wanted, rest = divmod(shape.heads * shape.head_dim, rows) if rows else (0, 0)
    if wanted > len(files) and not rest:
        raise FormatError(
            f"{files[0].parent} holds {len(files)} of what {PARAMS} makes {wanted} shards: "
            f"consolidated.{len(files):02d}.pth may be missing",
            hint="download the model again",
        )


def _named(tensors: Mapping[str, TorchTensor], file: Path) -> dict[str, TorchTensor]:
    """A shard's tensors by Hugging Face's names; tables that every reader computes are left out."""
    named = {}
    for name, tensor in tensors.items():
        if name.endswith(TABLES):
            continue
        layer = LAYER.fullmatch(name)
        known = INNER.get(layer[2]) if layer else OUTER.get(name)
        if known is None:
            raise FormatError(f"{file} holds {quoted(name)}, which no LLaMA of Meta's has")
        named[f"model.layers.{layer[1]}.{known[0]}" if layer else known[0]] = tensor
    return named


def _joined(
    shards: Sequence[Mapping[str, TorchTensor]], files: Sequence[Path], shape: MetaShape
) -> dict[str, Divided]:
    """Each tensor's parts over all shards, which must agree in everything but values."""
    divisions = dict([*OUTER.values(), *INNER.values()])
    joined = {}
    for shard, file in zip(shards, files, strict=True):
        if unequal := sorted(shard.keys() ^ shards[0].keys()):
            raise FormatError(
                f"{file.name} and {files[0].name} do not hold the same tensors: {quoted(unequal[0])} is in one only"
            )
    for name, first in shards[0].items():
        parts = tuple(shard[name] for shard in shards)
        if any(
            part.info.shape != first.info.shape or part.info.dtype != first.info.dtype
            for part in parts
        ):
            raise FormatError(
                f"{quoted(name)} is of another type or shape in each shard",
                hint="download the model again",
            )
        inner = name.split(".", 3)[-1] if name.startswith("model.layers.") else name
        axis = divisions[inner]
        if inner == "model.embed_tokens.weight" and first.info.shape[1:] == (shape.hidden_size,):
            axis = ROWS
        if len(first.info.shape) != (1 if axis == COPIES else 2):
            raise FormatError(f"{quoted(name)} has the impossible shape {first.info.shape}")
        joined[name] = Divided(parts, axis, rotated=inner in ROTATED)
    return joined


def _joined_rows(tensor: Divided, start: int, stop: int) -> Bytes:
    if tensor.axis == COPIES:
        return read_rows(tensor.parts[0], start, stop)
    if tensor.axis == COLUMNS:
        pieces = [read_rows(part, start, stop).reshape(stop - start, -1) for part in tensor.parts]
        return (
            pieces[0].reshape(-1)
            if len(pieces) == 1
            else np.concatenate(pieces, axis=1).reshape(-1)
        )
    size = tensor.parts[0].info.shape[0]
    found = []
    for index, part in enumerate(tensor.parts):
        first, last = max(start, index * size), min(stop, (index + 1) * size)
        if first < last:
            found.append(read_rows(part, first - index * size, last - index * size))
    return found[0] if len(found) == 1 else np.concatenate(found)


def _tokenizer_file(path: Path) -> Path:
    """Beside the weights or, as with Llama 1, in the folder above."""
    for folder in (path, path.parent):
        if (folder / TOKENIZER).exists():
            return inside(folder, TOKENIZER)
    raise FormatError(f"{path} has no {TOKENIZER}", hint="copy it from where the model came from")
