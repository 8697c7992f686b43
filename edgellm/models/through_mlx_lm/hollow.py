"""A model folder with only config and headers, written with holes for weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edgellm.checkpoint.folder import CONFIG, ModelFolder

WEIGHTS_FILE = "model.safetensors"


@contextmanager
def folder_on_disk(folder: ModelFolder) -> Iterator[Path]:
    """Return the path of a folder; of one that is not on this machine, one with its headers.

    mlx-lm reads shapes from files. Those made here take no room: their weights are holes.
    """
    if folder.path.is_dir():
        yield folder.path
        return
    with TemporaryDirectory(prefix="edgellm-") as name:
        path = Path(name)
        (path / CONFIG).write_text(json.dumps(folder.config), encoding="utf-8")
        _write_hollow(path / WEIGHTS_FILE, folder)
        yield path


def _write_hollow(path: Path, folder: ModelFolder) -> None:
    header: dict[str, Any] = {}
    end = 0
    for name, tensor in folder.tensors.items():
        header[name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [end, end + tensor.nbytes],
        }
        end += tensor.nbytes
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
