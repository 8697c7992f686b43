"""A decoder layer whose products have low-rank changes, which are arguments of each call."""

# T tokens of all sequences, E hidden, I in, O out

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

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
from edgellm.training.low_rank import Change, LoraSettings
from edgellm.training.operations.adapted_product import AdaptedProduct, Kept
from edgellm.training.operations.attention import attention_by_numpy
from edgellm.training.operations.gate_and_norms import KernelMLP, kernel_norm
from edgellm.training.operations.rotary_attention import RotaryAttention, is_rotary

Results = dict[str, list[mx.array]]
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
        scales = {target: self._lora.scale_of(index, target) for target in self._lora.targets}
        squares = self.squares(index) if self._lora.dora and change else {}
        for stack, product in self._products.items():
            product.change, product.kept = change, kept
            product.scales, product.row_squares = scales, squares
            if results is not None:
                product.result = results.setdefault(stack, [])
        if results is not None and self._attention is not None:
            self._attention.result = results.setdefault("attention", [])
        caches = [(SequenceKV(self._format, self._layer.window), length) for length in lengths]
        try:
            return self._block(hidden, caches)
        finally:  # masks would stay in memory until the next visit
            for product in self._products.values():
                product.change, product.kept, product.result = {}, {}, None
            if self._attention is not None:
                self._attention.result = None

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
