"""Linear layers and embeddings in torch, and the choice of those that suit a processor."""

# N out_features, K in_features, V vocabulary, E hidden

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F  # noqa: N812

from edgellm.bench.torch_backend.int4 import Int4CPU, Scratch
from edgellm.bench.torch_backend.weights import LinearWeights, QuantizedWeight, unpack

DEQUANTIZE_FROM = 48
"""Tokens from which on a processor dequantizes.

For 11 million weights on one thread of a Sapphire Rapids, the int4 kernel takes 0.25 ms per token;
dequantizing takes 11 ms, and the product with AMX then 3 ms for 128 tokens. Fused by torch.compile,
dequantizing took 7 ms, after 28 s of compiling.
"""


class Linear(Protocol):
    """A linear layer: multiplication by a weight."""

    @property
    def nbytes(self) -> int:
        """Bytes that one token's product reads."""
        ...

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x @ weight.T (+ bias)`` (..., N) of (..., K)."""
        ...


class LinearFactory(Protocol):
    """The linear layers of a device.

    Attributes:
        dtype: the type of activations.
        device: the device that computes.
        notes: how the weights of its layers are held, for a reader of the figures.
    """

    dtype: torch.dtype
    device: torch.device
    notes: set[str]

    def make_linear(self, weights: LinearWeights) -> Linear:
        """Make the layer that multiplies with some weights."""
        ...


class DenseLinear:
    """A linear layer whose weight (N, K) is numbers."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self.bias: torch.Tensor | None
        self.weight: torch.Tensor
        self.weight, self.bias = weight, bias

    @property
    def nbytes(self) -> int:
        """Bytes that one token's product reads."""
        return int(self.weight.nbytes)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x @ weight.T (+ bias)`` (..., N) of (..., K)."""
        return F.linear(x, self.weight, self.bias)


class ConcatenatedLinear:
    """Linear layers of one input whose weights are stored in different ways, side by side."""

    def __init__(self, parts: Sequence[Linear]) -> None:
        self.parts: tuple[Linear, ...] = tuple(parts)

    @property
    def nbytes(self) -> int:
        """Bytes that one token's product reads."""
        return sum(part.nbytes for part in self.parts)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the parts' products, joined along the last axis."""
        return torch.cat([part(x) for part in self.parts], dim=-1)


class Embedding:
    """An embedding (V, E) of numbers."""

    def __init__(self, weight: torch.Tensor, dtype: torch.dtype) -> None:
        self.dtype: torch.dtype
        self.weight: torch.Tensor
        self.weight, self.dtype = weight, dtype

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the embeddings (..., E) of tokens (...)."""
        return F.embedding(tokens, self.weight).to(self.dtype)


class QuantizedEmbedding:
    """An embedding of 2, 4 or 8 bits as MLX packs it; rows are dequantized when they are read.

    Args:
        packed: (V, E * bits / 32) words.
        scales: (V, G).
        biases: (V, G).
        bits: bits per code.
        dtype: the type of the embeddings.
    """

    def __init__(
        self,
        packed: torch.Tensor,
        scales: torch.Tensor,
        biases: torch.Tensor,
        *,
        bits: int,
        dtype: torch.dtype,
    ) -> None:
        self.biases: torch.Tensor
        self.packed: torch.Tensor
        self.scales: torch.Tensor
        self.packed, self.scales, self.biases = packed, scales, biases
        self.bits: int
        self.dtype: torch.dtype
        self.bits, self.dtype = bits, dtype

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the embeddings (..., E) of tokens (...)."""
        ids = tokens.reshape(-1)
        codes = unpack(self.packed[ids], self.bits)
        rows = QuantizedWeight(codes, self.scales[ids], self.biases[ids], self.bits)
        return rows.dequantize(self.dtype).view(*tokens.shape, -1)


class CPULinearFactory:
    """Linear layers on a processor: in bfloat16 quantized weights stay so, all else is numbers.

    In float32 and float16 torch's int4 kernel is a plain loop, 35 times slower than in bfloat16, so
    codes are dequantized when they are loaded.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.device: torch.device
        self.dtype: torch.dtype
        self.dtype, self.device = dtype, torch.device("cpu")
        self.notes: set[str] = set()
        self._scratch = Scratch()

    def make_linear(self, weights: LinearWeights) -> Linear:
        """Make the layer that multiplies with some weights."""
        bias = weights.bias if weights.bias is None else weights.bias.to(self.dtype)
        weight = weights.weight
        if not isinstance(weight, QuantizedWeight):
            self.notes.add(dense_note(weights))
            return DenseLinear(weight.to(self.dtype), bias)
        if self.dtype != torch.bfloat16:
            self.notes.add("codes dequantized")
            return DenseLinear(weight.dequantize(self.dtype), bias)
        if weight.bits <= 4:
            self.notes.add("int4 kernel")
        else:
            self.notes.add("int4 kernel, two codes per weight")
        if weight.scales.dtype == torch.float16:
            self.notes.add("float16 scales rounded to bfloat16")
        return Int4CPU(weight, bias, self.dtype, self._scratch, dequantize_from=DEQUANTIZE_FROM)


def dense_note(weights: LinearWeights) -> str:
    """Return the note of a layer whose weight is numbers."""
    if weights.expanded_mode is None:
        return "dense"
    return f"{weights.expanded_mode} dequantized"
