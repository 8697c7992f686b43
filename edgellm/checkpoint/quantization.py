"""Which tensors are quantized, to how many bits, in groups of what size.

MLX stores a quantized matrix (out, in) as ``weight`` (uint32, out x in*bits/32) and ``scales`` (out
x in/group), and in affine mode ``biases`` (as scales): w = scale * q + bias. The other modes have
one byte a scale and no biases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from edgellm.errors import FormatError, UnsupportedModelError
from edgellm.files.strict_json import shown

AFFINE_BITS = (2, 3, 4, 5, 6, 8)
GROUP_SIZES = (32, 64, 128)
DEFAULT_BITS = 4
DEFAULT_GROUP_SIZE = 64
FLOATS = ("BF16", "F16", "F32")
"""The types that weights have, by safetensors' code."""

MODES: Mapping[str, tuple[int, int]] = {
    "affine": (DEFAULT_BITS, DEFAULT_GROUP_SIZE),
    "mxfp4": (4, 32),
    "mxfp8": (8, 32),
    "nvfp4": (4, 16),
}
"""Bits and group size of each mode where a config leaves them out; all but affine have no others."""

QUANTIZED_PARTS = ("weight", "scales", "biases")

CONFIG_KEYS = ("quantization", "quantization_config")


class StoredTensor(Protocol):
    """What is known of a tensor without reading it: its type, by safetensors' code, and its shape."""

    @property
    def dtype(self) -> str: ...  # noqa: D102

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Quantization:
    """How one matrix is stored: bits a weight, weights a scale, and what the scale means."""

    bits: int
    group_size: int
    mode: str = "affine"

    def as_config(self) -> dict[str, Any]:
        """The block that mlx-lm reads."""
        return {"group_size": self.group_size, "bits": self.bits, "mode": self.mode}

    def stored(self, rows: int, columns: int, dtype: str) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Type and shape of each part of a matrix (rows, columns) whose unquantized type is ``dtype``."""
        parts: dict[str, tuple[str, tuple[int, ...]]] = {
            "weight": ("U32", (rows, columns * self.bits // 32))
        }
        scale = (rows, columns // self.group_size)
        if self.mode == "affine":
            return parts | {"scales": (dtype, scale), "biases": (dtype, scale)}
        return parts | {"scales": ("U8", scale)}


def quantization_of(config: Mapping[str, Any], path: str) -> Quantization | None:
    """How a config says that the matrix at ``path`` (``model.layers.3.self_attn.q_proj``) is stored; None: as it is.

    An exception for the path comes before the default. Whether a matrix *is* quantized its tensors
    decide: see ``stored_quantization``.

    Raises:
        FormatError: the block is damaged, or says what MLX does not have.
        UnsupportedModelError: the model was quantized by another library.
    """
    block = _block(config)
    if block is None:
        return None
    exception = block.get(path, True)
    if exception is False or exception is None:
        return None
    return _parse(block if exception is True else exception, path)


def stored_quantization(
    config: Mapping[str, Any],
    path: str,
    tensors: Mapping[str, StoredTensor],
    shape: tuple[int, int],
) -> Quantization | None:
    """How the matrix (out, in) at ``path`` really is stored; None: unquantized.

    Args:
        config: the folder's config.
        path: the matrix's full path, without ``.weight``.
        tensors: its own tensors by their part (``weight``, ``scales``, ``biases``).
        shape: (out, in) as the config demands.

    As in mlx-lm, an exception of the config that names the path is believed; where none does and
    the default does not fit, the stored shapes say how it was packed.

    Raises:
        FormatError: types or shapes fit neither the config nor any quantization.
        UnsupportedModelError: the model was quantized by another library.
    """
    said = quantization_of(config, path)
    if "weight" not in tensors:
        raise FormatError(
            f"tensor {shown(path + '.weight')} is missing",
            hint="download or convert the model again",
        )
    if "scales" not in tensors:
        weight = tensors["weight"]
        if weight.shape != shape or weight.dtype not in FLOATS:
            raise FormatError(
                f"tensor {shown(path + '.weight')} is {weight.dtype} {weight.shape}; "
                f"the config needs {shape} in one of {', '.join(FLOATS)}"
            )
        return None
    block = _block(config) or {}
    believed = said is not None and (path in block or _fault(said, tensors, shape) is None)
    quantization = said if believed else _inferred(tensors, shape)
    fault = (
        "it is in no form that MLX has"
        if quantization is None
        else _fault(quantization, tensors, shape)
    )
    if quantization is None or fault:
        raise FormatError(f"the quantized matrix {shown(path)} does not fit its config: {fault}")
    return quantization


def chosen_quantization(columns: int, bits: int, group_size: int) -> Quantization | None:
    """How a matrix of ``columns`` inputs is to be stored: the wished group, else the largest smaller one that divides.

    None where no group does, or where ``bits`` is 16: the matrix stays unquantized.
    """
    if bits not in AFFINE_BITS:
        return None
    groups = [size for size in GROUP_SIZES if size <= group_size and columns % size == 0]
    return Quantization(bits, max(groups)) if groups else None


def quantization_block(
    default: Quantization, matrices: Mapping[str, Quantization | None]
) -> dict[str, Any]:
    """The config's block: the default, and an exception for each matrix that differs from it (false: unquantized)."""
    exceptions = {
        path: item.as_config() if item else False
        for path, item in matrices.items()
        if item != default
    }
    return default.as_config() | dict(sorted(exceptions.items()))


