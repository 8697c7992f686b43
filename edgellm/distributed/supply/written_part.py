"""Some layers of a model in a folder of their own, to be carried to another machine."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from edgellm.checkpoint.checkpoint import Checkpoint
from edgellm.checkpoint.folder import PART
from edgellm.console.units import size
from edgellm.distributed.parts.digests import kept_digests
from edgellm.distributed.supply.part_file import PartFile, Wanted, part_files
from edgellm.distributed.supply.part_folder import SPARE_BYTES, read_told
from edgellm.distributed.supply.told_model import name_of, told_of
from edgellm.errors import ConfigError, ConversionError
from edgellm.files.atomic import write_file
from edgellm.files.refusals import write_error
from edgellm.files.strict_json import write_json
from edgellm.setting_values import shown

PartProgress = Callable[[str, int, int], None]
"""Called with a file's name, the bytes that are done, and those of all."""


def parse_layers(text: str, count: int) -> list[int]:
    """Return the layers of ``16-31`` or ``0,4-7``, of a model that has ``count``.

    ``all`` are these, and what is outside them: the number behind the last.

    Raises ConfigError.
    """
    if text.strip() == "all":
        return list(range(count + 1))
    layers: set[int] = set()
    hint = f"the model has layers 0 to {count - 1}: write 0-{count // 2 - 1}, 0,2,4-6, or all"
    for part in text.split(","):
        first, dash, last = (word.strip() for word in part.partition("-"))
        if not dash:
            last = first
        if not (first.isascii() and first.isdecimal() and last.isascii() and last.isdecimal()):
            raise ConfigError(f"{shown(text)} names no layers", hint=hint)
        if len(last) > 6 or len(first) > 6 or not int(first) <= int(last) < count:
            raise ConfigError(f"the model has no layers {shown(part.strip())}", hint=hint)
        layers.update(range(int(first), int(last) + 1))
    return sorted(layers)


def write_part(
    checkpoint: Checkpoint,
    folder: Path,
    layers: Sequence[int],
    progress: PartProgress = lambda *_: None,
) -> int:
    """Write some layers of a model; return the bytes of the folder's files.

    Each file appears when it is whole. What is there of the same model stays, and is not written
    again where it is the same.

    Args:
        checkpoint: the model.
        folder: to be made, or one that has some of its layers.
        layers: their numbers.
        progress: told how far it is.

    Raises:
        ConversionError: the folder is in the way, the disk is full, or refuses.
        ReadError: a file of the model cannot be read.
    """
    told = told_of(checkpoint)
    _begin(folder, name_of(told))
    files = part_files(checkpoint, Wanted(layers))
    total = sum(file.nbytes for file in files)
    with kept_digests() as kept:

        def is_there(file: PartFile) -> bool:
            path = folder / file.name
            if not path.is_file() or path.stat().st_size != file.nbytes:
                return False
            return kept.of_file(path) == file.digest(kept)

        lacking = [file for file in files if not is_there(file)]
        _require_room(folder, sum(file.nbytes for file in lacking))
        write_json(folder / PART, {"format": 1, "model": told})
        done = total - sum(file.nbytes for file in lacking)
        for file in lacking:
            write_file(folder / file.name, file.read())
            done += file.nbytes
            progress(file.name, done, total)
    return total


def _begin(folder: Path, name: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        taken = any(folder.iterdir())
    except OSError as error:
        raise write_error(folder, error) from error
    if not taken:
        return
    if not (folder / PART).exists():
        raise ConversionError(f"{folder} is in the way", hint="name a new folder")
    if name_of(read_told(folder)) != name:
        raise ConversionError(f"{folder} has layers of another model", hint="name a new folder")


def _require_room(folder: Path, needed: int) -> None:
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise write_error(folder, error) from error
    if needed and needed + SPARE_BYTES > free:
        raise ConversionError(
            f"{folder} needs {size(needed)}, and its disk has {size(free)} free",
            hint="free some space, or name fewer layers or a folder on another disk",
        )
