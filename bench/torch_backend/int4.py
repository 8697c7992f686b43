"""Linear layers of quantized weights through torch's own int4 kernels.

The kernels compute ``w = (code - 8) * scale + zero`` with codes of 4 bits and groups of 32, 64 or
128. MLX's affine form ``w = code * scale + bias`` is that with ``zero = bias + 8 * scale``; codes
of 2 and 3 bits are such codes too. A code of 5 to 8 bits is two of them, ``16 * high + low``::

    w = (low - 8) * scale + (high - 8) * (16 * scale) + (bias + 8 * scale + 8 * 16 * scale)

so a row becomes [low | high] with the scales [scale | 16 * scale], and is multiplied by [x, x]. It
keeps its groups, which torch's int8 kernel has not, and each code is read once.
"""

# M tokens, N out_features, K in_features, G groups of a row

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch

from edgellm.bench.torch_backend.weights import QuantizedWeight

ROW_MULTIPLE = 64
"""Rows are filled up to a multiple of it: the widest block of the packing for processors."""

GROUP_SIZES = (32, 64, 128)

INNER_K_TILES = 8
"""An argument of the packing for CUDA: a tile has 8 * 16 columns."""


def int4_codes(weight: QuantizedWeight) -> torch.Tensor:
    """Return the codes as codes of 4 bits: (N, K), or [low | high] (N, 2 K)."""
    if weight.bits <= 4:
        return weight.codes
    return torch.cat([weight.codes & 15, weight.codes >> 4], dim=1)


def scales_and_zeros(weight: QuantizedWeight, dtype: torch.dtype) -> torch.Tensor:
    """Return scales and zeros as the kernels read them: (G, N, 2), or [low | high] (2 G, N, 2).

    The zeros of low and high may share their sum in any way: high has it rounded to ``dtype``, and
    low what rounding has lost.
    """
    scales, biases = weight.scales.float(), weight.biases.float()
    if weight.bits <= 4:
        pairs = torch.stack([scales, biases + 8 * scales], dim=-1)  # (N, G, 2)
    else:
        zeros = biases + (8 + 8 * 16) * scales
        rounded = zeros.to(dtype).float()
        low = torch.stack([scales, zeros - rounded], dim=-1)
        high = torch.stack([16 * scales, rounded], dim=-1)
        pairs = torch.cat([low, high], dim=1)  # (N, 2 G, 2)
    return pairs.transpose(0, 1).to(dtype).contiguous()


def pad_rows(weight: QuantizedWeight) -> QuantizedWeight:
    """Return the same matrix with rows of zeros up to a multiple of ``ROW_MULTIPLE``."""
    missing = -len(weight.codes) % ROW_MULTIPLE
    if not missing:
        return weight
    codes, scales, biases = (
        torch.nn.functional.pad(part, (0, 0, 0, missing))
        for part in (weight.codes, weight.scales, weight.biases)
    )
    return QuantizedWeight(codes, scales, biases, weight.bits)


@dataclass(frozen=True, slots=True)
class PackedLayout:
    """The place of each code in torch's packing for processors, which depends on the processor.

    Rows are packed in blocks. A block is stored column after column, and a column as one byte for
    two rows. With blocks of 4 rows in the order (0, 1, 2, 3) the codes ::

        column   0  1
        row 0    1  5
        row 1    2  6      are the bytes   0x31 0x42  0x75 0x86
        row 2    3  7                      column 0   column 1
        row 3    4  8

    Attributes:
        block: rows of a block.
        order: the rows of a block as a column holds them: those in the low nibbles of its bytes,
            then those in the high ones.
    """

    block: int
    order: tuple[int, ...]

    def is_of_this_processor(self) -> bool:
        """Pack random codes, and say whether they lie as this layout has it."""
        generator = torch.Generator().manual_seed(0)
        codes = torch.randint(0, 16, (128, 64), dtype=torch.int32, generator=generator)
        packed = pack_for_cpu(codes).view(-1, 64, self.block // 2)  # (blocks, K, block / 2)
        columns = torch.cat([packed & 15, packed >> 4], dim=2)  # (blocks, K, block)
        expected = codes.view(-1, self.block, 64)[:, list(self.order)].transpose(1, 2)
        return bool(torch.equal(columns.int(), expected))


LAYOUTS = (
    # with AVX-512 byte i of a column holds the rows i and i + 32 of 64
    PackedLayout(64, tuple(range(64))),
    # with AVX2 the rows i and i + 16 of 32
    PackedLayout(32, tuple(range(32))),
    # elsewhere the rows 2 i and 2 i + 1 of 32
    PackedLayout(32, (*range(0, 32, 2), *range(1, 32, 2))),
)
"""The layouts of torch's ``weight_to_int4pack_kernel`` (aten/src/ATen/native/cpu)."""


@cache
def packed_layout() -> PackedLayout | None:
    """Return the layout of this processor; None where torch has a new one."""
    return next((layout for layout in LAYOUTS if layout.is_of_this_processor()), None)


def pack_for_cpu(codes: torch.Tensor) -> torch.Tensor:
    """Return codes (N, K) of 4 bits as bytes (N, K / 2) in the order of ``packed_layout``."""
    packed: torch.Tensor = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes.int(), 1)
    return packed.view(torch.uint8)


