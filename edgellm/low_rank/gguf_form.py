"""An adapter as llama.cpp opens it beside a model (``--lora``): one GGUF file."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from edgellm.adapters.forms import usual
from edgellm.adapters.model_matrices import ModelMatrices
from edgellm.adapters.stored import StoredAdapter
from edgellm.checkpoint.folder import LAYER_NAME
from edgellm.checkpoint.model_config import ModelConfig
from edgellm.converters.gguf.architectures.names import gguf_name, is_permuted
from edgellm.converters.gguf_export.model_metadata import architecture_of
from edgellm.converters.gguf_export.writer import GgufOutput, write_gguf
from edgellm.converters.lora.changes import Adapter, LowRank, finite
from edgellm.converters.lora.our_words import in_our_words
from edgellm.converters.tensors.floats import stored as as_bytes
from edgellm.converters.tensors.rope_permutation import in_pairs
from edgellm.converters.tensors.source import Bytes
from edgellm.errors import FormatError, UnsupportedModelError

RUN_UNMERGED = "edgellm runs it beside the weights: edgellm generate BASE --adapter FOLDER"

FUSED = frozenset({"phi3"})
"""Architectures in which llama.cpp has one matrix where an adapter has changes of its parts."""


def write_gguf_adapter(
    stored: StoredAdapter, base: ModelMatrices, path: Path, *, force: bool
) -> int:
    """Write an adapter as a GGUF file, and return its bytes.

    llama.cpp multiplies by ``alpha / rank``, with one alpha for all: what scales differ by goes
    into a factor. Rows of queries and keys lie in the order of the architecture.

    Args:
        stored: the adapter.
        base: the model that it belongs to.
        path: the file to be made.
        force: replace a file that is there.

    Raises:
        FormatError: the adapter belongs to another model, or holds a value that is not finite.
        UnsupportedModelError: llama.cpp adds no such change, or runs no such model.
        ReadError: a file cannot be read.
        ConversionError: the disk is full or refuses.
    """
    config = ModelConfig.from_dict(base.recipe.config)
    architecture = architecture_of(config)
    adapter = stored.adapter
    if base.spelling is not None:
        adapter = in_our_words(adapter, base.spelling)
    _require_known(adapter, base, architecture)
    alphas = {name: item.scale * item.down.shape[0] for name, item in adapter.changes.items()}
    # a scale of 0 would mean "none said" there
    common = usual([value for value in alphas.values() if value] or [1.0])
    outputs = []
    for name, item in adapter.changes.items():
        named = gguf_name(f"{name}.weight", architecture)
        head_dim = None
        if is_permuted(architecture, f"{name}.weight"):
            head_dim = config.head_dim
        rank = item.down.shape[0]
        factor = alphas[name] / common
        outputs += [
            GgufOutput(f"{named}.lora_a", "F32", item.down.shape, partial(_down, name, item)),
            GgufOutput(
                f"{named}.lora_b",
                "F32",
                (item.shape[0], rank),
                partial(_up, name, item, factor, head_dim),
            ),
        ]
    metadata = {
        "general.architecture": architecture,
        "general.type": "adapter",
        "general.name": stored.path.resolve().name,
        "adapter.type": "lora",
        "adapter.lora.alpha": float(common),
    }
    return write_gguf(path, metadata, outputs, replace=force)


def _require_known(adapter: Adapter, base: ModelMatrices, architecture: str) -> None:
    shapes = {path: matrix.shape for path, matrix in base.matrices.items()}
    for path, item in adapter.changes.items():
        if path not in shapes or item.shape != shapes[path]:
            raise FormatError(
                f"the adapter's change of {path} is {item.shape}; {base.path} has "
                f"{shapes.get(path, 'no such matrix')}",
                hint="name the model that the adapter belongs to with --base",
            )
        reason = None
        if item.magnitude is not None:
            reason = "is a DoRA's"
        elif not LAYER_NAME.match(path):
            reason = "is of the embedding or the head"
        elif architecture in FUSED or base.matrices[path].written_as != path:
            reason = "is of a part of one of llama.cpp's matrices"
        if reason is not None:
            raise UnsupportedModelError(
                f"the change of {path} {reason}, which llama.cpp does not add beside the weights",
                hint=f"{RUN_UNMERGED}; or merge it: edgellm export BASE FILE.gguf --adapter FOLDER",
            )


def _down(path: str, change: LowRank) -> Iterator[Bytes]:
    yield as_bytes(finite(change.down.values(), path), "F32")


def _up(path: str, change: LowRank, factor: float, head_dim: int | None) -> Iterator[Bytes]:
    up = finite(change.up_values(), path)
    if factor != 1.0:
        up = up * np.float32(factor)
    if head_dim is not None:
        up = in_pairs(up, head_dim)
    yield as_bytes(up, "F32")
