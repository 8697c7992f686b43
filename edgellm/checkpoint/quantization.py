"""How matrices are quantized: to how many bits, in groups of what size.

MLX stores a quantized matrix (out, in) as ``weight`` (uint32, out x in*bits/32) and ``scales`` (out
x in/group), and in affine mode ``biases`` (as scales): w = scale * q + bias. The other modes have
one byte a scale and no biases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from edgellm.errors import FormatError, UnsupportedModelError
from edgellm.files.strict_json import quoted

AFFINE_BITS = (1, 2, 3, 4, 5, 6, 8)
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
"""Bits and group size of each mode where a config leaves them out; only affine has others."""

QUANTIZED_PARTS = ("weight", "scales", "biases")
"""The tensors of a quantized matrix, by the last part of their names."""

CONFIG_KEYS = ("quantization", "quantization_config")
"""Where a config says it: mlx-lm writes both, and Hugging Face reads the second."""

StoredForm = tuple[str, tuple[int, ...]]
"""The type of a tensor, by safetensors' code, and its shape."""


class StoredTensor(Protocol):
    """A tensor's type, by safetensors' code, and its shape."""

    @property
    def dtype(self) -> str:
        """Safetensors' code of the type."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of each axis."""


@dataclass(frozen=True, slots=True)
class Quantization:
    """How one matrix is stored.

    Attributes:
        bits: bits per weight.
        group_size: weights that share a scale.
        mode: one of ``MODES``: what codes and scales mean.
    """

    bits: int
    group_size: int
    mode: str = "affine"

    def as_config(self) -> dict[str, Any]:
        """Return the block of a config that mlx-lm reads."""
        return {"group_size": self.group_size, "bits": self.bits, "mode": self.mode}

    def stored(self, rows: int, columns: int, dtype: str) -> dict[str, StoredForm]:
        """Return type and shape of each part of a matrix.

        Args:
            rows: outputs.
            columns: inputs.
            dtype: the type of the matrix before it was quantized.
        """
        scales_shape = (rows, columns // self.group_size)
        parts: dict[str, StoredForm] = {"weight": ("U32", (rows, columns * self.bits // 32))}
        if self.mode == "affine":
            parts["scales"] = (dtype, scales_shape)
            parts["biases"] = (dtype, scales_shape)
        else:
            parts["scales"] = ("U8", scales_shape)
        return parts


def quantization_of(config: Mapping[str, Any], path: str) -> Quantization | None:
    """Return how a config says that a matrix is stored; None: unquantized.

    Args:
        config: the folder's config.
        path: the path of the matrix (``model.layers.3.self_attn.q_proj``).

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
    # false or null: this matrix is unquantized; true: as all others
    if exception is False or exception is None:
        return None
    if exception is True:
        return _parse(block, path)
    return _parse(exception, path)


def require_unquantized(
    name: str, dtype: str, shape: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    """Raise FormatError unless a tensor has the shape that the config needs, and holds floats."""
    if shape != expected:
        raise FormatError(
            f"tensor {quoted(name)} has the shape {shape}; the config needs {expected}",
            hint="download the model again: its config.json may be another model's",
        )
    if dtype not in FLOATS:
        hint = "take the model in one of these types"
        if dtype == "F64":
            hint = "convert the model: edgellm convert SOURCE DEST"
        raise FormatError(
            f"tensor {quoted(name)} is stored as {dtype}; weights are {', '.join(FLOATS)}",
            hint=hint,
        )


def stored_quantization(
    config: Mapping[str, Any],
    path: str,
    tensors: Mapping[str, StoredTensor],
    shape: tuple[int, int],
) -> Quantization | None:
    """Return how a matrix really is stored; None: unquantized.

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
    by_config = quantization_of(config, path)
    if "weight" not in tensors:
        raise FormatError(
            f"tensor {quoted(path + '.weight')} is missing",
            hint="download or convert the model again",
        )
    if "scales" not in tensors:
        weight = tensors["weight"]
        require_unquantized(f"{path}.weight", weight.dtype, weight.shape, shape)
        return None
    quantization = by_config
    is_named = path in (_block(config) or {})
    if by_config is None or (not is_named and _fault(by_config, tensors, shape) is not None):
        quantization = _inferred(tensors, shape)
    fault: str | None = "MLX does not have this form"
    if quantization is not None:
        fault = _fault(quantization, tensors, shape)
    if quantization is None or fault is not None:
        raise FormatError(f"the quantized matrix {quoted(path)} does not fit its config: {fault}")
    return quantization


def chosen_quantization(columns: int, bits: int, group_size: int) -> Quantization | None:
    """Return how a matrix of ``columns`` inputs is to be stored; None: unquantized.

    The group is the wished one, else the largest smaller one that divides the columns; where none
    does, or where ``bits`` is 16, the matrix stays unquantized.
    """
    if bits not in AFFINE_BITS:
        return None
    groups = [size for size in GROUP_SIZES if size <= group_size and columns % size == 0]
    return Quantization(bits, max(groups)) if groups else None


def quantization_block(
    default: Quantization, matrices: Mapping[str, Quantization | None]
) -> dict[str, Any]:
    """Return the config's block: the default, and an exception for each other matrix."""
    exceptions: dict[str, Any] = {}
    for path, quantization in matrices.items():
        if quantization is None:
            exceptions[path] = False
        elif quantization != default:
            exceptions[path] = quantization.as_config()
    return default.as_config() | dict(sorted(exceptions.items()))


def _block(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the config's block about quantization; None where it has none."""
    for key in CONFIG_KEYS:
        block = config.get(key)
        if block is None:
            continue
        if not isinstance(block, Mapping):
            raise FormatError(f"config.json: {key} is not an object")
        if is_foreign(block):
            raise UnsupportedModelError(
                f"the model is quantized by {quoted(block['quant_method'])}, "
                "which edgellm does not read as it is",
                hint="convert it first: edgellm convert SOURCE DEST",
            )
        return block
    return None


def is_foreign(block: Mapping[str, Any]) -> bool:
    """Return whether a config's block is another library's, which names its method there.

    A block of MLX's own has a group size, too, and its method or its mode is one of MLX's.
    """
    if "quant_method" not in block:
        return False
    method = block["quant_method"]
    is_mode = isinstance(method, str) and method in MODES
    return "group_size" not in block or not (is_mode or "mode" in block)


def _parse(block: Any, path: str) -> Quantization:
    """Read a block about one matrix, or about all of them. Raises FormatError."""
    where = f"config.json: the quantization of {quoted(path)}"
    if not isinstance(block, Mapping):
        raise FormatError(f"{where} is {quoted(block)}")
    # null counts as left out: mlx-lm's mixed recipes write it for the group size
    block = {key: value for key, value in block.items() if value is not None}
    mode = block.get("mode", "affine")
    if not isinstance(mode, str) or mode not in MODES:
        raise FormatError(f"{where} has the mode {quoted(mode)}; there are {', '.join(MODES)}")
    usual_bits, usual_group_size = MODES[mode]
    bits = block.get("bits", usual_bits)
    group_size = block.get("group_size", usual_group_size)
    if mode == "affine":
        is_known = bits in AFFINE_BITS and group_size in GROUP_SIZES
    else:
        is_known = (bits, group_size) == MODES[mode]
    # 4.0 equals a number that is known, and is none
    if type(bits) is not int or type(group_size) is not int or not is_known:
        raise FormatError(
            f"{where} has {quoted(bits)} bits in groups of {quoted(group_size)}, "
            f"which {mode} has not"
        )
    return Quantization(bits, group_size, mode)


def _fault(
    quantization: Quantization, tensors: Mapping[str, StoredTensor], shape: tuple[int, int]
) -> str | None:
    """Return how the parts of a matrix differ from a quantization; None where they do not."""
    rows, columns = shape
    if columns % quantization.group_size:
        return f"rows of {columns} do not divide into groups of {quantization.group_size}"
    dtype = tensors["scales"].dtype
    if quantization.mode == "affine" and dtype not in FLOATS:
        return f"scales are {dtype}"
    expected = quantization.stored(rows, columns, dtype)
    for part in QUANTIZED_PARTS:
        actual = None
        if part in tensors:
            actual = (tensors[part].dtype, tensors[part].shape)
        if actual != expected.get(part):
            return f"{part} is {_described(actual)}, it should be {_described(expected.get(part))}"
    return None


def _described(form: StoredForm | None) -> str:
    return "absent" if form is None else f"{form[0]} {form[1]}"


def _inferred(tensors: Mapping[str, StoredTensor], shape: tuple[int, int]) -> Quantization | None:
    """Return the one form whose stored shapes are those of the tensors, if there is one."""
    affine = [Quantization(bits, group) for bits in AFFINE_BITS for group in GROUP_SIZES]
    others = [Quantization(*numbers, mode) for mode, numbers in MODES.items() if mode != "affine"]
    for quantization in affine + others:
        if _fault(quantization, tensors, shape) is None:
            return quantization
    return None
