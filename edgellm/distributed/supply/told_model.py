"""A model told to a machine that has not got it: config, and types and shapes of tensors.

What comes of it is checked as a model folder is: its words are a stranger's until they are.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgellm.checkpoint.checkpoint import Checkpoint, TensorGroup, checkpoint_of
from edgellm.checkpoint.folder import LAYER_PREFIX, ModelFolder
from edgellm.checkpoint.safetensors_file import DTYPE_BYTES, MAX_RANK, TensorInfo
from edgellm.errors import FormatError
from edgellm.files.strict_json import parse_json, quoted

MAX_TENSORS = 1 << 20
"""Of a model; what claims to have more is none."""

EMBEDDING_PREFIX, NORM_PREFIX, HEAD_PREFIX = "model.embed_tokens.", "model.norm.", "lm_head."
"""Before the names of tensors outside the layers."""

NOT_HERE = "not-here.safetensors"
"""The file that tensors are said to lie in which nobody has brought yet."""


def told_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what another machine is told of a model."""
    config = checkpoint.folder.config
    tied = checkpoint.lm_head is None
    return {
        # a text: a config may hold numbers that JSON has not
        "config": json.dumps({**config, "tie_word_embeddings": tied}),
        "tensors": {
            name: [tensor.dtype, list(tensor.shape)]
            for prefix, group in named_groups(checkpoint)
            for name, tensor in ((prefix + own, info) for own, info in group.tensors.items())
        },
    }


def named_groups(checkpoint: Checkpoint) -> list[tuple[str, TensorGroup]]:
    """Return a model's groups of tensors, with what stands before the names of their tensors."""
    layers = enumerate(checkpoint.layers)
    return outer_groups(checkpoint) + [
        (f"{LAYER_PREFIX}{number}.", group) for number, group in layers
    ]


def outer_groups(checkpoint: Checkpoint) -> list[tuple[str, TensorGroup]]:
    """Return the same of what is outside the layers."""
    groups = [(EMBEDDING_PREFIX, checkpoint.embed_tokens), (NORM_PREFIX, checkpoint.norm)]
    if checkpoint.lm_head is not None:
        groups.append((HEAD_PREFIX, checkpoint.lm_head))
    return groups


def name_of(told: Mapping[str, Any]) -> str:
    """Return a name for a model that no other model has."""
    text = json.dumps([told["config"], sorted(told["tensors"].items())])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def checkpoint_from(told: Mapping[str, Any], folder: Path) -> Checkpoint:
    """Return a model of which no tensor is here yet, as if it lay in ``folder``.

    Raises:
        FormatError: what was told is no model.
        UnsupportedModelError: it is one that edgellm does not run.
    """
    text, claims = told.get("config"), told.get("tensors")
    if not isinstance(text, str) or not isinstance(claims, dict) or len(claims) > MAX_TENSORS:
        raise FormatError("what was told of a model is no config and tensors")
    config = parse_json(text.encode(), "the config that was told", finite=False)
    tensors = {name: _tensor(name, claim, folder / NOT_HERE) for name, claim in claims.items()}
    return checkpoint_of(ModelFolder(folder, config, tensors, {}))


def _tensor(name: str, claim: Any, file: Path) -> TensorInfo:
    if not isinstance(claim, list) or len(claim) != 2:
        raise FormatError(f"tensor {quoted(name)} was told without type and shape")
    dtype, shape = claim
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise FormatError(f"tensor {quoted(name)} has the unknown dtype {quoted(dtype)}")
    sizes = shape if isinstance(shape, list) and len(shape) <= MAX_RANK else [-1]
    if not all(type(size) is int and 0 <= size < 1 << 48 for size in sizes):
        raise FormatError(f"tensor {quoted(name)} has an impossible shape: {quoted(shape)}")
    nbytes = math.prod(sizes) * DTYPE_BYTES[dtype]
    return TensorInfo(name, dtype, tuple(sizes), file, 0, nbytes)
