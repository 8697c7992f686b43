"""Products with quantized weights through torch's own int4 kernels.

The kernels compute ``w = (code - 8) * scale + zero`` with codes of 4 bits and groups of 32, 64 or
128; MLX's affine form is that with ``zero = bias + 8 * scale``. Codes of 2 and 3 bits are such
codes too. A code of 5 to 8 bits is two, ``16 * high + low``: a row [low | high] with scales [scale
| 16 * scale] times [x, x], so that 8 bits keep their groups, which torch's own int8 kernel has not,
and are read once.
"""

# M tokens, N rows (outputs), K columns (inputs), G groups of a row

from __future__ import annotations

from functools import cache

import torch

from edgellm.bench.torch_backend.weights import Codes

ROWS = 64
"""Rows are filled up to a multiple of it: the widest block of the processor kernel's packing."""

GROUPS = (32, 64, 128)
INNER_TILES = 8
"""Of the packing for CUDA: 8 * 16 columns a tile."""


def split(matrix: Codes) -> torch.Tensor:
    """The codes as codes of 4 bits: (N, K), or [low | high] (N, 2 K)."""
    if matrix.bits <= 4:
        return matrix.codes
    return torch.cat([matrix.codes & 15, matrix.codes >> 4], dim=1)


def tables(matrix: Codes, dtype: torch.dtype) -> torch.Tensor:
    """Scales and zeros (G, N, 2) as the kernels read them; of wide codes those of low and high, (2 G, N, 2).

    The zeros of low and high may share their sum in any way: the second holds what rounding the
    first has lost.
    """
    scales, biases = matrix.scales.float(), matrix.biases.float()
    if matrix.bits <= 4:
        pairs = torch.stack([scales, biases + 8 * scales], dim=-1)
    else:
        zeros = biases + (8 + 8 * 16) * scales
        rounded = zeros.to(dtype).float()
        low = torch.stack([scales, zeros - rounded], dim=-1)
        high = torch.stack([16 * scales, rounded], dim=-1)
        pairs = torch.cat([low, high], dim=1)
    return pairs.transpose(0, 1).to(dtype).contiguous()


def filled(matrix: Codes) -> Codes:
    """The same matrix with rows of zeros up to a multiple of ``ROWS``."""
    missing = -matrix.codes.shape[0] % ROWS
    if not missing:
        return matrix
    pad = torch.nn.functional.pad
    codes, scales, biases = (
        pad(part, (0, 0, 0, missing)) for part in (matrix.codes, matrix.scales, matrix.biases)
    )
    return Codes(codes, scales, biases, matrix.bits)


