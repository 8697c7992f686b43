"""All that a federation has to know to go on: one file, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.checkpoint.safetensors_file import (
    TensorData,
    load_arrays,
    read_header,
    write_tensors,
)
from edgellm.converters.tensors.floats import Floats
from edgellm.errors import ConfigError, FormatError, ModelNotFoundError
from edgellm.files.strict_json import parse_json

FILE = "federation.safetensors"
SCHEMA = "1"
ROW = "numbers"


@dataclass(slots=True)
class SavedRounds:
    """Where a federation is.

    Attributes:
        round: rounds that are over.
        row: the factors so far.
        facts: what one that goes on must have in common with it.
        history: the rounds, as plain data.
    """

    round: int
    row: Floats
    facts: Mapping[str, Any]
    history: list[Mapping[str, Any]] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Write it to a folder, in the place of an older one. Raises ConversionError."""
        tensor = TensorData(ROW, "F32", self.row.shape, iter([self.row]))
        metadata = {
            "schema": SCHEMA,
            "round": str(self.round),
            "facts": json.dumps(self.facts),
            "history": json.dumps(self.history),
        }
        write_tensors(folder / FILE, [tensor], metadata=metadata)


def read_rounds(folder: Path, facts: Mapping[str, Any], size: int) -> SavedRounds:
    """Return where the federation in a folder is.

    Args:
        folder: that a federation writes to.
        facts: of the one that goes on.
        size: how many numbers it has.

    Raises:
        ModelNotFoundError: there is none.
        ConfigError: it was another one: the facts differ.
        FormatError: the file is damaged, or another version's.
        ReadError: it cannot be read.
    """
    path = folder / FILE
    if not path.exists():
        raise ModelNotFoundError(
            f"{folder} holds no federation", hint="leave out --resume to begin one"
        )
    _, metadata = read_header(path)
    if metadata.get("schema") != SCHEMA:
        raise FormatError(f"{path} is another version's", hint="begin anew in another folder")
    saved = parse_json(metadata.get("facts", "{}").encode(), str(path))
    for name, value in facts.items():
        if saved.get(name) != json.loads(json.dumps(value)):
            raise ConfigError(
                f"the federation in {folder} began with another {name.replace('_', '-')}",
                hint="go on with the options that it began with, or begin anew elsewhere",
            )
    try:
        row = np.array(load_arrays(path)[ROW])
        number, history = int(metadata["round"]), json.loads(metadata["history"])
        if row.shape != (size,) or number < 0 or not np.isfinite(row).all():
            raise ValueError
    except (KeyError, ValueError, RuntimeError) as error:
        raise FormatError(
            f"{path} is damaged, and the federation cannot go on from it",
            hint="begin anew; --start-from begins with the adapter that was saved",
        ) from error
    return SavedRounds(number, row, facts, [dict(one) for one in history])
