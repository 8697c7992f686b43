"""Settings of the weights that a conversion makes, each in its range."""

from __future__ import annotations

from dataclasses import dataclass

from edgellm.checkpoint.quantization import AFFINE_BITS, GROUP_SIZES
from edgellm.converters.tensors.dtypes import DTYPE_NAMES
from edgellm.errors import ConfigError
from edgellm.setting_values import shown
from edgellm.settings import is_int

UNQUANTIZED_BITS = 16
BITS = (*AFFINE_BITS, UNQUANTIZED_BITS)
CODES = {name: code for code, name in DTYPE_NAMES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversionSettings:
    """Settings of the weights; None leaves the choice to the source.

    Attributes:
        bits: 1 to 6, 8, or 16 for unquantized; None: 4, or as it is for a quantized source.
        group_size: weights a scale, 32, 64 or 128; None: 64.
        dtype: ``float16``, ``bfloat16`` or ``float32``, of everything unquantized and of scales;
            None: the source's.
    """

    bits: int | None = None
    group_size: int | None = None
    dtype: str | None = None

    def __post_init__(self) -> None:
        """Check every range."""
        if self.bits is not None and not (is_int(self.bits) and self.bits in BITS):
            raise ConfigError(
                f"bits is {shown(self.bits)}", hint=f"choose one of {', '.join(map(str, BITS))}"
            )
        if self.group_size is not None and not (
            is_int(self.group_size) and self.group_size in GROUP_SIZES
        ):
            sizes = ", ".join(map(str, GROUP_SIZES))
            raise ConfigError(
                f"group size is {shown(self.group_size)}", hint=f"choose one of {sizes}"
            )
        if self.group_size is not None and self.bits == UNQUANTIZED_BITS:
            raise ConfigError(
                "a group size has no meaning with 16 bits", hint="leave out one of the two"
            )
        if self.dtype is not None and self.dtype not in list(CODES):  # a list takes any type
            raise ConfigError(
                f"dtype is {shown(self.dtype)}", hint=f"choose one of {', '.join(CODES)}"
            )
