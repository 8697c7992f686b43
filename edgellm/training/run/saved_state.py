"""All that a run has to know to go on: one file, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from edgellm.checkpoint.safetensors_file import (
    TensorData,
    load_arrays,
    read_header,
    write_tensors,
)
from edgellm.converters.destination import require_space
from edgellm.converters.tensors.floats import Floats
from edgellm.errors import ConfigError, FormatError, ModelNotFoundError
from edgellm.files.strict_json import parse_json
from edgellm.training.low_rank import Change

FILE = "training.safetensors"
SCHEMA = "4"
PARTS = ("numbers", "means", "squares")

COPIES_ON_DISK = 2 * len(PARTS) + 1
"""Of the numbers, while a save takes the place of another; what is learned is there alone, too."""

OWN = ("epochs", "steps", "day")
"""Facts that a run which goes on may have others of: it may go on for longer."""

OTHERS: Mapping[str, str] = {
    "model": "was of another model",
    "start": "began with another adapter, or with none",
    "data": "was of other data, or of data that were written in another way",
}
"""Facts that nobody knows by their value, and what is said where they differ."""


@dataclass(slots=True)
class SavedState:
    """Where a run is.

    Attributes:
        step: steps taken.
        updates: steps in which numbers moved.
        numbers: the changes of each layer.
        means: of derivatives, as AdamW has them; empty before the first step.
        squares: means of their squares.
        facts: what a run must have in common with one that goes on from it: fingerprints of data
            and model, and settings.
        history: losses of epochs so far.
        losses: of the steps of the epoch under way, with the tokens or pairs that each is the mean
            of, and further means by name.
    """

    step: int
    updates: int
    numbers: list[Change]
    means: list[Change]
    squares: list[Change]
    facts: Mapping[str, Any]
    history: list[Mapping[str, Any]] = field(default_factory=list)
    losses: list[tuple[float, int, Mapping[str, float]]] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Write it to a folder, in the place of an older one. Raises ConversionError."""
        tensors = []
        for part in PARTS:
            for layer, change in enumerate(getattr(self, part)):
                for name, array in change.items():
                    tensors.append(_tensor(f"{part}.{layer}.{name}", array))
        metadata = {
            "schema": SCHEMA,
            "step": str(self.step),
            "updates": str(self.updates),
            "facts": json.dumps(self.facts),
            "history": json.dumps(self.history),
            "losses": json.dumps(self.losses),
        }
        write_tensors(folder / FILE, tensors, metadata=metadata)


def require_room(folder: Path, learned: int) -> None:
    """Raise ConversionError where a disk has no room for a save beside the one before it.

    Args:
        folder: that a run writes to, which need not be there.
        learned: numbers.
    """
    there = 0
    if folder.is_dir():
        there = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    require_space(
        folder,
        max(0, COPIES_ON_DISK * 4 * learned - there),
        spare=0,
        hint="free some space, or name a folder on another disk",
    )


def read_state(folder: Path, facts: Mapping[str, Any], layers: int) -> SavedState:
    """Return where the run in a folder is.

    Args:
        folder: that a run writes to.
        facts: of the run that goes on.
        layers: of the model.

    Raises:
        ModelNotFoundError: there is no run.
        ConfigError: it was another run: the facts differ.
        FormatError: the file is damaged, or another version's.
        ReadError: it cannot be read.
    """
    path = folder / FILE
    infos, metadata, saved = _header(path)
    for name, value in facts.items():
        if name not in OWN and saved.get(name) != value:
            raise ConfigError(
                f"the run in {folder} {_otherness(name, saved.get(name), value)}",
                hint="go on with the options and files that it began with, or begin anew",
            )
    try:
        return _as_saved(path, infos, metadata, saved, layers)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise _damaged(path) from error


def _as_saved(
    path: Path,
    infos: Iterable[str],
    metadata: Mapping[str, str],
    facts: Mapping[str, Any],
    layers: int,
) -> SavedState:
    """Return what a file holds; raise the error of whatever is not as it was written."""
    arrays = load_arrays(path)
    parts: dict[str, list[Change]] = {part: [{} for _ in range(layers)] for part in PARTS}
    for name in infos:
        part, layer, rest = name.split(".", 2)
        parts[part][int(layer)][rest] = arrays[name]
    mx.eval(parts)
    step, updates = int(metadata["step"]), int(metadata["updates"])
    shapes = {part: _shapes_of(changes) for part, changes in parts.items()}
    moments = [shapes[part] for part in PARTS[1:]]
    if not 0 <= updates <= step or not all(map(are_finite, parts.values())):
        raise ValueError
    if any(moments) and any(own != shapes["numbers"] for own in moments):
        raise ValueError
    history: list[Mapping[str, Any]] = [dict(epoch) for epoch in json.loads(metadata["history"])]
    losses: list[tuple[float, int, Mapping[str, float]]] = [
        (float(loss), int(asked), dict(figures))
        for loss, asked, figures in json.loads(metadata["losses"])
    ]
    return SavedState(step, updates, **parts, facts=facts, history=history, losses=losses)


def are_finite(changes: Sequence[Change]) -> bool:
    """Return whether all numbers are: none is infinite, or not a number."""
    return all(
        bool(mx.isfinite(array).all().item()) for change in changes for array in change.values()
    )


def _shapes_of(changes: Sequence[Change]) -> dict[tuple[int, str], tuple[int, ...]]:
    return {
        (layer, name): tuple(array.shape)
        for layer, change in enumerate(changes)
        for name, array in change.items()
    }


def saved_day(folder: Path) -> str:
    """Return the day on which the run in a folder began, as its templates write it.

    Raises:
        ModelNotFoundError, FormatError, ReadError: as ``read_state`` does.
    """
    return str(_header(folder / FILE)[2].get("day"))


def _header(path: Path) -> tuple[Mapping[str, Any], Mapping[str, str], Mapping[str, Any]]:
    """Return what a run's file says of its tensors, of itself, and the facts of the run."""
    if not path.exists():
        raise ModelNotFoundError(
            f"{path.parent} holds no training run", hint="leave out --resume to begin one"
        )
    try:
        infos, metadata = read_header(path)
    except FormatError as error:
        raise _damaged(path) from error
    if metadata.get("schema") != SCHEMA:
        raise FormatError(
            f"{path} is another version's", hint="go on with the version that began, or begin anew"
        )
    if "facts" not in metadata:
        raise _damaged(path)
    return infos, metadata, parse_json(metadata["facts"].encode(), str(path))


def _damaged(path: Path) -> FormatError:
    return FormatError(
        f"{path} is damaged, and the run cannot go on from it",
        hint="begin anew in another folder; --start-from begins with an adapter that was saved",
    )


def _tensor(name: str, array: mx.array) -> TensorData:
    return TensorData(name, "F32", tuple(array.shape), _floats(array))


def _floats(array: mx.array) -> Iterator[Floats]:
    """Yield an array's numbers in NumPy, once its turn comes."""
    yield np.ascontiguousarray(np.array(array.astype(mx.float32), copy=False))


def _otherness(name: str, saved: object, value: object) -> str:
    """Return how a run differs from the one that would go on with it."""
    if name in OTHERS:
        return OTHERS[name]
    return f"began with {name.replace('_', '-')} {_shown(saved)}, not {_shown(value)}"


def _shown(value: object) -> str:
    return "none" if value is None else str(value)
