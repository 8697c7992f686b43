"""Tensors under Meta's names, whole or in shards, under Hugging Face's.

Mistral's own files have the same names and the same order of rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgellm.converters.huggingface.torch_file import TorchTensor, read_rows
from edgellm.converters.meta.model_config import MetaShape
from edgellm.converters.tensors.rope_permutation import halves_from_pairs
from edgellm.converters.tensors.source import Bytes, SourceTensor, have_same_rows
from edgellm.errors import FormatError
from edgellm.files.strict_json import quoted

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


@dataclass(frozen=True, slots=True)
class ShardedTensor:
    """One tensor: its part in each shard, equal in shape, and how they make the whole.

    ``head_dim`` are the rows of a head whose halves lie as pairs; None: they lie as Hugging Face's.
    """

    parts: tuple[TorchTensor, ...]
    division: str
    head_dim: int | None

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
        """Return the bytes of some rows, in Hugging Face's order. Raises ReadError."""
        if self.head_dim is None:
            return self._stored(start, stop)
        return halves_from_pairs(self._stored, self.head_dim, start, stop)

    def _stored(self, start: int, stop: int) -> Bytes:
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


def by_huggingface_name(tensors: Mapping[str, TorchTensor], file: Path) -> dict[str, TorchTensor]:
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
            raise FormatError(
                f"{file} holds {quoted(name)}, which no LLaMA has",
                hint="take the model as its makers publish it",
            )
    return named


def joined_shards(
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
    head_dim = None
    if inner in PERMUTED:
        head_dim = shape.head_dim
    return ShardedTensor(tuple(parts), division, head_dim)


def is_tied(tensors: Mapping[str, ShardedTensor]) -> bool:
    """Return whether the head is missing, or the embedding once more, as in Llama 3.2.

    Reads until they differ.
    """
    head, embedding = tensors.get(HEAD), tensors.get(EMBEDDING)
    if head is None:
        return True
    if embedding is None or head.joined != embedding.joined:
        return False
    return have_same_rows(head.joined, head.rows, embedding.rows)
