"""A digest that tells which model a folder holds, whatever the folder is called."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Protocol

from edgellm.checkpoint.folder import ModelFolder, read_checksums
from edgellm.errors import FormatError, ReadError
from edgellm.files.bounded import read_errors

SAMPLES = 4
SAMPLE_BYTES = 4096
"""Bytes read of each file; models of one shape differ in nearly all of their weights."""


class FolderHolder(Protocol):
    """A model whose folder was read, whether edgellm or mlx-lm computes it."""

    @property
    def folder(self) -> ModelFolder:
        """The files."""


def fingerprint(checkpoint: FolderHolder) -> str:
    """Return a digest that two folders share only if they hold the same model.

    It is made of the config, every tensor's place, samples of the weights, and the checksums that
    our own folders record. Where there are none, the files' times stand in for them: a copy then
    counts as another model, which only costs computing again.

    Raises:
        ReadError: a file cannot be read.
    """
    folder = checkpoint.folder
    digest = hashlib.sha256(json.dumps(folder.config, sort_keys=True).encode())
    for name, tensor in sorted(folder.tensors.items()):
        digest.update(
            f"{name} {tensor.dtype} {tensor.shape} {tensor.file.name} {tensor.offset}\n".encode()
        )
    try:
        recorded = {
            record.name: f"{record.size} {record.sha256}" for record in read_checksums(folder.path)
        }
    except (FormatError, ReadError):
        recorded = {}
    for file in sorted({tensor.file for tensor in folder.tensors.values()}):
        _add_file(digest, file, recorded.get(file.name))
    return digest.hexdigest()


def _add_file(digest: hashlib._Hash, path: Path, recorded: str | None) -> None:
    with read_errors(path), path.open("rb") as file:
        status = path.stat()
        digest.update(f"{path.name} {status.st_size} {recorded or status.st_mtime_ns}\n".encode())
        for number in range(SAMPLES):
            # the middles of equal parts of the file
            file.seek(status.st_size * (2 * number + 1) // (2 * SAMPLES))
            digest.update(file.read(SAMPLE_BYTES))
