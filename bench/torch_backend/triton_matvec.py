"""The product of a quantized weight with few tokens as a Triton kernel, for NVIDIA GPUs.

It takes MLX's affine form as it is, groups and all, of 4 bits (two codes a byte) or 8, and reads
each weight once. ``TRITON_INTERPRET=1`` runs it on a processor.
"""

# M tokens, N out_features, K in_features, G groups of a row

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl


def _matvec(  # noqa: PLR0917
    x: tl.tensor,
    codes: tl.tensor,
    scales: tl.tensor,
    biases: tl.tensor,
    y: tl.tensor,
    rows_in_all: tl.tensor,
    columns: tl.constexpr,
    group: tl.constexpr,
    wide: tl.constexpr,
    rows: tl.constexpr,
    groups: tl.constexpr,
) -> None:
    """Compute one token's results of some rows: sums of ``scale * (code . x) + bias * sum(x)``.

    ``wide`` is whether a byte is one code; else it is two, the even column's in the low nibble.
    """
    # programs of one row are neighbours, so that the second token finds the weights in the cache
    token = tl.program_id(0)
    row = tl.program_id(1) * rows + tl.arange(0, rows)
    inside = (row < rows_in_all)[:, None]
    row = row.to(tl.int64)[:, None]
    total = tl.zeros((rows,), dtype=tl.float32)
    for begin in range(0, columns, groups * group):
        place = begin // group + tl.arange(0, groups)[None, :]
        held = inside & (place < columns // group)
        scale = tl.load(scales + row * (columns // group) + place, mask=held, other=0.0).to(
            tl.float32
        )
        bias = tl.load(biases + row * (columns // group) + place, mask=held, other=0.0).to(
            tl.float32
        )
        if wide:
            column = begin + tl.arange(0, groups * group)
            code = tl.load(
                codes + row * columns + column[None, :],
                mask=inside & (column < columns)[None, :],
                other=0,
            )
            own = tl.load(x + token * columns + column, mask=column < columns, other=0.0).to(
                tl.float32
            )
            products = code.to(tl.float32) * own[None, :]
            dots = tl.sum(tl.reshape(products, (rows, groups, group)), axis=2)
            sums = tl.sum(tl.reshape(own, (groups, group)), axis=1)
        else:
            pair = begin // 2 + tl.arange(0, groups * group // 2)
            within = pair < columns // 2
            code = tl.load(
                codes + row * (columns // 2) + pair[None, :], mask=inside & within[None, :], other=0
            )
            even = tl.load(x + token * columns + 2 * pair, mask=within, other=0.0).to(tl.float32)
            odd = tl.load(x + token * columns + 2 * pair + 1, mask=within, other=0.0).to(tl.float32)
            products = (code & 15).to(tl.float32) * even[None, :] + (code >> 4).to(
                tl.float32
            ) * odd[None, :]
            dots = tl.sum(tl.reshape(products, (rows, groups, group // 2)), axis=2)
            sums = tl.sum(tl.reshape(even + odd, (groups, group // 2)), axis=1)
        total += tl.sum(dots * scale + sums[None, :] * bias, axis=1)
    place_of_rows = tl.program_id(1) * rows + tl.arange(0, rows)
    tl.store(
        y + token * rows_in_all + place_of_rows,
        total.to(y.dtype.element_ty),
        mask=place_of_rows < rows_in_all,
    )


kernel: Any = triton.jit(_matvec)

ROWS = 4
"""Rows that a program computes."""

COLUMNS = 1024
"""Columns that a program reads at once."""


def matvec(
    x: torch.Tensor,
    codes: torch.Tensor,
    scales: torch.Tensor,
    biases: torch.Tensor,
    *,
    one_a_byte: bool,
) -> torch.Tensor:
    """Return ``x @ weight.T`` (M, N) of tokens (M, K).

    Args:
        x: (M, K), of the type that the result has.
        codes: uint8 (N, K), or with two codes a byte (N, K / 2), the even column's in the low
            nibble.
        scales: (N, G).
        biases: (N, G).
        one_a_byte: whether a byte is one code.
    """
    tokens, columns = x.shape
    rows, groups = scales.shape
    y = torch.empty((tokens, rows), dtype=x.dtype, device=x.device)
    group = columns // groups
    grid = (tokens, triton.cdiv(rows, ROWS))
    together = min(COLUMNS // group, triton.next_power_of_2(groups))
    kernel[grid](x, codes, scales, biases, y, rows, columns, group, one_a_byte, ROWS, together)
    return y
