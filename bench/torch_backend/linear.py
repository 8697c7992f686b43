"""A folder's matrices as products on a device: each in the quickest form that holds the same weights."""

# N rows (outputs), K columns (inputs), V vocabulary, E hidden

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F  # noqa: N812

from edgellm.bench.torch_backend.int4 import Int4CPU, Scratch
from edgellm.bench.torch_backend.weights import Codes, Matrix, unpack

MANY = 48
"""Tokens from which on a processor dequantizes for a product: torch's kernel takes 0.25 ms a token for 11 million weights
(one thread of a Sapphire Rapids), dequantizing 11 ms and the product with AMX 3 ms for 128 tokens.
Fused by torch.compile, dequantizing took 7 ms after 28 s of compiling."""


class Product(Protocol):
    """Multiplication by a weight."""

    @property
    def nbytes(self) -> int:
        """Bytes that one token's product reads."""
        ...

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x @ weight.T (+ bias)`` of (..., K)."""
        ...


class Products(Protocol):
    """How a device multiplies."""

    dtype: torch.dtype
    device: torch.device
    notes: set[str]
    """What a reader of the figures should know of how weights are held."""

    def product(self, matrix: Matrix) -> Product:
        """The product with a matrix."""
        ...


class Dense:
    """A weight (N, K) of numbers."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self.weight, self.bias = weight, bias

    @property
    def nbytes(self) -> int:
        """Bytes that one token's product reads."""
        return int(self.weight.nbytes)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x @ weight.T (+ bias)`` of (..., K)."""
        return F.linear(x, self.weight, self.bias)


class Joined:
    """Weights with the same input that are stored in different ways; their results stand side by side."""

    def __init__(self, parts: Sequence[Product]) -> None:
        self.parts = tuple(parts)

    @property
    def nbytes(self) -> int:
        """Bytes that one token's product reads."""
        return sum(part.nbytes for part in self.parts)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the parts' results, joined along the last axis."""
        return torch.cat([part(x) for part in self.parts], dim=-1)


class PackedTable:
    """An embedding of 2, 4 or 8 bits as MLX packs it; rows are dequantized when they are looked up."""

    def __init__(
        self,
        words: torch.Tensor,
        scales: torch.Tensor,
        biases: torch.Tensor,
        bits: int,
        dtype: torch.dtype,
    ) -> None:
        self.words, self.scales, self.biases, self.bits, self.dtype = (
            words,
            scales,
            biases,
            bits,
            dtype,
        )

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        """Embeddings (..., E) of tokens (...)."""
        flat = tokens.reshape(-1)
        rows = Codes(
            unpack(self.words[flat], self.bits), self.scales[flat], self.biases[flat], self.bits
        )
        return rows.dequantized(self.dtype).view(*tokens.shape, -1)


class Table:
    """An embedding (V, E) of numbers."""

    def __init__(self, weight: torch.Tensor, dtype: torch.dtype) -> None:
        self.weight, self.dtype = weight, dtype

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        """Embeddings (..., E) of tokens (...)."""
        return F.embedding(tokens, self.weight).to(self.dtype)


class CPUProducts:
    """Products on a processor: in bfloat16 codes of any bits through torch's int4 kernel, all else as numbers.

    In float32 and float16 torch's int4 kernel is a plain loop, 35 times slower than in bfloat16:
    there codes become numbers.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype, self.device = dtype, torch.device("cpu")
        self.notes: set[str] = set()
        self._scratch = Scratch()

    def product(self, matrix: Matrix) -> Product:
        """The product with a matrix."""
        bias = matrix.bias if matrix.bias is None else matrix.bias.to(self.dtype)
        weight = matrix.weight
        if not isinstance(weight, Codes):
            self.notes.add(f"{matrix.expanded} dequantized" if matrix.expanded else "dense")
            return Dense(weight.to(self.dtype), bias)
        if self.dtype != torch.bfloat16:
            self.notes.add("codes dequantized")
            return Dense(weight.dequantized(self.dtype), bias)
        self.notes.add("int4 kernel" if weight.bits <= 4 else "int4 kernel, two codes a weight")
        if weight.scales.dtype == torch.float16:
            self.notes.add("float16 scales rounded to bfloat16")
        return Int4CPU(weight, bias, self.dtype, self._scratch, many=MANY)
