"""GPTQ for one matrix: column after column, each one's error made good by those that follow.

Frantar et al. 2022, arXiv:2210.17323. Here each group's scale and bias are searched for, where
GPTQ takes the smallest and the largest weight.
"""

# R rows of a matrix, C columns, K columns of a group

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgellm.checkpoint.quantization import Quantization
from edgellm.converters.tensors.bit_packing import pack
from edgellm.converters.tensors.floats import Floats, floats, stored

DAMPING = 0.01
"""What is added to the Hessian's diagonal, of its mean."""

SHRUNK_RANGES = (1.0, 0.9, 0.8, 0.7)
"""Shares of a group's range that the search of its scale begins with."""

REFINEMENTS = 2
"""Times that codes and scales are fitted to each other from each beginning."""

Codes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class QuantizedRows:
    """Rows of a matrix in MLX's affine form: ``scale * code + bias``.

    Attributes:
        codes: (R, C), a byte each.
        scales: (R, C / K), exact in the type that they will be stored in.
        biases: as ``scales``.
    """

    codes: Codes
    scales: Floats
    biases: Floats

    def values(self) -> Floats:
        """Return the matrix (R, C) that they stand for."""
        grouped = self.codes.reshape(*self.scales.shape, -1)
        values: Floats = grouped * self.scales[..., None] + self.biases[..., None]
        return values.reshape(self.codes.shape)

    def packed(self, bits: int) -> Codes:
        """Return the codes in MLX's packing, (R, C * bits / 8)."""
        return pack(self.codes, bits)


class ColumnQuantizer:
    """Quantizes matrices with the same input so that their outputs change little.

    Args:
        hessian: the inputs' second moments ``mean(x x^T)``, (C, C).
    """

    def __init__(self, hessian: Floats) -> None:
        damped = damped_hessian(hessian)
        # H^-1 = U^T U with U upper triangular
        factor = np.linalg.cholesky(np.linalg.inv(damped)).T
        self._factor: Floats = factor.astype(np.float32)

    def quantize(self, weight: Floats, form: Quantization, dtype: str) -> QuantizedRows:
        """Return rows (R, C) quantized; each row's result depends on that row alone.

        Args:
            weight: the rows, in float32.
            form: bits and group size.
            dtype: the type of scales and biases (F16, BF16 or F32).
        """
        columns = np.ascontiguousarray(weight.T, dtype=np.float32)  # (C, R)
        codes = np.empty(columns.shape, np.uint8)
        scales, biases = [], []
        top = np.float32((1 << form.bits) - 1)
        for begin in range(0, len(columns), form.group_size):
            end = begin + form.group_size
            group, inner = columns[begin:end], self._factor[begin:end, begin:end]
            scale, bias = _search(group, np.square(1 / inner.diagonal()), top, dtype)
            errors = np.empty_like(group)
            for place, column in enumerate(group):
                code = _codes(column, scale, bias, top)
                errors[place] = (column - (code * scale + bias)) / inner[place, place]
                group[place + 1 :] -= inner[place, place + 1 :, None] * errors[place]
                codes[begin + place] = code
            columns[end:] -= self._factor[begin:end, end:].T @ errors
            scales.append(scale)
            biases.append(bias)
        rows = np.ascontiguousarray(codes.T)
        return QuantizedRows(rows, np.stack(scales, 1), np.stack(biases, 1))


def damped_hessian(hessian: Floats) -> npt.NDArray[np.float64]:
    """Return a Hessian in float64 that can be inverted, whatever the text was."""
    damped = hessian.astype(np.float64)
    diagonal = np.einsum("ii->i", damped)
    diagonal += DAMPING * (diagonal.mean() or 1.0)
    return damped


def _codes(values: Floats, scale: Floats, bias: Floats, top: np.float32) -> Floats:
    codes: Floats = np.clip(np.rint((values - bias) / scale), 0, top)
    return codes


def _search(
    group: Floats, importance: Floats, top: np.float32, dtype: str
) -> tuple[Floats, Floats]:
    """Return the scale and bias (R,) of a group (K, R) with the least weighted error found."""
    low, high = group.min(axis=0), group.max(axis=0)
    importance = importance[:, None] / importance.sum()
    mean = (importance * group).sum(axis=0)
    errors, scales, biases = [], [], []
    for share in SHRUNK_RANGES:
        scale = _rounded(share * (high - low) / top, dtype)
        scale = np.where(scale > 0, scale, np.float32(1))  # of equal weights
        bias = _rounded((low + high - share * (high - low)) / 2, dtype)
        for refinement in range(REFINEMENTS + 1):
            codes = _codes(group, scale, bias, top)
            error = (importance * np.square(codes * scale + bias - group)).sum(axis=0)
            errors.append(error)
            scales.append(scale)
            biases.append(bias)
            if refinement == REFINEMENTS:
                break
            # least squares of ``scale * code + bias`` for these codes
            code_mean = (importance * codes).sum(axis=0)
            spread = (importance * np.square(codes - code_mean)).sum(axis=0)
            slope = (importance * (codes - code_mean) * group).sum(axis=0)
            fitted = _rounded(slope / np.maximum(spread, np.float32(1e-12)), dtype)
            scale = np.where((spread > 0) & (fitted != 0), fitted, scale)
            bias = _rounded(mean - scale * code_mean, dtype)
    # what is not a number is found first, for the conversion to refuse
    best = np.argmin(errors, axis=0), np.arange(group.shape[1])
    return np.stack(scales)[best], np.stack(biases)[best]


def _rounded(values: Floats, dtype: str) -> Floats:
    """Round to the type that values will be stored in."""
    return floats(stored(values, dtype), dtype).reshape(values.shape)
