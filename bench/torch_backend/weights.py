"""A model folder's weights as torch tensors: read from the files, their codes unpacked, whatever MLX packed them as."""

# N rows (outputs), K columns (inputs), G groups of a row

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
import torch

from edgellm.checkpoint.checkpoint import TensorGroup
from edgellm.checkpoint.folder import TensorInfo
from edgellm.checkpoint.quantization import Quantization
from edgellm.checkpoint.tensor_order import STACKS
from edgellm.errors import ReadError

DTYPES: Mapping[str, torch.dtype] = {
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "U32": torch.int32,
    "U8": torch.uint8,
}


@dataclass(frozen=True, slots=True)
class Codes:
    """A matrix in MLX's affine form: ``w = scale * code + bias``, one scale and bias a group of a row.

    Attributes:
        codes: (N, K) uint8, each below ``2 ** bits``.
        scales: (N, G) as stored.
        biases: (N, G) as stored.
        bits: of a code.
    """

    codes: torch.Tensor
    scales: torch.Tensor
    biases: torch.Tensor
    bits: int

    @property
    def group_size(self) -> int:
        """Codes that share a scale."""
        return int(self.codes.shape[1] // self.scales.shape[1])

    def dequantized(self, dtype: torch.dtype) -> torch.Tensor:
        """The numbers (N, K), computed in float32."""
        rows, columns = self.codes.shape
        grouped = self.codes.view(rows, -1, self.group_size).float()
        exact = grouped.mul_(self.scales.float()[..., None]).add_(self.biases.float()[..., None])
        return exact.view(rows, columns).to(dtype)


@dataclass(frozen=True, slots=True)
class Matrix:
    """One product's weight: codes or numbers (N, K), and the bias (N,) that is added to the result, if there is one.

    ``expanded`` is set where the folder holds a form that torch has no kernel for, and the numbers
    were made from it.
    """

    weight: Codes | torch.Tensor
    bias: torch.Tensor | None = None
    expanded: str | None = None


def read_tensor(tensor: TensorInfo) -> torch.Tensor:
    """A tensor as it is stored. Raises ReadError."""
    try:
        stored = np.fromfile(tensor.file, dtype=np.uint8, count=tensor.nbytes, offset=tensor.offset)
    except OSError as error:
        raise ReadError(
            f"{tensor.file} cannot be read at offset {tensor.offset}: {error.strerror}"
        ) from error
    if stored.nbytes != tensor.nbytes:
        raise ReadError(f"{tensor.file} ends before byte {tensor.offset + tensor.nbytes}")
    return torch.from_numpy(stored).view(DTYPES[tensor.dtype]).reshape(tensor.shape)


def read_stack(part: TensorGroup, stack: str) -> list[Matrix]:
    """The matrices of a stack of ``layout.STACKS``: one where its members are stored alike, else one a member."""
    members = [read_matrix(part, name) for name in STACKS[stack]]
    return [_stacked(members)] if _alike(members) else members


def read_matrix(part: TensorGroup, name: str) -> Matrix:
    """The matrix ``name`` of a part; an empty name is the part's only one."""
    stem = f"{name}." if name else ""
    tensors = {
        key.removeprefix(stem): info for key, info in part.tensors.items() if key.startswith(stem)
    }
    bias = read_tensor(tensors["bias"]) if "bias" in tensors else None
    weight, form = read_tensor(tensors["weight"]), part.quantizations[name]
    if form is None:
        return Matrix(weight, bias)
    scales = read_tensor(tensors["scales"])
    if form.mode != "affine":
        return Matrix(_from_mlx(weight, scales, form), bias, expanded=form.mode)
    return Matrix(
        Codes(unpack(weight, form.bits), scales, read_tensor(tensors["biases"]), form.bits), bias
    )


def unpack(packed: torch.Tensor, bits: int) -> torch.Tensor:
    """Codes (N, K) uint8 from MLX's packed words (N, K * bits / 32): a row is one stream of bits, the lowest first."""
    stored = packed.contiguous().view(torch.uint8)
    rows = stored.shape[0]
    if bits == 8:
        return stored
    if bits in (2, 4):
        each = 8 // bits
        codes = torch.empty((rows, stored.shape[1] * each), dtype=torch.uint8, device=stored.device)
        for place in range(each):  # three times as quick as torch.stack
            codes[:, place::each] = (stored >> (bits * place)) & (2**bits - 1)
        return codes
    stream = np.unpackbits(stored.numpy(), axis=1, bitorder="little").reshape(rows, -1, bits)
    return torch.from_numpy(np.packbits(stream, axis=-1, bitorder="little").reshape(rows, -1))


def _from_mlx(weight: torch.Tensor, scales: torch.Tensor, form: Quantization) -> torch.Tensor:
    """The numbers of a form that is not affine, as MLX reads it; bfloat16 holds them all exactly but nvfp4's, to 1 in 256."""
    words, own = mx.array(weight.numpy().view(np.uint32)), mx.array(scales.numpy())
    plain = mx.dequantize(
        words, own, group_size=form.group_size, bits=form.bits, mode=form.mode
    ).astype(mx.float32)
    return (
        torch.from_numpy(np.array(plain)).bfloat16()
        if form.mode != "nvfp4"
        else torch.from_numpy(np.array(plain))
    )


def _alike(members: Sequence[Matrix]) -> bool:
    """Whether matrices can stand on top of one another in one kernel: 2, 3 and 4 bits take the same, 5 to 8 another."""
    kinds = set[object]()
    for member in members:
        weight = member.weight
        if isinstance(weight, Codes):
            kinds.add(
                (weight.bits > 4, weight.group_size, weight.scales.dtype, member.bias is None)
            )
        else:
            kinds.add((None, 0, weight.dtype, member.bias is None))
    return len(kinds) == 1


def _stacked(members: Sequence[Matrix]) -> Matrix:
    if len(members) == 1:
        return members[0]
    bias = torch.cat([member.bias for member in members]) if members[0].bias is not None else None
    codes = [member.weight for member in members if isinstance(member.weight, Codes)]
    if codes:
        joined = [
            torch.cat([getattr(one, field) for one in codes])
            for field in ("codes", "scales", "biases")
        ]
        return Matrix(Codes(joined[0], joined[1], joined[2], max(one.bits for one in codes)), bias)
    return Matrix(
        torch.cat([member.weight for member in members]), bias, expanded=members[0].expanded
    )
