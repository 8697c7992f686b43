"""A decoder layer whose products have low-rank changes, which are arguments of each call."""

# T tokens of all sequences, E hidden, I in, O out

from __future__ import annotations

from collections.abc import Mapping, Sequence

import mlx.core as mx

from edgellm.checkpoint.buffer import WeightBuffer
from edgellm.checkpoint.checkpoint import Checkpoint
from edgellm.checkpoint.tensor_order import STACKS
from edgellm.device import machine as device
from edgellm.kernels.kernel_engine import KernelEngine
from edgellm.kv_cache.kv_format import KVFormat
from edgellm.kv_cache.sequence_kv import SequenceKV
from edgellm.models.registry import block_class
from edgellm.training.low_rank import Change
from edgellm.training.operations.attention import attention_by_numpy
from edgellm.training.operations.products import Product, frozen_product, learned_product

Kept = Mapping[str, mx.array]
"""For each target, what its inputs (1, T, I) are multiplied by: 0 where one is dropped."""


class AdaptedProduct:
    """A frozen product of a stack, and changes of its members.

    Args:
        base: the product.
        members: names of the matrices whose results stand side by side, with the features of each.
        scale: what changes are multiplied by.
    """

    def __init__(self, base: Product, members: Mapping[str, int], scale: float) -> None:
        self.out_features: int = sum(members.values())
        self.change: Change = {}
        self.kept: Kept = {}
        self._base, self._members, self._scale = base, members, scale

    def __call__(self, x: mx.array) -> mx.array:
        """Return ``x @ weight.T + scale * (x @ A.T) @ B.T``, of each member that is changed."""
        y = self._base(x)
        if not any(f"{member}.lora_A" in self.change for member in self._members):
            return y
        parts = []
        for member, features in self._members.items():
            a = self.change.get(f"{member}.lora_A")
            if a is None:
                parts.append(mx.zeros((*x.shape[:-1], features), y.dtype))
                continue
            seen = x
            if member in self.kept:
                seen = x * self.kept[member].astype(x.dtype)
            low = learned_product(seen, a.astype(x.dtype))
            by_b = learned_product(low, self.change[f"{member}.lora_B"].astype(x.dtype))
            parts.append(by_b * self._scale)
        change = parts[0]
        if len(parts) > 1:
            change = mx.concatenate(parts, axis=-1)
        return y + change


class AdaptedBlock:
    """One decoder layer of a model, over a buffer that may be refilled between calls.

    Args:
        checkpoint: the model.
        index: the number of a layer; others that lie alike may be in the buffer later.
        buffer: holds its tensors.
        kernels: compute frozen products forwards; None where MLX does.
        scale: what changes are multiplied by.
        dtype: of hidden states.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        index: int,
        buffer: WeightBuffer,
        *,
        kernels: KernelEngine | None,
        scale: float,
        dtype: mx.Dtype,
    ) -> None:
        config, group = checkpoint.config, checkpoint.layers[index]
        tensors = buffer.arrays(group.layout)
        self._layer = config.layer(index)
        self._block = block_class(config)(
            config, self._layer, tensors, group.quantizations.__getitem__, fused=False
        )
        self._format = KVFormat(config.num_key_value_heads, config.head_dim, dtype)
        self._products: list[AdaptedProduct] = []
        shapes = config.tensor_shapes()
        for stack, members in STACKS.items():
            part, name = stack.split(".")
            owner = getattr(self._block, part)
            base = frozen_product(getattr(owner, name), kernels)
            features = {member: shapes[f"{member}.weight"][0] for member in members}
            self._products.append(AdaptedProduct(base, features, scale))
            setattr(owner, name, self._products[-1])
        if not device.has_gpu():
            self._block.self_attn.attention = attention_by_numpy

    def __call__(
        self, hidden: mx.array, lengths: Sequence[int], change: Change, kept: Kept
    ) -> mx.array:
        """Return the hidden states (1, T, E) after this layer.

        Args:
            hidden: of sequences side by side (1, T, E).
            lengths: tokens of each.
            change: the layer's numbers, which may be differentiated by.
            kept: inputs of changes that dropout leaves.
        """
        for product in self._products:
            product.change, product.kept = change, kept
        caches = [(SequenceKV(self._format, self._layer.window), length) for length in lengths]
        try:
            return self._block(hidden, caches)
        finally:  # masks would stay in memory until the next visit
            for product in self._products:
                product.change, product.kept = {}, {}
