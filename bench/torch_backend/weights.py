"""A model folder's weights as torch tensors, with the codes of quantized ones unpacked."""

# N out_features, K in_features, G groups of a row

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
import torch

from edgellm.checkpoint.checkpoint import TensorGroup
from edgellm.checkpoint.quantization import Quantization
from edgellm.checkpoint.safetensors_file import TensorInfo
from edgellm.checkpoint.tensor_order import STACKS
from edgellm.errors import ReadError

DTYPES: Mapping[str, torch.dtype] = {
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "U32": torch.int32,
    "U8": torch.uint8,
}
"""The types of safetensors; packed words are read as signed: torch does little with U32."""


@dataclass(frozen=True, slots=True)
class QuantizedWeight:
    """A matrix in MLX's affine form: ``w = scale * code + bias``, both of them one per group.

    Attributes:
        codes: (N, K) uint8, each below ``2 ** bits``.
        scales: (N, G) as stored.
        biases: (N, G) as stored.
        bits: bits per code.
    """

    codes: torch.Tensor
    scales: torch.Tensor
    biases: torch.Tensor
    bits: int

    @property
    def group_size(self) -> int:
        """Codes that share a scale."""
        return int(self.codes.shape[1] // self.scales.shape[1])

    def dequantize(self, dtype: torch.dtype) -> torch.Tensor:
        """Return the numbers (N, K), computed in float32."""
        grouped = self.codes.view(len(self.codes), -1, self.group_size).float()  # (N, G, K / G)
        exact = grouped.mul_(self.scales.float()[..., None]).add_(self.biases.float()[..., None])
        return exact.view(self.codes.shape).to(dtype)


@dataclass(frozen=True, slots=True)
class LinearWeights:
    """The tensors of one linear layer.

    Attributes:
        weight: (N, K), quantized or numbers.
        bias: (N,) that is added to the product, or None.
        expanded_mode: the folder's quantization where torch has no kernel for it and the numbers
            were made from it; else None.
    """

    weight: QuantizedWeight | torch.Tensor
    bias: torch.Tensor | None = None
    expanded_mode: str | None = None


def read_tensor(tensor: TensorInfo) -> torch.Tensor:
    """Read a tensor as it is stored. Raises ReadError."""
    try:
        stored = np.fromfile(tensor.file, dtype=np.uint8, count=tensor.nbytes, offset=tensor.offset)
    except OSError as error:
        raise ReadError(
            f"{tensor.file} cannot be read at offset {tensor.offset}: {error.strerror}"
        ) from error
    if stored.nbytes != tensor.nbytes:
        raise ReadError(f"{tensor.file} ends before byte {tensor.offset + tensor.nbytes}")
    return torch.from_numpy(stored).view(DTYPES[tensor.dtype]).reshape(tensor.shape)


def read_stack(
    group: TensorGroup, stack: str, cut: Callable[[str, LinearWeights], LinearWeights]
) -> list[LinearWeights]:
    """Read the matrices of a stack of ``tensor_order.STACKS``.

    Args:
        group: the layer.
        stack: the name of the stack.
        cut: returns the part of a matrix, by its name, that is wanted.

    Returns:
        One on top of the others where they are stored alike, else each by itself.
    """
    members = [cut(name, read_linear(group, name)) for name in STACKS[stack]]
    if len(members) == 1 or len({_kernel_key(member) for member in members}) > 1:
        return members
    return [_concatenate(members)]


def read_linear(group: TensorGroup, name: str) -> LinearWeights:
    """Read the linear layer ``name`` of a tensor group; an empty name is the group's only one."""
    prefix = f"{name}." if name else ""

    def read(key: str) -> torch.Tensor:
        return read_tensor(group.tensors[prefix + key])

    bias = read("bias") if f"{prefix}bias" in group.tensors else None
    form = group.quantizations[name]
    if form is None:
        return LinearWeights(read("weight"), bias)
    packed, scales = read("weight"), read("scales")
    if form.mode != "affine":
        return LinearWeights(_dequantize_by_mlx(packed, scales, form), bias, form.mode)
    codes = unpack(packed, form.bits)
    return LinearWeights(QuantizedWeight(codes, scales, read("biases"), form.bits), bias)


def unpack(packed: torch.Tensor, bits: int) -> torch.Tensor:
    """Return the codes (N, K) uint8 of MLX's packed words (N, K * bits / 32).

    A row is one stream of bits, the lowest first: with 3 bits the codes 1, 2, 3 begin it as
    ``0b011_010_001``.
    """
    stored = packed.contiguous().view(torch.uint8)
    rows = len(stored)
    if bits == 8:
        return stored
    if bits in (1, 2, 4):
        per_byte = 8 // bits
        shape = (rows, stored.shape[1] * per_byte)
        codes = torch.empty(shape, dtype=torch.uint8, device=stored.device)
        for place in range(per_byte):  # three times as quick as torch.stack
            codes[:, place::per_byte] = (stored >> (bits * place)) & (2**bits - 1)
        return codes
    stream = np.unpackbits(stored.numpy(), axis=1, bitorder="little").reshape(rows, -1, bits)
    return torch.from_numpy(np.packbits(stream, axis=-1, bitorder="little").reshape(rows, -1))


def _dequantize_by_mlx(
    packed: torch.Tensor, scales: torch.Tensor, form: Quantization
) -> torch.Tensor:
    """Return the numbers of a form that is not affine, as MLX reads it."""
    weight = mx.dequantize(
        mx.array(packed.numpy().view(np.uint32)),
        mx.array(scales.numpy()),
        group_size=form.group_size,
        bits=form.bits,
        mode=form.mode,
    )
    numbers = torch.from_numpy(np.array(weight.astype(mx.float32)))
    if form.mode == "nvfp4":  # bfloat16 would round these by up to 1 in 256; the others it holds
        return numbers
    return numbers.bfloat16()


def _kernel_key(linear: LinearWeights) -> tuple[object, ...]:
    """Return what must be equal for matrices to stand on top of one another in one kernel."""
    weight, has_bias = linear.weight, linear.bias is not None
    if isinstance(weight, QuantizedWeight):
        # 1 to 4 bits take one code per weight, 5 to 8 take two
        return (weight.bits > 4, weight.group_size, weight.scales.dtype, has_bias)
    return (None, 0, weight.dtype, has_bias)


def _concatenate(members: Sequence[LinearWeights]) -> LinearWeights:
    biases = [member.bias for member in members if member.bias is not None]
    bias = torch.cat(biases) if biases else None
    quantized = [one.weight for one in members if isinstance(one.weight, QuantizedWeight)]
    if not quantized:
        weight = torch.cat([one.weight for one in members if isinstance(one.weight, torch.Tensor)])
        return LinearWeights(weight, bias, members[0].expanded_mode)
    weight = QuantizedWeight(
        codes=torch.cat([one.codes for one in quantized]),
        scales=torch.cat([one.scales for one in quantized]),
        biases=torch.cat([one.biases for one in quantized]),
        bits=max(one.bits for one in quantized),
    )
    return LinearWeights(weight, bias)
