"""``--method gptq``: from a conversion's settings to a source that a text has quantized."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgellm.checkpoint.quantization import Quantization
from edgellm.converters.calibrated.calibrated_source import QUANTIZING, CalibratedSource
from edgellm.converters.mixed_bits.backward import EMBEDDING
from edgellm.converters.mixed_bits.calibration import calibration_text, calibration_tokens
from edgellm.converters.tensors.dtypes import DTYPE_NAMES
from edgellm.converters.tensors.recipe import make_recipe
from edgellm.converters.tensors.settings import UNQUANTIZED_BITS, ConversionSettings
from edgellm.converters.tensors.source import Source
from edgellm.errors import ConfigError
from edgellm.files.given_path import given_path

METHODS = ("nearest", "gptq")

MAX_SEQUENCES = 64
"""Sequences of a given text that are read, of 256 tokens each."""


@dataclass(frozen=True, slots=True)
class GPTQSettings:
    """The text to quantize by."""

    calibration: Path


def gptq_settings(
    method: str | None, calibration: str | Path | None, *, bits: int | None
) -> GPTQSettings | None:
    """Make the settings of ``gptq``; None: weights are rounded to nearest. Raises ConfigError."""
    if method is not None and method not in METHODS:
        raise ConfigError(
            f"there is no method {method!r}", hint=f"choose one of {', '.join(METHODS)}"
        )
    if method != "gptq":
        return None
    if bits == UNQUANTIZED_BITS:
        raise ConfigError("16 bits are not quantized", hint="leave out --method, or choose fewer")
    if calibration is None:
        # a text of 512 tokens makes more of the bundled model's errors than it mends
        raise ConfigError(
            "gptq quantizes by a text, and none is given",
            hint="add --calibration FILE, with 10,000 words of what the model will read or more",
        )
    return GPTQSettings(given_path(calibration))


def quantized_by_text(
    source: Source,
    settings: ConversionSettings,
    by_text: GPTQSettings,
    chosen: Mapping[str, Quantization] | None,
    *,
    progress: Callable[[str, int, int], None],
) -> tuple[Source, ConversionSettings]:
    """Return a source that shows a model quantized, and settings that take it as it is.

    Args:
        source: the model.
        settings: bits, group size and type, as wished.
        by_text: the text.
        chosen: the forms of single matrices.
        progress: called with a name, layers done and layers in all.

    Raises:
        ConfigError: there is nothing to quantize, or the text is too short.
        FormatError, ReadError, TokenizerError, UnsupportedModelError: as a conversion.
    """
    recipe = make_recipe(source, settings, chosen)
    sequences = calibration_tokens(
        source.companions,
        calibration_text(by_text.calibration),
        vocabulary=recipe.matrices[EMBEDDING].shape[0],
        max_sequences=MAX_SEQUENCES,
    )
    made = CalibratedSource(
        source, recipe, sequences, lambda done, total: progress(QUANTIZING, done, total)
    )
    return made, ConversionSettings(dtype=DTYPE_NAMES[recipe.dtype])
