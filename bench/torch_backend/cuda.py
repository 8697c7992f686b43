"""Products on an NVIDIA GPU: for each shape of matrix the quickest kernel that holds the same codes, found by trying."""

# M tokens, N rows (outputs), K columns (inputs), G groups of a row

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec

import torch
import torch.nn.functional as F  # noqa: N812

from edgellm.bench.torch_backend.int4 import Int4CUDA, cuda_pairs
from edgellm.bench.torch_backend.linear import Dense, Product
from edgellm.bench.torch_backend.weights import Codes, Matrix

FEW = 8
"""Tokens up to which the matrix-vector kernel is used."""

TRIES = 20

Make = Callable[[Codes, torch.Tensor | None, torch.device], Product]


class GroupedBytes:
    """Codes as MLX has them, (N, K) bytes or two a byte: a Triton kernel for a few tokens, dequantizing for many."""

    SLICE = 1 << 26
    """Weights that are dequantized at once."""

    def __init__(self, matrix: Codes, bias: torch.Tensor | None, device: torch.device) -> None:
        self.rows, self.columns = matrix.codes.shape
        self.wide = matrix.bits > 4
        self.bias = bias if bias is None else bias.to(device, torch.bfloat16)
        self.codes = (matrix.codes if self.wide else nibbles(matrix.codes)).to(device)
        self.scales, self.biases = (
            matrix.scales.to(device).contiguous(),
            matrix.biases.to(device).contiguous(),
        )

    @property
    def nbytes(self) -> int:
        """Bytes that one token's product reads."""
        return int(self.codes.nbytes + self.scales.nbytes + self.biases.nbytes)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x @ weight.T (+ bias)`` of (..., K)."""
        flat = x.reshape(-1, self.columns)
        if flat.shape[0] <= FEW:
            from edgellm.bench.torch_backend.triton_matvec import matvec

            y = matvec(flat.contiguous(), self.codes, self.scales, self.biases, wide=self.wide)
        else:
            step = max(1, self.SLICE // self.columns)
            y = torch.cat(
                [
                    F.linear(flat, self.numbers(begin, begin + step))
                    for begin in range(0, self.rows, step)
                ],
                dim=-1,
            )
        return (y if self.bias is None else y + self.bias).reshape(*x.shape[:-1], self.rows)

    def numbers(self, begin: int, end: int) -> torch.Tensor:
        """Some rows as bfloat16."""
        stored = self.codes[begin:end]
        codes = stored if self.wide else torch.stack([stored & 15, stored >> 4], dim=-1)
        scales, biases = (
            part[begin:end].bfloat16()[..., None] for part in (self.scales, self.biases)
        )
        grouped = codes.view(stored.shape[0], scales.shape[1], -1).bfloat16()
        return torch.addcmul(biases, grouped, scales).view(stored.shape[0], self.columns)


def nibbles(codes: torch.Tensor) -> torch.Tensor:
    """Codes (N, K) of 4 bits as (N, K / 2) bytes, the even column in the low nibble."""
    return cuda_pairs(codes.view(codes.shape[0], -1, 2).flip(-1).reshape(codes.shape))


class CUDAProducts:
    """Products on a GPU: in bfloat16 with the codes themselves, else with numbers made of them."""

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self.dtype, self.device = dtype, device
        self.notes: set[str] = set()
        self._chosen: dict[tuple[int, int, bool, int], str] = {}

    def product(self, matrix: Matrix) -> Product:
        """The product with a matrix."""
        bias = matrix.bias if matrix.bias is None else matrix.bias.to(self.device, self.dtype)
        weight = matrix.weight
        if not isinstance(weight, Codes):
            self.notes.add(f"{matrix.expanded} dequantized" if matrix.expanded else "dense")
            return Dense(weight.to(self.device, self.dtype), bias)
        makers = self._makers(weight) if self.dtype == torch.bfloat16 else {}
        if not makers:
            self.notes.add("codes dequantized")
            return Dense(weight.dequantized(self.dtype).to(self.device), bias)
        shape = (*weight.codes.shape, weight.bits > 4, weight.group_size)
        if shape not in self._chosen:
            made = {name: make(weight, bias, self.device) for name, make in makers.items()}
            self._chosen[shape] = self._fastest(made, weight.codes.shape[1])
        name = self._chosen[shape]
        self.notes.add(name)
        if weight.scales.dtype == torch.float16 and name == TORCH_KERNEL:
            self.notes.add("float16 scales rounded to bfloat16")
        return makers[name](weight, bias, self.device)

    def _makers(self, weight: Codes) -> Mapping[str, Make]:
        makers: dict[str, Make] = {}
        if Int4CUDA.takes(weight):
            makers[TORCH_KERNEL] = Int4CUDA
        if find_spec("triton") is not None:
            makers[TRITON_KERNEL] = GroupedBytes
        return makers

    def _fastest(self, made: Mapping[str, Product], columns: int) -> str:
        """The name of the product that takes one token soonest."""
        x = torch.ones((1, columns), dtype=self.dtype, device=self.device)
        return (
            min(made, key=lambda name: _seconds(made[name], x))
            if len(made) > 1
            else next(iter(made))
        )


TORCH_KERNEL = "torch's int4 kernel"
TRITON_KERNEL = "triton kernel"


def _seconds(product: Product, x: torch.Tensor) -> float:
    """The least that a product took in some tries, by the GPU's own clock."""
    times = []
    for _ in range(TRIES):
        begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begun.record()
        product(x)
        ended.record()
        ended.synchronize()
        times.append(float(begun.elapsed_time(ended)) / 1000)
    return min(times)
