"""A decoder layer whose products have low-rank changes, which are arguments of each call."""

# T tokens of all sequences, E hidden, I in, O out

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import numpy as np

from edgellm.checkpoint.buffer import WeightBuffer
from edgellm.checkpoint.checkpoint import Checkpoint
from edgellm.checkpoint.layer_config import LayerConfig
from edgellm.checkpoint.tensor_order import STACKS
from edgellm.device import machine as device
from edgellm.kernels.kernel_engine import KernelEngine
from edgellm.kv_cache.kv_format import KVFormat
from edgellm.kv_cache.sequence_kv import SequenceKV
from edgellm.models.llama import MLP, Block, RMSNorm
from edgellm.models.registry import block_class
from edgellm.training.elementwise.gate_and_norms import KernelMLP, kernel_norm
from edgellm.training.low_rank import Change, LoraSettings
from edgellm.training.operations.adapted_product import AdaptedProduct, Kept
from edgellm.training.operations.attention import attention_by_numpy
from edgellm.training.operations.rotary_attention import RotaryAttention, is_rotary
from edgellm.training.operations.rows_pass import Parts, RowsPass

Results = dict[str, list[Any]]
"""A call's results by the part of the layer that they come of: what need not be computed again."""


def put_on_processor(
    block: Block, layer: LayerConfig, kernels: KernelEngine | None
) -> RotaryAttention | None:
    """Give a block attention and gate whose derivatives are fast without a GPU.

    Args:
        block: whose products are in their places.
        layer: what is its own.
        kernels: compute both; None where MLX and NumPy do.

    Returns:
        Its attention, where that can keep its result.
    """
    if kernels is not None and type(block.mlp) is MLP and block.mlp.gate is Block.gate:
        block.mlp = KernelMLP(block.mlp, kernels)
    if device.has_gpu():
        return None
    if is_rotary(block.self_attn) and layer.window is None:
        block.self_attn = attention = RotaryAttention(block.self_attn, kernels)
        return attention
    block.self_attn.attention = attention_by_numpy
    return None


def differentiated(
    through: Callable[[mx.array, Change], mx.array],
    hidden: mx.array,
    gradient: mx.array,
    change: Change,
) -> tuple[mx.array, Change]:
    """Return derivatives by a layer's input and its numbers, as MLX differentiates it.

    Args:
        through: the layer, of what goes in and of its numbers.
        hidden: what goes in.
        gradient: the loss's derivative by what comes out.
        change: the numbers.
    """
    names = list(change)

    def whole(state: mx.array, *numbers: mx.array) -> list[mx.array]:
        return [through(state, dict(zip(names, numbers, strict=True)))]

    _, (by_hidden, *by_change) = mx.vjp(whole, [hidden, *change.values()], [gradient])
    return by_hidden, dict(zip(names, by_change, strict=True))


def _list_of(results: Results | None) -> list[Parts] | None:
    """Return where a call's parts are kept."""
    return None if results is None else results.setdefault("rows", [])