def kernel_inputs(x: torch.Tensor, two_codes: bool) -> torch.Tensor:
    """Return tokens (M, K) as a kernel multiplies them: (M, K), or [x, x] (M, 2 K)."""
    if two_codes:
        return torch.cat([x, x], dim=1)
    return x.contiguous()


def add_bias(y: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Return products (M, N) with a linear layer's bias added where it has one."""
    return y if bias is None else y + bias


class Scratch:
    """Memory for a slice of weights while a prompt goes through it, shared by a model's layers.

    A slice of some thousand rows stays in the processor's caches, and memory that is not given back
    costs no page faults.
    """

    def __init__(self) -> None:
        self._tensors: dict[tuple[str, torch.dtype], torch.Tensor] = {}

    def take(self, purpose: str, count: int, dtype: torch.dtype) -> torch.Tensor:
        """Return ``count`` numbers of any content, in the same memory for each purpose."""
        tensor = self._tensors.get((purpose, dtype))
        if tensor is None or tensor.numel() < count:
            tensor = self._tensors[purpose, dtype] = torch.empty(count, dtype=dtype)
        return tensor[:count]


class Int4CPU:
    """A linear layer on a processor: torch's int4 kernel for a few tokens, dequantized for many.

    Args:
        weight: the matrix.
        bias: (N,) that is added, or None.
        dtype: the type of ``x``, of scales and zeros, and of the result.
        scratch: shared with the other layers.
        dequantize_from: tokens from which on dequantizing is cheaper than the kernel.
    """

    SLICE_WEIGHTS = 1 << 20
    """Weights that are dequantized at once."""

    def __init__(
        self,
        weight: QuantizedWeight,
        bias: torch.Tensor | None,
        dtype: torch.dtype,
        scratch: Scratch,
        *,
        dequantize_from: int,
    ) -> None:
        self.in_features: int
        self.out_features: int
        self.out_features, self.in_features = weight.codes.shape
        self.bias: torch.Tensor | None
        self.dequantize_from: int
        self.dtype: torch.dtype
        self.bias, self.dtype, self.dequantize_from = bias, dtype, dequantize_from
        self._two_codes, self._group_size = weight.bits > 4, weight.group_size
        self._scratch = scratch
        padded = pad_rows(weight)
        self._packed = pack_for_cpu(int4_codes(padded))
        self._scales_and_zeros = scales_and_zeros(padded, dtype)
        self._layout = packed_layout()
        if self._layout is None:
            return
        block, order = self._layout.block, list(self._layout.order)
        # rows as they lie in the packing, (blocks, block)
        rows = torch.arange(len(padded.codes)).view(-1, block)[:, order]
        # (blocks, G, 1, block), to go with codes (blocks, G, K / G, block)
        self._scales, self._biases = (
            part[rows].transpose(1, 2).unsqueeze(2).to(dtype).contiguous()
            for part in (padded.scales, padded.biases)
        )
        self._row_places = rows.flatten().argsort()
        self._is_in_order = order == sorted(order)

    @property
    def nbytes(self) -> int:
        """Bytes that one token's product reads."""
        return int(self._packed.nbytes + self._scales_and_zeros.nbytes)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x @ weight.T (+ bias)`` (..., N) of (..., K)."""
        flat = x.reshape(-1, self.in_features)  # (M, K)
        if len(flat) >= self.dequantize_from and self._layout is not None:
            y = self._multiply_slices(flat, self._layout.block)
        else:
            y = torch.ops.aten._weight_int4pack_mm_for_cpu(
                kernel_inputs(flat, self._two_codes),
                self._packed,
                self._group_size,
                self._scales_and_zeros,
            )
        return add_bias(y[:, : self.out_features], self.bias).reshape(*x.shape[:-1], -1)

    def _multiply_slices(self, x: torch.Tensor, block: int) -> torch.Tensor:
        """Return the product of tokens (M, K) with all rows, in their own order, padding too."""
        blocks = len(self._scales)
        step = max(1, self.SLICE_WEIGHTS // (block * self.in_features))
        y = x.new_empty(len(x), blocks * block)
        for begin in range(0, blocks, step):
            end = min(begin + step, blocks)
            y[:, begin * block : end * block] = x @ self._dequantize(begin, end, block)
        return y if self._is_in_order else y[:, self._row_places]

    def _dequantize(self, begin: int, end: int, block: int) -> torch.Tensor:
        """Return the numbers (K, rows) of some blocks, with the rows as the packing has them."""
        columns, count, half = self.in_features, end - begin, block // 2
        packed = self._packed.view(len(self._scales), -1, half)[begin:end]  # (blocks, K, block / 2)
        codes = self._scratch.take("codes", count * columns * block, self.dtype)
        codes = codes.view(count, columns, block)
        in_low_nibbles, in_high_nibbles = codes[..., :half], codes[..., half:]
        if self._two_codes:
            low, high = packed[:, :columns], packed[:, columns:]
            in_low_nibbles.copy_((low & 15) + (high << 4))
            in_high_nibbles.copy_((low >> 4) + (high & 240))
        else:
            in_low_nibbles.copy_(packed & 15)
            in_high_nibbles.copy_(packed >> 4)
        numbers = self._scratch.take("numbers", count * columns * block, self.dtype)
        numbers = numbers.view(columns, count, block)
        # (blocks, G, K / G, block): a view that lets the numbers come out as (K, rows)
        grouped = numbers.view(-1, self._group_size, count, block).permute(2, 0, 1, 3)
        codes = codes.view(count, -1, self._group_size, block)
        torch.addcmul(self._biases[begin:end], codes, self._scales[begin:end], out=grouped)
        return numbers.view(columns, count * block)


class Int4CUDA:
    """A linear layer on an NVIDIA GPU through torch's int4 kernel, which computes in bfloat16."""

    def __init__(
        self, weight: QuantizedWeight, bias: torch.Tensor | None, device: torch.device | str
    ) -> None:
        self.in_features: int
        self.out_features: int
        self.out_features, self.in_features = weight.codes.shape
        self.bias: torch.Tensor | None = bias if bias is None else bias.to(device, torch.bfloat16)
        self._two_codes, self._group_size = weight.bits > 4, weight.group_size
        padded = pad_rows(weight)
        self._packed = torch.ops.aten._convert_weight_to_int4pack(
            pairs_for_cuda(int4_codes(padded)).to(device), INNER_K_TILES
        )
        self._scales_and_zeros = scales_and_zeros(padded, torch.bfloat16).to(device)

    @staticmethod
    def supports(weight: QuantizedWeight) -> bool:
        """Return whether the kernel has this group size, and its tiles fit the columns."""
        columns = int4_codes(weight).shape[1]
        return weight.group_size in GROUP_SIZES and columns % (INNER_K_TILES * 16) == 0

    @property
    def nbytes(self) -> int:
        """Bytes that one token's product reads."""
        return int(self._packed.nbytes + self._scales_and_zeros.nbytes)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x @ weight.T (+ bias)`` (..., N) of (..., K)."""
        flat = x.reshape(-1, self.in_features)  # (M, K)
        y = torch.ops.aten._weight_int4pack_mm(
            kernel_inputs(flat, self._two_codes),
            self._packed,
            self._group_size,
            self._scales_and_zeros,
        )
        return add_bias(y[:, : self.out_features], self.bias).reshape(*x.shape[:-1], -1)


def pairs_for_cuda(codes: torch.Tensor) -> torch.Tensor:
    """Return codes (N, K) as the packing for CUDA takes them.

    Returns:
        (N, K / 2) bytes, the even column in the high nibble.
    """
    return (codes[:, ::2] << 4 | codes[:, 1::2]).contiguous()