def without_quantization(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config without its quantization blocks."""
    return {key: value for key, value in config.items() if key not in CONFIG_KEYS}


def _block(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    for key in CONFIG_KEYS:
        block = config.get(key)
        if block is None:
            continue
        if not isinstance(block, Mapping):
            raise FormatError(f"config.json: {key} is no object")
        if "quant_method" in block and "group_size" not in block:
            raise UnsupportedModelError(_foreign(block))
        if "quant_method" in block and block["quant_method"] not in MODES and "mode" not in block:
            raise UnsupportedModelError(_foreign(block))
        return block
    return None


def _foreign(block: Mapping[str, Any]) -> str:
    return f"the model is quantized by {shown(block['quant_method'])}, which edgellm does not read"


def _parse(block: Any, path: str) -> Quantization:
    where = f"config.json: the quantization of {shown(path)}"
    if not isinstance(block, Mapping):
        raise FormatError(f"{where} is {shown(block)}")
    mode = block.get("mode", "affine")
    if not isinstance(mode, str) or mode not in MODES:
        raise FormatError(f"{where} has the mode {shown(mode)}; there are {', '.join(MODES)}")
    bits, group_size = (
        block.get(key, usual)
        for key, usual in zip(("bits", "group_size"), MODES[mode], strict=True)
    )
    known = (
        bits in AFFINE_BITS and group_size in GROUP_SIZES
        if mode == "affine"
        else (bits, group_size) == MODES[mode]
    )
    if type(bits) is not int or type(group_size) is not int or not known:
        raise FormatError(
            f"{where} has {shown(bits)} bits in groups of {shown(group_size)}, which {mode} has not"
        )
    return Quantization(bits, group_size, mode)


def _fault(
    quantization: Quantization, tensors: Mapping[str, StoredTensor], shape: tuple[int, int]
) -> str | None:
    rows, columns = shape
    if columns % quantization.group_size:
        return f"rows of {columns} are no whole groups of {quantization.group_size}"
    dtype = tensors["scales"].dtype if quantization.mode == "affine" else "U8"
    if quantization.mode == "affine" and dtype not in FLOATS:
        return f"scales are {dtype}"
    expected = quantization.stored(rows, columns, dtype)
    found = {
        part: (tensors[part].dtype, tensors[part].shape)
        for part in QUANTIZED_PARTS
        if part in tensors
    }
    for part in QUANTIZED_PARTS:
        if expected.get(part) != found.get(part):
            return f"{part} is {_said(found.get(part))}, it should be {_said(expected.get(part))}"
    return None


def _said(stored: tuple[str, tuple[int, ...]] | None) -> str:
    return "absent" if stored is None else f"{stored[0]} {stored[1]}"


def _inferred(tensors: Mapping[str, StoredTensor], shape: tuple[int, int]) -> Quantization | None:
    """The one form whose stored shapes are those found, if any."""
    affine = [Quantization(bits, group) for bits in AFFINE_BITS for group in GROUP_SIZES]
    others = [Quantization(*numbers, mode) for mode, numbers in MODES.items() if mode != "affine"]
    return next((form for form in affine + others if _fault(form, tensors, shape) is None), None)
