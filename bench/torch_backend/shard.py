"""One rank's rows and columns of every matrix, and what ranks tell each other.

The cut is Megatron-LM's (Shoeybi et al. 2019, arXiv:1909.08053): a rank has some heads and some
inner features. What makes them is cut by rows, what reads them by columns, so that ranks meet
twice a layer, where their parts of the hidden states are summed. The output matrix is cut by rows,
and logits are put side by side. Embedding and norms are on every rank.
"""

# N out_features, K in_features, V vocabulary, D head size

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist

from edgellm.bench.torch_backend.linear import Linear
from edgellm.bench.torch_backend.weights import LinearWeights, QuantizedWeight
from edgellm.checkpoint.checkpoint import TensorGroup
from edgellm.checkpoint.model_config import ModelConfig
from edgellm.errors import BackendError, ConfigError, UnsupportedModelError

ONE_RANK = "leave out --tensor-parallel"


class LostRanksError(BackendError):
    """Other ranks did not come to where all meet: one of them is gone, or stands still."""


@dataclass(frozen=True, slots=True)
class Shard:
    """The part of a model that a rank computes.

    Attributes:
        rank: the rank's number.
        size: how many ranks there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_whole(self) -> bool:
        """Whether there is one rank alone."""
        return self.size == 1

    def require_model(self, config: ModelConfig) -> None:
        """Raise ConfigError or UnsupportedModelError where a model cannot be cut so."""
        heads, groups = config.num_attention_heads, config.num_key_value_heads
        norm = config.query_key_norm
        if norm is not None and norm.whole and not self.is_whole:
            raise UnsupportedModelError(
                f"models of type {config.model_type} normalize all heads together, which no rank "
                "has",
                hint=ONE_RANK,
            )
        if heads % self.size or (groups % self.size and self.size % groups):
            fitting = [
                str(size)
                for size in range(2, heads + 1)
                if heads % size == 0 and (groups % size == 0 or size % groups == 0)
            ]
            hint = f"give one of {', '.join(fitting)}" if fitting else ONE_RANK
            raise ConfigError(
                f"{heads} heads with {groups} key/value heads cannot be divided among "
                f"{self.size} ranks",
                hint=hint,
            )

    def config(self, config: ModelConfig) -> ModelConfig:
        """Return the config of a model that has this rank's heads alone."""
        return replace(
            config,
            num_attention_heads=config.num_attention_heads // self.size,
            num_key_value_heads=max(1, config.num_key_value_heads // self.size),
        )

    def linear(
        self, group: TensorGroup, name: str, weights: LinearWeights, config: ModelConfig
    ) -> LinearWeights:
        """Return this rank's part of a layer's matrix. Raises ConfigError.

        Args:
            group: the layer.
            name: the matrix, as the checkpoint calls it inside the layer.
            weights: the whole matrix.
            config: of the whole model.
        """
        if self.is_whole:
            return weights
        own = self.config(config)
        match name.rpartition(".")[2]:
            case "q_proj":
                return rows(weights, *self._part(config.num_attention_heads * config.head_dim))
            case "k_proj" | "v_proj":
                # of more ranks than heads, several have the same one
                first = self.rank * config.num_key_value_heads // self.size
                begin, count = first * config.head_dim, own.num_key_value_heads * config.head_dim
                return rows(weights, begin, begin + count)
            case "o_proj":
                bounds = self._part(config.num_attention_heads * config.head_dim)
                return self._columns(weights, *bounds)
            case "gate_proj" | "up_proj":
                return rows(weights, *self._inner(group, config))
            case "down_proj":
                return self._columns(weights, *self._inner(group, config))
        raise AssertionError(f"nothing is known of {name}")

    def head(self, weights: LinearWeights, vocabulary: int) -> LinearWeights:
        """Return this rank's rows of the output matrix; the last rank may have fewer."""
        if self.is_whole:
            return weights
        count = -(-vocabulary // self.size)
        return rows(weights, self.rank * count, min(vocabulary, (self.rank + 1) * count))

    def _part(self, count: int) -> tuple[int, int]:
        each = count // self.size
        return self.rank * each, (self.rank + 1) * each

    def _inner(self, group: TensorGroup, config: ModelConfig) -> tuple[int, int]:
        """Return the first inner feature of this rank and the one behind its last."""
        form = group.quantizations["mlp.down_proj"]
        unit = form.group_size if form is not None else 1
        units = config.intermediate_size // unit
        if units < self.size:
            raise ConfigError(
                f"{units} groups of {unit} inner features are too few for {self.size} ranks",
                hint=ONE_RANK,
            )
        begin, end = (units * number // self.size for number in (self.rank, self.rank + 1))
        return begin * unit, end * unit

    def _columns(self, weights: LinearWeights, begin: int, end: int) -> LinearWeights:
        """Return some columns; the first rank alone adds the bias, which is summed else."""
        return replace(columns(weights, begin, end), bias=weights.bias if self.rank == 0 else None)


WHOLE = Shard()


def rows(weights: LinearWeights, begin: int, end: int) -> LinearWeights:
    """Return some rows of a linear layer, in memory of their own."""
    part = slice(begin, end)
    bias = None if weights.bias is None else weights.bias[part].clone()
    weight = weights.weight
    if not isinstance(weight, QuantizedWeight):
        return replace(weights, weight=weight[part].clone(), bias=bias)
    codes, scales, biases = (
        tensor[part].clone() for tensor in (weight.codes, weight.scales, weight.biases)
    )
    return replace(weights, weight=QuantizedWeight(codes, scales, biases, weight.bits), bias=bias)


def columns(weights: LinearWeights, begin: int, end: int) -> LinearWeights:
    """Return some columns of a linear layer, with its whole bias.

    Raises ConfigError where they are not whole groups of quantized weights.
    """
    weight = weights.weight
    if not isinstance(weight, QuantizedWeight):
        return replace(weights, weight=weight[:, begin:end].clone())
    size = weight.group_size
    if begin % size or end % size:
        raise ConfigError(
            f"a rank would have the columns {begin} to {end}, which are no whole groups of {size}",
            hint="take fewer ranks, or convert with a smaller --group-size",
        )
    part = slice(begin // size, end // size)
    return replace(
        weights,
        weight=QuantizedWeight(
            weight.codes[:, begin:end].clone(),
            weight.scales[:, part].clone(),
            weight.biases[:, part].clone(),
            weight.bits,
        ),
    )


class SummedLinear:
    """A linear layer of some columns, whose products are summed over all ranks."""

    def __init__(self, linear: Linear) -> None:
        self.linear: Linear = linear

    @property
    def nbytes(self) -> int:
        """Bytes that one token's product reads on this rank."""
        return self.linear.nbytes

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the sum (..., N) of all ranks' ``x @ weight.T``. Raises LostRanksError."""
        part = self.linear(x).contiguous()
        meet(lambda: dist.all_reduce(part))
        return part


class GatheredLinear:
    """A linear layer of some rows, whose products of all ranks stand side by side.

    Args:
        linear: this rank's rows.
        features: those of all ranks together.
    """

    def __init__(self, linear: Linear, features: int) -> None:
        self.linear: Linear = linear
        self.features: int = features

    @property
    def nbytes(self) -> int:
        """Bytes that one token's product reads on this rank."""
        return self.linear.nbytes

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return all ranks' products (..., features). Raises LostRanksError."""
        part = self.linear(x)
        ranks = dist.get_world_size()
        each = -(-self.features // ranks)
        part = torch.nn.functional.pad(part, (0, each - part.shape[-1])).contiguous()
        parts = [torch.empty_like(part) for _ in range(ranks)]
        meet(lambda: dist.all_gather(parts, part))
        return torch.cat(parts, dim=-1)[..., : self.features]


def meet(together: Callable[[], object]) -> None:
    """Do what all ranks do together. Raises LostRanksError where they do not come."""
    try:
        together()
    except RuntimeError as error:  # of gloo and NCCL, every failure is one
        raise LostRanksError(" ".join(str(error).split()), hint=ONE_RANK) from error
