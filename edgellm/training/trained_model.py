"""A model opened for training: its layers in memory, or read as they are visited."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import mlx.core as mx

from edgellm.checkpoint.buffer import DTYPES, WeightBuffer
from edgellm.checkpoint.checkpoint import Checkpoint, TensorGroup
from edgellm.device import machine as device
from edgellm.models.arithmetic import engine_for
from edgellm.models.embedding import PagedEmbedding
from edgellm.models.linear import DenseLinear, QuantizedLinear
from edgellm.models.model import Embedding, ResidentEmbedding
from edgellm.models.registry import block_class
from edgellm.reading.disk_reader import DiskReader, Reader
from edgellm.reading.tuning import tuned
from edgellm.runtime.loader import make_matrix
from edgellm.settings import LoadSettings
from edgellm.training.adapted_block import AdaptedBlock
from edgellm.training.elementwise.gate_and_norms import kernel_norm
from edgellm.training.gradients import TrainedModel, head_rows
from edgellm.training.kept_inputs import InputFile, InputsOnDisk
from edgellm.training.layer_visits import LayerVisits
from edgellm.training.low_rank import LoraSettings, first_changed
from edgellm.training.operations.products import frozen_product

PROCESS_BYTES = 110 << 20
"""Python, MLX, NumPy and the kernels, before a model is there."""

CACHE_BYTES = 64 << 20
"""Freed memory that MLX keeps for later."""


@dataclass(frozen=True, slots=True)
class LayersInMemory:
    """Which layers are in memory.

    Attributes:
        pinned: numbers of those that stay.
        buffers: for the others.
        recompute: whether a layer is computed again on the way down, and only its input is kept.
    """

    pinned: Sequence[int]
    buffers: int = 2
    recompute: bool = True


class OpenModel:
    """A model whose changes are trained, until it is closed.

    Args:
        checkpoint: the model.
        lora: what is learned.
        memory: which layers are in memory.
        settings: which arithmetic computes.
        inputs: which kept inputs are in a file; None: all are in memory.
        reader: reads the files; None opens one.
        look_up: called before each micro-batch goes through a layer; what it raises ends the step.

    Attributes:
        model: its parts.
        reader: that reads its files.
        input_file: that holds kept inputs, if any.

    Raises:
        ConfigError: it has fewer layers than are to be trained.
        ConversionError: the disk has no room for kept inputs.
        ReadError: a file cannot be read.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        lora: LoraSettings,
        memory: LayersInMemory,
        settings: LoadSettings,
        *,
        inputs: InputsOnDisk | None = None,
        reader: Reader | None = None,
        look_up: Callable[[], None] = lambda: None,
    ) -> None:
        self.input_file: InputFile | None = None
        if inputs is not None:
            self.input_file = InputFile(inputs)
        config = checkpoint.config
        count = config.num_hidden_layers
        first = first_changed(lora, count)
        kernels = engine_for(settings)
        self._squares: dict[int, dict[str, mx.array]] = {}
        dtype = mx.float32
        if device.has_gpu():
            dtype = device.compute_dtype(DTYPES[checkpoint.dtype])
        files = sorted({extent.file for layer in checkpoint.layers for extent in layer.extents})
        self.reader: Reader = reader or DiskReader(tuned(files), files=files)
        self._cache_limit: int = mx.set_cache_limit(CACHE_BYTES)
        block = block_class(config)
        stored_norm = self._read(checkpoint.norm).arrays(checkpoint.norm.layout)["weight"]
        norm = block.norm(stored_norm.astype(dtype), config)
        if not device.has_gpu():
            norm = kernel_norm(norm, kernels)
        self._embed: Embedding
        if checkpoint.lm_head is None:  # the embedding is the output matrix, too
            matrix = self._matrix(checkpoint.embed_tokens)
            self._embed = ResidentEmbedding(matrix, dtype)
        else:
            matrix = self._matrix(checkpoint.lm_head)
            self._embed = PagedEmbedding(checkpoint.embed_tokens, dtype)
        head = frozen_product(matrix, kernels)
        cap = config.final_logit_softcapping

        def logits(states: mx.array) -> mx.array:
            product = head(norm(states))
            if cap is None:
                return product
            return cap * mx.tanh(product / cap)

        self.model: TrainedModel = TrainedModel(
            embed=self._embed,
            embedding_scale=block.embedding_scale(config),
            layers=LayerVisits(
                checkpoint.layers,
                [*range(count), *reversed(range(first, count))],
                pinned=memory.pinned,
                buffers=memory.buffers,
                reader=self.reader,
                make_layer=partial(
                    AdaptedBlock,
                    checkpoint,
                    kernels=kernels,
                    lora=lora,
                    squares=self._squares,
                    dtype=dtype,
                ),
                configs=[config.layer(index) for index in range(count)],
            ),
            count=count,
            first=first,
            logits=logits,
            kernels=kernels,
            recompute=memory.recompute,
            head_rows=head_rows(config.vocab_size),
            keep=list if self.input_file is None else self.input_file.stack,
            look_up=look_up,
        )

    def row_lengths(self) -> list[dict[str, mx.array]]:
        """Return the lengths of rows (O,) of each layer's matrices that may be changed, with DoRA.

        Raises:
            ReadError: a layer cannot be read.
        """
        layers = self.model.layers
        found: list[dict[str, mx.array]] = [{} for _ in range(self.model.count)]
        try:
            for index in range(self.model.count):
                with layers.layer(index) as layer:
                    if index >= self.model.first:
                        squares = layer.squares(index)
                        found[index] = {name: mx.sqrt(own) for name, own in squares.items()}
        finally:  # they were visited upwards alone
            layers.restart()
        mx.eval(found)
        return found

    def close(self) -> None:
        """Free the weights and close the files."""
        self.model.layers.close()
        self._embed.close()
        self.reader.close()
        if self.input_file is not None:
            self.input_file.close()
        mx.set_cache_limit(self._cache_limit)

    def _read(self, group: TensorGroup) -> WeightBuffer:
        buffer = WeightBuffer(group.layout.nbytes)
        self.reader.submit(group.extents, buffer.memory).wait()
        return buffer

    def _matrix(self, group: TensorGroup) -> DenseLinear | QuantizedLinear:
        return make_matrix(group, self._read(group))
