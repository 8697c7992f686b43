"""Versions and digests of a model's files, which all machines must have alike."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from edgellm.checkpoint.folder import CONFIG, GENERATION_CONFIG, weight_files
from edgellm.errors import ConversionError, EdgeLLMError, MachineError
from edgellm.files.atomic import file_record, write_file
from edgellm.files.bounded import read_bounded, read_errors
from edgellm.files.locations import cache_folder, make_private_folder

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")

MAX_KEPT = 4096
"""Digests that are kept; a model of ours has a file per layer."""

_MAX_BYTES = 4 << 20


def versions() -> dict[str, str]:
    """Return what computes: other versions may round otherwise."""
    return {"edgellm": version("edgellm"), "mlx": version("mlx")}


def folder_digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a model that results depend on.

    Those of large files are kept, and computed again where size or time of a file changed.

    Raises:
        FormatError, ReadError: a file is missing or cannot be read.
    """
    names = [CONFIG, GENERATION_CONFIG, *TOKENIZER_FILES]
    files = [folder / name for name in names if (folder / name).exists()]
    with kept_digests() as kept:
        return {file.name: kept.of_file(file) for file in [*files, *weight_files(folder)]}


class KeptDigests:
    """Digests that were computed before, by what they are of."""

    def __init__(self, known: Mapping[str, str]) -> None:
        self.known: dict[str, str] = dict(known)
        self.is_new: bool = False

    def get(self, key: str, compute: Callable[[], str]) -> str:
        """Return a digest that is known, or else computed and kept."""
        if key not in self.known:
            self.known[key] = compute()
            self.is_new = True
        return self.known[key]

    def of_file(self, file: Path) -> str:
        """Return the SHA-256 of a file. Raises FormatError, ReadError."""
        return self.get(state_of(file), lambda: file_record(file).sha256)


@contextmanager
def kept_digests() -> Iterator[KeptDigests]:
    """Yield digests that were computed before; new ones are kept at the end, also of an error."""
    store = cache_folder() / "digests.json"
    kept = KeptDigests(_kept(store))
    try:
        yield kept
    finally:
        if kept.is_new:
            _keep(store, kept.known)


def state_of(file: Path) -> str:
    """Return what changes when a file does: place, size, time, number. Raises ReadError."""
    with read_errors(file):
        status = file.stat()
    return f"{file.resolve()}:{status.st_size}:{status.st_mtime_ns}:{status.st_ino}"


def require_alike(name: str, own: Mapping[str, str], other: Mapping[str, str], what: str) -> None:
    """Raise MachineError where two machines have something not alike; says what.

    Args:
        name: of the other machine.
        own: by names, what this machine has.
        other: the same of the other machine.
        what: what the names are of.
    """
    for key in sorted({*own, *other}):
        if own.get(key) == other.get(key):
            continue
        ours, theirs = own.get(key), other.get(key)
        if what == "version":
            raise MachineError(
                f"machine {name} has {key} {theirs}, and this one has {ours}",
                hint="install the same versions on all machines: results may differ between them",
            )
        if ours is None or theirs is None:
            here = "here" if theirs is None else f"on machine {name}"
            raise MachineError(
                f"the model's {key} is {here} alone", hint="copy the folder to each machine again"
            )
        raise MachineError(
            f"the model's {key} on machine {name} is another one than here",
            hint="copy the folder to each machine again, or see which one edgellm verify refuses",
        )


def _kept(store: Path) -> dict[str, str]:
    try:
        kept = json.loads(read_bounded(store, _MAX_BYTES))
    except (EdgeLLMError, ValueError, RecursionError):
        return {}
    if not isinstance(kept, dict):
        return {}
    return {key: value for key, value in kept.items() if isinstance(value, str)}


def _keep(store: Path, kept: Mapping[str, str]) -> None:
    last = dict(list(kept.items())[-MAX_KEPT:])
    try:
        make_private_folder(store.parent)
        write_file(store, [json.dumps(last).encode()], private=True)
    except (OSError, ConversionError):
        return  # they are computed again
