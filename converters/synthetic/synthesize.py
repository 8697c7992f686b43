"""Writes a model folder of weights that are drawn."""

from __future__ import annotations

from pathlib import Path

from edgellm.checkpoint.quantization import DEFAULT_BITS, DEFAULT_GROUP_SIZE, Quantization
from edgellm.converters.conversion import ConversionReport, ConvertCallback, convert_source
from edgellm.converters.destination import destination_path
from edgellm.converters.synthetic.source import SyntheticSource
from edgellm.converters.synthetic.untrained import UntrainedSource
from edgellm.converters.tensors.settings import UNQUANTIZED_BITS, ConversionSettings
from edgellm.converters.tensors.source import Source
from edgellm.device.machine import core_count
from edgellm.errors import ConfigError

WORKERS = 4
"""Files made at the same time: a disk writes faster than a core makes numbers and checksums."""


def synthesize(
    shape: str | Path,
    destination: str | Path,
    *,
    bits: int = DEFAULT_BITS,
    group_size: int | None = None,
    dtype: str | None = None,
    seed: int = 0,
    untrained: bool = False,
    force: bool = False,
    progress: ConvertCallback | None = None,
) -> ConversionReport:
    """Make a model folder of random weights, the same each time, laid out as by ``convert``.

    Weights are such that a machine is measured with them, or as training begins.

    Args:
        shape: a name of ``presets.SHAPES``, or a folder with a ``config.json``.
        destination: the folder to be made.
        bits: 1, 2, 3, 4, 5, 6, 8, or 16 for unquantized.
        group_size: weights a scale, 32, 64 or 128; None: 64.
        dtype: ``float16``, ``bfloat16`` or ``float32``; None: the config's.
        seed: the seed of the weights.
        untrained: draw them as training begins with them, unquantized.
        force: replace the model that is at the destination.
        progress: called after each piece.

    Raises:
        ConfigError: there is no such shape, or a setting is out of range.
        FormatError, ReadError, UnsupportedModelError: the folder's config is none.
        ConversionError: the destination is taken, there is no space, or the disk refuses.
    """
    settings = ConversionSettings(bits=bits, group_size=group_size, dtype=dtype)
    quantization = None
    if bits < UNQUANTIZED_BITS:
        quantization = Quantization(bits, group_size or DEFAULT_GROUP_SIZE)
        settings = ConversionSettings()  # the source comes quantized, and is taken as it is
    source: Source
    if untrained:
        if quantization is not None:
            raise ConfigError(
                f"weights that are to be trained are not quantized, and bits is {bits}",
                hint="give --bits 16, or leave it out",
            )
        source = UntrainedSource(shape, dtype=dtype, seed=seed)
    else:
        source = SyntheticSource(shape, quantization, dtype=dtype, seed=seed)
    return convert_source(
        source,
        destination_path(destination),
        settings,
        force=force,
        report=False,
        progress=progress or (lambda _: None),
        workers=min(WORKERS, core_count()),
        command="edgellm synth",
    )