class AdaptedBlock:
    """One decoder layer of a model, over a buffer that may be refilled between calls.

    Args:
        checkpoint: the model.
        index: the number of a layer; others that lie alike may be in the buffer later.
        buffer: holds its tensors.
        kernels: compute frozen products forwards; None where MLX does.
        lora: what is learned.
        squares: squared lengths of rows by layer, with DoRA; layers that are visited for the first
            time add theirs.
        dtype: of hidden states.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        index: int,
        buffer: WeightBuffer,
        *,
        kernels: KernelEngine | None,
        lora: LoraSettings,
        squares: dict[int, dict[str, mx.array]],
        dtype: mx.Dtype,
    ) -> None:
        config, group = checkpoint.config, checkpoint.layers[index]
        tensors = buffer.arrays(group.layout)
        self._layer = config.layer(index)
        self._block = block_class(config)(
            config, self._layer, tensors, group.quantizations.__getitem__, fused=False
        )
        self._format = KVFormat(config.num_key_value_heads, config.head_dim, dtype)
        self._lora, self._squares = lora, squares
        self._products: dict[str, AdaptedProduct] = {}
        shapes = config.tensor_shapes()
        for stack, members in STACKS.items():
            part, name = stack.split(".")
            owner = getattr(self._block, part)
            features = {member: shapes[f"{member}.weight"][0] for member in members}
            product = AdaptedProduct(getattr(owner, name), kernels, features)
            self._products[stack] = product
            setattr(owner, name, product)
        self._attention = put_on_processor(self._block, self._layer, kernels)
        if not device.has_gpu():
            for name, norm in list(vars(self._block).items()):
                if isinstance(norm, RMSNorm):
                    setattr(self._block, name, kernel_norm(norm, kernels))
        self._rows_pass = RowsPass.of(self._block, self._products)

    def __call__(
        self,
        index: int,
        hidden: mx.array,
        lengths: Sequence[int],
        change: Change,
        kept: Kept,
        *,
        results: Results | None = None,
    ) -> mx.array:
        """Return the hidden states (1, T, E) after this layer.

        Args:
            index: the number of the layer that is in the buffer.
            hidden: of sequences side by side (1, T, E).
            lengths: tokens of each.
            change: the layer's numbers, which may be differentiated by.
            kept: inputs of changes that dropout leaves.
            results: of the same call before, or empty, to be filled; None: none are kept.
        """
        if self._rows_pass is not None and not self._learns_lengths(change):
            with self._changed(index, change, kept, None):
                rows = np.array(hidden, copy=False)[0]
                return mx.array(self._rows_pass.through(rows, lengths, _list_of(results))[None])
        return self._by_mlx(index, hidden, lengths, change, kept, results=results)

    def back(
        self,
        index: int,
        hidden: mx.array,
        lengths: Sequence[int],
        change: Change,
        kept: Kept,
        *,
        gradient: mx.array,
        results: Results | None = None,
    ) -> tuple[mx.array, Change]:
        """Return derivatives by the layer's input (1, T, E) and by its change.

        Args:
            index, hidden, lengths, change, kept, results: as of the call upwards.
            gradient: the loss's derivative by what came out.
        """
        if self._rows_pass is not None and not self._learns_lengths(change):
            with self._changed(index, change, kept, None):
                rows, by_out = (np.array(array, copy=False)[0] for array in (hidden, gradient))
                by_rows, own = self._rows_pass.back(rows, by_out, lengths, _list_of(results))
            return mx.array(by_rows[None]), {name: mx.array(own[name]) for name in change}

        def through(state: mx.array, numbers: Change) -> mx.array:
            return self._by_mlx(index, state, lengths, numbers, kept, results=results)

        return differentiated(through, hidden, gradient, change)

    def _by_mlx(
        self,
        index: int,
        hidden: mx.array,
        lengths: Sequence[int],
        change: Change,
        kept: Kept,
        *,
        results: Results | None,
    ) -> mx.array:
        caches = [(SequenceKV(self._format, self._layer.window), length) for length in lengths]
        with self._changed(index, change, kept, results):
            return self._block(hidden, caches)

    @contextmanager
    def _changed(
        self, index: int, change: Change, kept: Kept, results: Results | None
    ) -> Generator[None]:
        """Lend the products their changes: masks would stay in memory until the next visit."""
        scales = {target: self._lora.scale_of(index, target) for target in self._lora.targets}
        squares = self.squares(index) if self._learns_lengths(change) else {}
        for stack, product in self._products.items():
            product.change, product.kept = change, kept
            product.scales, product.row_squares = scales, squares
            if results is not None:
                product.result = results.setdefault(stack, [])
        if results is not None and self._attention is not None:
            self._attention.result = results.setdefault("attention", [])
        try:
            yield
        finally:
            for product in self._products.values():
                product.change, product.kept, product.result = {}, {}, None
            if self._attention is not None:
                self._attention.result = None

    def _learns_lengths(self, change: Change) -> bool:
        return self._lora.dora and bool(change)

    def squares(self, index: int) -> dict[str, mx.array]:
        """Return the squared lengths of the rows (O,) of each matrix that may be changed.

        They are computed when a layer is there for the first time.

        Args:
            index: the number of the layer that is in the buffer.
        """
        if index not in self._squares:
            own: dict[str, mx.array] = {}
            for product in self._products.values():
                if any(member in self._lora.targets for member in product.members):
                    own |= product.squares()
            self._squares[index] = own
        return self._squares[index]
