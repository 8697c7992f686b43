"""A model folder as a model in torch, with the same quantized weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from edgellm.bench.torch_backend.linear import (
    ConcatenatedLinear,
    Embedding,
    Linear,
    LinearFactory,
    QuantizedEmbedding,
)
from edgellm.bench.torch_backend.llama import Layer, Model
from edgellm.bench.torch_backend.shard import WHOLE, GatheredLinear, Shard, SummedLinear
from edgellm.bench.torch_backend.weights import (
    LinearWeights,
    QuantizedWeight,
    read_linear,
    read_stack,
    read_tensor,
)
from edgellm.checkpoint.checkpoint import Checkpoint, TensorGroup
from edgellm.checkpoint.family_configs import FAMILIES
from edgellm.checkpoint.layer_config import LayerConfig
from edgellm.checkpoint.model_config import ModelConfig
from edgellm.errors import UnsupportedModelError

COMPUTED = frozenset(
    {"llama", "mistral", "phi3", "qwen2", "qwen3", "seed_oss", "gemma2", "gemma3_text"}
    | {"ministral", "smollm3", "olmo2", "olmo3", "exaone4", "hunyuan_v1_dense"}
)
"""Families whose decoder block ``llama.py`` computes."""

ROW_BITS = (1, 2, 4, 8)
"""Bits of a code that torch unpacks row by row on any device."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model, and the bytes of weights that one decoded token reads."""

    model: Model
    weight_bytes_per_token: int


def load_model(checkpoint: Checkpoint, factory: LinearFactory, shard: Shard = WHOLE) -> LoadedModel:
    """Read all weights, or a rank's.

    Raises:
        ReadError: a file cannot be read.
        UnsupportedModelError: the family is another, or cannot be cut.
        ConfigError: this model cannot be cut into so many.
    """
    config = checkpoint.config
    if config.model_type not in COMPUTED:
        raise UnsupportedModelError(
            f"the bench's model in torch does not compute models of type {config.model_type}",
            hint=f"it computes {', '.join(sorted(COMPUTED))}",
        )
    shard.require_model(config)
    loader = _Loader(factory, FAMILIES[config.model_type].norm_offset, shard)
    layers = [
        loader.layer(group, config, config.layer(index))
        for index, group in enumerate(checkpoint.layers)
    ]
    model = Model(
        config=shard.config(config),
        embed_tokens=_embedding(checkpoint.embed_tokens, factory),
        layers=layers,
        norm=loader.norm_weight(checkpoint.norm, "weight"),
        lm_head=loader.head(checkpoint.lm_head or checkpoint.embed_tokens, config.vocab_size),
        dtype=factory.dtype,
        device=factory.device,
    )
    return LoadedModel(model, loader.nbytes)


class _Loader:
    """Reads layers, and counts the bytes of their matrices."""

    def __init__(self, factory: LinearFactory, norm_offset: float, shard: Shard) -> None:
        self.factory, self.norm_offset, self.nbytes = factory, norm_offset, 0
        self.shard = shard

    def layer(self, group: TensorGroup, config: ModelConfig, own: LayerConfig) -> Layer:
        norms, heads = config.norms, config.query_key_norm
        return Layer(
            before_attention=self.norm(group, norms.before_attention),
            qkv_proj=self.stack(group, "self_attn.qkv_proj", config),
            o_proj=self.summed(self.stack(group, "self_attn.o_proj", config)),
            after_attention=self.norm(group, norms.after_attention),
            before_mlp=self.norm(group, norms.before_mlp),
            gate_up_proj=self.stack(group, "mlp.gate_up_proj", config),
            down_proj=self.summed(self.stack(group, "mlp.down_proj", config)),
            after_mlp=self.norm(group, norms.after_mlp),
            q_norm=self.norm(group, heads.query if heads else None),
            k_norm=self.norm(group, heads.key if heads else None),
            own=own,
        )

    def stack(self, group: TensorGroup, name: str, config: ModelConfig) -> Linear:
        return self.linear(
            read_stack(
                group,
                name,
                lambda member, weights: self.shard.linear(group, member, weights, config),
            )
        )

    def summed(self, linear: Linear) -> Linear:
        return linear if self.shard.is_whole else SummedLinear(linear)

    def head(self, group: TensorGroup, vocabulary: int) -> Linear:
        linear = self.linear([self.shard.head(read_linear(group, ""), vocabulary)])
        return linear if self.shard.is_whole else GatheredLinear(linear, vocabulary)

    def linear(self, members: list[LinearWeights]) -> Linear:
        linears = [self.factory.make_linear(weights) for weights in members]
        self.nbytes += sum(linear.nbytes for linear in linears)
        if len(linears) == 1:
            return linears[0]
        return ConcatenatedLinear(linears)

    def norm(self, group: TensorGroup, name: str | None) -> torch.Tensor | None:
        return self.norm_weight(group, f"{name}.weight") if name else None

    def norm_weight(self, group: TensorGroup, name: str) -> torch.Tensor:
        weight = read_tensor(group.tensors[name]).to(self.factory.device)
        if self.norm_offset:
            # a sum in 16 bits would lose what differs from 1
            return weight.float() + self.norm_offset
        return weight.to(self.factory.dtype)


def _embedding(
    group: TensorGroup, factory: LinearFactory
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return what looks up rows: in packed form where a row can be unpacked by itself."""
    form = group.quantizations[""]
    if form is not None and form.mode == "affine" and form.bits in ROW_BITS:
        packed, scales, biases = (
            read_tensor(group.tensors[name]).to(factory.device)
            for name in ("weight", "scales", "biases")
        )
        return QuantizedEmbedding(packed, scales, biases, bits=form.bits, dtype=factory.dtype)
    weight = read_linear(group, "").weight
    if isinstance(weight, QuantizedWeight):
        weight = weight.dequantize(factory.dtype)
    return Embedding(weight.to(factory.device), factory.dtype)
