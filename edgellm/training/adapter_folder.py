"""Changes that were learned as an adapter's files, which PEFT or mlx-lm open."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import mlx.core as mx
import numpy as np

from edgellm.adapters.forms import ConfigFacts, in_form
from edgellm.adapters.stored import AdapterForm
from edgellm.adapters.stored import Change as MatrixChange
from edgellm.adapters.written import write_files
from edgellm.checkpoint.folder import LAYER_PREFIX
from edgellm.converters.tensors.floats import Floats
from edgellm.training.low_rank import Change, LoraSettings, matrix_name


def write_adapter(
    folder: Path,
    changes: Sequence[Change],
    settings: LoraSettings,
    *,
    base: str,
    form: AdapterForm = "peft",
) -> None:
    """Write an adapter, each file whole or not at all; what was there is replaced.

    Args:
        folder: that is there.
        changes: numbers of each layer.
        settings: what was learned.
        base: name of the model.
        form: whose.

    Raises:
        FormatError: a number is infinite or not a number.
        ConversionError: the disk refuses.
    """
    facts = ConfigFacts(
        base=base, layers=len(changes), dropout=settings.dropout, rslora=settings.rslora
    )
    write_files(folder, in_form(form, dict(_by_path(changes, settings)), facts))


def _by_path(
    changes: Sequence[Change], settings: LoraSettings
) -> Iterator[tuple[str, MatrixChange]]:
    for layer, numbers in enumerate(changes):
        for target in settings.targets:
            if f"{target}.lora_A" not in numbers:
                continue
            lengths = numbers.get(f"{target}.lora_magnitude_vector")
            yield (
                f"{LAYER_PREFIX}{matrix_name(layer, target)}",
                MatrixChange(
                    up=_floats(numbers[f"{target}.lora_B"]),
                    down=_floats(numbers[f"{target}.lora_A"]),
                    scale=settings.scale_of(layer, target),
                    magnitude=None if lengths is None else _floats(lengths),
                ),
            )


def _floats(array: mx.array) -> Floats:
    """Return numbers of float32 where they are, without a copy."""
    return np.array(array, copy=False)
