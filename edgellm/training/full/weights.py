"""A model's numbers as they are learned: by layer, and by their names inside it, in float32."""

from __future__ import annotations

import math
from collections.abc import Iterable

import mlx.core as mx

from edgellm.checkpoint.buffer import WeightBuffer
from edgellm.checkpoint.checkpoint import Checkpoint, TensorGroup
from edgellm.checkpoint.model_config import ModelConfig
from edgellm.errors import ConfigError
from edgellm.reading.disk_reader import DiskReader, Reader
from edgellm.reading.tuning import tuned
from edgellm.training.low_rank import Change

EMBEDDING, NORM, HEAD = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"
"""Names outside the layers, whose numbers come after theirs; a tied model has no head."""


def require_plain(checkpoint: Checkpoint) -> None:
    """Refuse a model whose matrices are codes. Raises ConfigError."""
    forms = [form for group in checkpoint.groups for form in group.quantizations.values() if form]
    if forms:
        raise ConfigError(
            f"{checkpoint.folder.path} is quantized to {min(form.bits for form in forms)} bits, "
            "and codes cannot be learned",
            hint="convert the original with --bits 16, or leave --full out to learn an adapter",
        )


def number_shapes(config: ModelConfig) -> list[dict[str, tuple[int, ...]]]:
    """Return the shapes of each layer's numbers, and of those outside the layers at the end."""
    layers = [config.tensor_shapes() for _ in range(config.num_hidden_layers)]
    return [*layers, config.outer_shapes()]


def count_all(config: ModelConfig) -> int:
    """Return how many numbers are learned."""
    shapes = [shape for part in number_shapes(config) for shape in part.values()]
    return sum(map(math.prod, shapes))


def read_numbers(checkpoint: Checkpoint) -> list[Change]:
    """Return all numbers of a model, as ``number_shapes`` has them.

    Raises:
        ReadError: a file cannot be read.
    """
    files = sorted({extent.file for group in checkpoint.groups for extent in group.extents})
    reader = DiskReader(tuned(files), files=files)
    try:
        numbers = [
            _read(reader, layer, checkpoint.config.tensor_shapes()) for layer in checkpoint.layers
        ]
        outer = {EMBEDDING: checkpoint.embed_tokens, NORM: checkpoint.norm}
        if checkpoint.lm_head is not None:
            outer[HEAD] = checkpoint.lm_head
        numbers.append(
            {name: _read(reader, group, ["weight"])["weight"] for name, group in outer.items()}
        )
    finally:
        reader.close()
    return numbers


def _read(reader: Reader, group: TensorGroup, names: Iterable[str]) -> Change:
    buffer = WeightBuffer(group.layout.nbytes)
    reader.submit(group.extents, buffer.memory).wait()
    arrays = buffer.arrays(group.layout)
    # numbers of their own, also where the stored ones are in float32 already
    found = {name: mx.array(arrays[name].astype(mx.float32)) for name in names}
    mx.eval(found)
    return found
