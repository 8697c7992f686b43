"""Linear layers on an NVIDIA GPU: for each shape the quickest kernel, found by trying."""

# M tokens, N out_features, K in_features, G groups of a row

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import torch
import torch.nn.functional as F  # noqa: N812

from edgellm.bench.torch_backend.int4 import Int4CUDA, add_bias, pairs_for_cuda
from edgellm.bench.torch_backend.linear import DenseLinear, Linear, dense_note
from edgellm.bench.torch_backend.weights import LinearWeights, QuantizedWeight

MATVEC_TOKENS = 8
"""Tokens up to which the matrix-vector kernel is used."""

TRIES = 20

TORCH_KERNEL = "torch's int4 kernel"
TRITON_KERNEL = "triton kernel"

MakeLinear = Callable[[QuantizedWeight, torch.Tensor | None, torch.device], Linear]


class TritonLinear:
    """A linear layer whose codes stay as MLX has them, one or two a byte.

    A few tokens go through a Triton kernel; for many the weight is dequantized.
    """

    SLICE_WEIGHTS = 1 << 26
    """Weights that are dequantized at once."""

    def __init__(
        self, weight: QuantizedWeight, bias: torch.Tensor | None, device: torch.device
    ) -> None:
        self.in_features: int
        self.out_features: int
        self.out_features, self.in_features = weight.codes.shape
        self.bias: torch.Tensor | None = bias if bias is None else bias.to(device, torch.bfloat16)
        self.one_a_byte: bool = weight.bits > 4
        codes = weight.codes if self.one_a_byte else nibbles(weight.codes)
        self.codes: torch.Tensor = codes.to(device)  # (N, K), or (N, K / 2)
        self.scales: torch.Tensor = weight.scales.to(device).contiguous()  # (N, G)
        self.biases: torch.Tensor = weight.biases.to(device).contiguous()  # (N, G)

    @property
    def nbytes(self) -> int:
        """Bytes that one token's product reads."""
        return int(self.codes.nbytes + self.scales.nbytes + self.biases.nbytes)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x @ weight.T (+ bias)`` (..., N) of (..., K)."""
        flat = x.reshape(-1, self.in_features)  # (M, K)
        if len(flat) <= MATVEC_TOKENS:
            from edgellm.bench.torch_backend.triton_matvec import matvec

            y = matvec(
                flat.contiguous(), self.codes, self.scales, self.biases, one_a_byte=self.one_a_byte
            )
        else:
            step = max(1, self.SLICE_WEIGHTS // self.in_features)
            slices = [
                F.linear(flat, self._dequantize(begin, begin + step))
                for begin in range(0, self.out_features, step)
            ]
            y = torch.cat(slices, dim=-1)
        return add_bias(y, self.bias).reshape(*x.shape[:-1], self.out_features)

    def _dequantize(self, begin: int, end: int) -> torch.Tensor:
        """Return some rows (rows, K) in bfloat16."""
        codes = self.codes[begin:end]
        if not self.one_a_byte:
            codes = torch.stack([codes & 15, codes >> 4], dim=-1)
        scales = self.scales[begin:end].bfloat16()[..., None]  # (rows, G, 1)
        biases = self.biases[begin:end].bfloat16()[..., None]
        grouped = codes.view(len(scales), scales.shape[1], -1).bfloat16()  # (rows, G, K / G)
        return torch.addcmul(biases, grouped, scales).view(-1, self.in_features)


def nibbles(codes: torch.Tensor) -> torch.Tensor:
    """Return codes (N, K) of 4 bits as (N, K / 2) bytes, the even column in the low nibble."""
    swapped = codes.view(len(codes), -1, 2).flip(-1)
    return pairs_for_cuda(swapped.reshape(codes.shape))


class CUDALinearFactory:
    """Linear layers on a GPU: in bfloat16 with the codes themselves, else with numbers."""

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self.device: torch.device
        self.dtype: torch.dtype
        self.dtype, self.device = dtype, device
        self.notes: set[str] = set()
        self._fastest_kernels: dict[tuple[int, int, bool, int], str] = {}

    def make_linear(self, weights: LinearWeights) -> Linear:
        """Make the layer that multiplies with some weights."""
        bias = weights.bias if weights.bias is None else weights.bias.to(self.device, self.dtype)
        weight = weights.weight
        if not isinstance(weight, QuantizedWeight):
            self.notes.add(dense_note(weights))
            return DenseLinear(weight.to(self.device, self.dtype), bias)
        kernels = self._kernels(weight)
        if not kernels:
            self.notes.add("codes dequantized")
            return DenseLinear(weight.dequantize(self.dtype).to(self.device), bias)
        name = self._fastest_kernel(weight, bias, kernels)
        self.notes.add(name)
        if weight.scales.dtype == torch.float16 and name == TORCH_KERNEL:
            self.notes.add("float16 scales rounded to bfloat16")
        return kernels[name](weight, bias, self.device)

    def _kernels(self, weight: QuantizedWeight) -> dict[str, MakeLinear]:
        """Return the kernels that can multiply with a weight, by name."""
        kernels: dict[str, MakeLinear] = {}
        if self.dtype != torch.bfloat16:
            return kernels
        if Int4CUDA.supports(weight):
            kernels[TORCH_KERNEL] = Int4CUDA
        if find_spec("triton") is not None:
            kernels[TRITON_KERNEL] = TritonLinear
        return kernels

    def _fastest_kernel(
        self, weight: QuantizedWeight, bias: torch.Tensor | None, kernels: dict[str, MakeLinear]
    ) -> str:
        """Return the name of the kernel that is done with one token soonest; tried once a shape."""
        rows, columns = weight.codes.shape
        shape = (rows, columns, weight.bits > 4, weight.group_size)
        if shape not in self._fastest_kernels:
            x = torch.ones((1, columns), dtype=self.dtype, device=self.device)
            seconds = {
                name: _seconds(make(weight, bias, self.device), x) for name, make in kernels.items()
            }
            self._fastest_kernels[shape] = min(seconds, key=lambda name: seconds[name])
        return self._fastest_kernels[shape]


def _seconds(linear: Linear, x: torch.Tensor) -> float:
    """Return the least that a product took in some tries, by the GPU's own clock."""
    times = []
    for _ in range(TRIES):
        begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begun.record()
        linear(x)
        ended.record()
        ended.synchronize()
        times.append(float(begun.elapsed_time(ended)) / 1000)
    return min(times)