@cache
def packed_rows() -> tuple[int, tuple[int, ...]] | None:
    """How this processor's packing lies: rows of a block, and which row of it each place holds; found by packing.

    Blocks of rows, in each column after column, a byte for two rows: the low nibbles' rows, then
    the high ones'. None where it is laid out otherwise.
    """
    numbers = torch.arange(ROWS, dtype=torch.int32)[:, None].expand(ROWS, 32)
    lower, upper = (_pack(half.contiguous()) for half in (numbers % 16, numbers // 16))
    for block in (64, 32, 16):
        both = (lower[0].view(-1, block // 2), upper[0].view(-1, block // 2))
        low, high = ((both[0] >> shift & 15) + 16 * (both[1] >> shift & 15) for shift in (0, 4))
        found = torch.cat([low, high], dim=1)[:32].long()
        if torch.equal(found, found[:1].expand_as(found)) and sorted(found[0].tolist()) == list(
            range(block)
        ):
            order = tuple(found[0].tolist())
            return (block, order) if _lies_so(block, order) else None
    return None


def _pack(codes: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return (
        torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1).view(torch.uint8).flatten(),
    )


def _lies_so(block: int, order: tuple[int, ...]) -> bool:
    """Whether a random matrix, packed, reads as expected."""
    codes = torch.randint(
        0, 16, (2 * ROWS, 64), dtype=torch.int32, generator=torch.Generator().manual_seed(0)
    )
    stored = _pack(codes)[0].view(-1, 64, block // 2)
    found = torch.cat([stored & 15, stored >> 4], dim=2)  # (blocks, K, block)
    expected = codes.view(-1, block, 64)[:, list(order)].transpose(1, 2)
    return bool(torch.equal(found.int(), expected))


class Scratch:
    """Memory for a slice of weights while a prompt goes through it; all products of a model share it.

    A slice of some thousand rows stays in the processor's caches, and memory that is not given back
    costs no page faults.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[str, torch.dtype], torch.Tensor] = {}

    def take(self, purpose: str, count: int, dtype: torch.dtype) -> torch.Tensor:
        """Room for ``count`` numbers, of any content."""
        held = self._held.get((purpose, dtype))
        if held is None or held.numel() < count:
            held = self._held[purpose, dtype] = torch.empty(count, dtype=dtype)
        return held[:count]


class Int4CPU:
    """A quantized weight on a processor: torch's int4 kernel for a few tokens, matrix products with slices of it for many.

    Args:
        matrix: what it multiplies with.
        bias: (N,) that is added, or None.
        dtype: of ``x``, of the tables, and of the result.
        scratch: shared with the other products.
        many: tokens from which on it is cheaper to dequantize.
    """

    SLICE = 1 << 20
    """Weights that are dequantized at once."""

    def __init__(
        self,
        matrix: Codes,
        bias: torch.Tensor | None,
        dtype: torch.dtype,
        scratch: Scratch,
        *,
        many: int,
    ) -> None:
        self.rows, self.columns = matrix.codes.shape
        self.wide, self.group, self.dtype, self.many = (
            matrix.bits > 4,
            matrix.group_size,
            dtype,
            many,
        )
        self.bias = bias
        self._scratch = scratch
        whole = filled(matrix)
        self._packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(split(whole).int(), 1)
        self._tables = tables(whole, dtype)
        self._layout = packed_rows()
        if self._layout is not None:
            block, order = self._layout
            places = torch.arange(whole.codes.shape[0]).view(-1, block)[:, list(order)]
            # (blocks, G, 1, block): beside codes (blocks, G, group, block)
            self._scales, self._biases = (
                part[places].transpose(1, 2).unsqueeze(2).to(dtype).contiguous()
                for part in (whole.scales, whole.biases)
            )
            self._order = None if order == tuple(range(block)) else places.flatten().argsort()

    @property
    def nbytes(self) -> int:
        """Bytes that one token's product reads."""
        return int(self._packed.nbytes + self._tables.nbytes)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x @ weight.T (+ bias)`` of (..., K)."""
        flat = x.reshape(-1, self.columns)
        if flat.shape[0] >= self.many and self._layout is not None:
            y = self._many(flat)
        else:
            inputs = torch.cat([flat, flat], dim=1) if self.wide else flat.contiguous()
            y = torch.ops.aten._weight_int4pack_mm_for_cpu(
                inputs, self._packed, self.group, self._tables
            )
        if y.shape[1] != self.rows:
            y = y[:, : self.rows]
        return (y if self.bias is None else y + self.bias).reshape(*x.shape[:-1], self.rows)

    def _many(self, x: torch.Tensor) -> torch.Tensor:
        assert self._layout is not None
        block = self._layout[0]
        blocks = self._scales.shape[0]
        step = max(1, self.SLICE // (block * self.columns))
        y = x.new_empty(x.shape[0], blocks * block)
        for begin in range(0, blocks, step):
            end = min(begin + step, blocks)
            y[:, begin * block : end * block] = x @ self._slice(begin, end)
        return y if self._order is None else y[:, self._order]

    def _slice(self, begin: int, end: int) -> torch.Tensor:
        """The numbers (K, rows) of some blocks, in the packing's order of rows."""
        assert self._layout is not None
        block, columns, count = self._layout[0], self.columns, end - begin
        stored = self._packed.view(torch.uint8).view(
            -1, columns * (2 if self.wide else 1), block // 2
        )[begin:end]
        codes = self._scratch.take("codes", count * columns * block, self.dtype).view(
            count, columns, block
        )
        low, high = codes[..., : block // 2], codes[..., block // 2 :]
        if self.wide:
            lower, upper = stored[:, :columns], stored[:, columns:]
            low.copy_((lower & 15) + (upper << 4))
            high.copy_((lower >> 4) + (upper & 240))
        else:
            low.copy_(stored & 15)
            high.copy_(stored >> 4)
        numbers = self._scratch.take("numbers", count * columns * block, self.dtype).view(
            columns, count, block
        )
        shape = (count, -1, self.group, block)
        out = numbers.view(-1, self.group, count, block).permute(2, 0, 1, 3)
        torch.addcmul(self._biases[begin:end], codes.view(shape), self._scales[begin:end], out=out)
        return numbers.view(columns, count * block)


class Int4CUDA:
    """A quantized weight on an NVIDIA GPU through torch's int4 kernel, which wants bfloat16."""

    def __init__(
        self, matrix: Codes, bias: torch.Tensor | None, device: torch.device | str
    ) -> None:
        self.rows, self.columns = matrix.codes.shape
        self.wide, self.group = matrix.bits > 4, matrix.group_size
        self.bias = bias if bias is None else bias.to(device, torch.bfloat16)
        whole = filled(matrix)
        self._packed = torch.ops.aten._convert_weight_to_int4pack(
            cuda_pairs(split(whole)).to(device), INNER_TILES
        )
        self._tables = tables(whole, torch.bfloat16).to(device)

    @staticmethod
    def takes(matrix: Codes) -> bool:
        """Whether the kernel has this group, and tiles that fit."""
        return matrix.group_size in GROUPS and split(matrix).shape[1] % (INNER_TILES * 16) == 0

    @property
    def nbytes(self) -> int:
        """Bytes that one token's product reads."""
        return int(self._packed.nbytes + self._tables.nbytes)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x @ weight.T (+ bias)`` of (..., K)."""
        flat = x.reshape(-1, self.columns)
        inputs = torch.cat([flat, flat], dim=1) if self.wide else flat.contiguous()
        y = torch.ops.aten._weight_int4pack_mm(inputs, self._packed, self.group, self._tables)[
            :, : self.rows
        ]
        return (y if self.bias is None else y + self.bias).reshape(*x.shape[:-1], self.rows)


def cuda_pairs(codes: torch.Tensor) -> torch.Tensor:
    """Codes (N, K) as the packing for CUDA takes them: (N, K / 2) bytes, the even column in the high nibble."""
    return (codes[:, ::2] << 4 | codes[:, 1::2]).contiguous()
