"""Writes what full fine-tuning has learned as a model folder that others open."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.checkpoint.buffer import DTYPES
from edgellm.checkpoint.checkpoint import Checkpoint
from edgellm.checkpoint.dialects.names import spelled
from edgellm.checkpoint.folder import CONFIG, LAYER_NAME, LAYER_PREFIX, open_folder
from edgellm.checkpoint.safetensors_file import TensorData, write_tensors
from edgellm.converters.huggingface.source import companions_in
from edgellm.converters.tensors.settings import CODES
from edgellm.files.atomic import write_file
from edgellm.training.full.weights import EMBEDDING, HEAD
from edgellm.training.low_rank import Change

WEIGHTS = "model.safetensors"


@dataclass(frozen=True, slots=True)
class _Stored:
    """A tensor of the base: its name, and ours that it is made of, in the order of their rows."""

    name: str
    members: tuple[str, ...]


class LearnedFolder:
    """Writes a model as its base is written: names, config, tokenizer; other numbers.

    Args:
        base: the model that was there before.
        dtype: of the numbers (``float32``); None: the base's.
    """

    def __init__(self, base: Checkpoint, dtype: str | None = None) -> None:
        self._source = base.folder.path
        raw = open_folder(self._source)
        self._config: Mapping[str, Any] = raw.config
        self._code = base.dtype if dtype is None else CODES[dtype]
        self._dtype = DTYPES[self._code]
        spelling = spelled(raw.config, {name: item.shape for name, item in raw.tensors.items()})
        made_of: dict[str, list[tuple[int, str]]] = {}
        for name, rows in spelling.tensors.items():
            found = LAYER_NAME.match(name)
            if not found or int(found[1]) < base.config.num_hidden_layers:
                made_of.setdefault(rows.name, []).append((rows.start, name))
        self._stored = [
            _Stored(name, tuple(member for _, member in sorted(members)))
            for name, members in made_of.items()
        ]

    def write(self, folder: Path, numbers: Sequence[Change]) -> None:
        """Write the model, each file whole or not at all. Raises ConversionError."""
        if not (folder / CONFIG).exists():
            self._write_companions(folder)
        arrays = _by_full_names(numbers)
        tensors = []
        for stored in self._stored:
            members = [arrays[name] for name in stored.members if name in arrays]
            if members:
                rows = sum(array.shape[0] for array in members)
                shape = (rows, *members[0].shape[1:])
                tensors.append(TensorData(stored.name, self._code, shape, self._parts(members)))
        write_tensors(folder / WEIGHTS, tensors, metadata={"format": "pt"})

    def _parts(self, members: Sequence[mx.array]) -> Iterator[npt.NDArray[Any]]:
        for array in members:
            # bytes, since NumPy has no bfloat16
            stored = mx.contiguous(array.astype(self._dtype))
            yield np.array(stored.reshape(-1).view(mx.uint8))

    def _write_companions(self, folder: Path) -> None:
        for name, content in companions_in(self._source).items():
            parts = [content.read_bytes() if isinstance(content, Path) else content]
            write_file(folder / name, parts)
        config = dict(self._config)
        for key in ("torch_dtype", "dtype"):
            if key in config:
                config[key] = str(self._dtype).rpartition(".")[2]
        write_file(folder / CONFIG, [(json.dumps(config, indent=2) + "\n").encode()])


def _by_full_names(numbers: Sequence[Change]) -> dict[str, mx.array]:
    *layers, outer = numbers
    arrays = dict(outer)
    arrays.setdefault(HEAD, outer[EMBEDDING])  # of a tied model that stores it twice
    for index, layer in enumerate(layers):
        arrays |= {f"{LAYER_PREFIX}{index}.{name}": array for name, array in layer.items()}
    return arrays
