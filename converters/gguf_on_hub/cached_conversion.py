"""GGUF files on the Hub, each converted once, into a folder of our cache."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from edgellm.checkpoint.folder import CONFIG
from edgellm.console.units import size
from edgellm.converters.conversion import ConversionStep, ConvertCallback
from edgellm.converters.convert import convert
from edgellm.converters.gguf.source import GgufSource
from edgellm.converters.gguf_on_hub.preview import as_it_is
from edgellm.errors import EdgeLLMError
from edgellm.files.locations import cache_folder, make_private_folder
from edgellm.files.names import shortened
from edgellm.files.refusals import write_error
from edgellm.files.strict_json import read_json, write_json
from edgellm.hub.download import GgufPlace, find_gguf
from edgellm.hub.gguf_files import model_names
from edgellm.hub.names import HubName

RECORD_SUFFIX = ".source.json"
"""Of the file beside a folder that says what it was made from."""


@dataclass(frozen=True, slots=True)
class _Record:
    """The origin of a folder of the cache.

    Attributes:
        repository: ``owner/name``.
        files: paths in it, the first one first.
        commit: the commit of the repository, when it was last looked at.
        blobs: name and size of each file's content in the Hub's cache.
        version: the version of edgellm.
    """

    repository: str
    files: tuple[str, ...]
    commit: str
    blobs: tuple[str, ...]
    version: str

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "repository": self.repository,
            "files": list(self.files),
            "commit": self.commit,
            "blobs": list(self.blobs),
            "version": self.version,
        }


def conversions_folder() -> Path:
    """Return the folder of our cache in which converted models lie."""
    return cache_folder() / "models"


def converted(name: HubName, progress: ConvertCallback | None = None) -> Path:
    """Return the model folder of a GGUF file on the Hub, made if it is not in our cache.

    It is made again when the file on the Hub is another one, or edgellm is. Where the Hub cannot be
    asked, what is in the caches will do.

    Args:
        name: with a file or a quantization.
        progress: called with the steps of the conversion, which say what is kept and where; None:
            warnings say it.

    Raises:
        ModelNotFoundError, DownloadError: as ``hub.download``.
        FormatError, UnsupportedModelError, TokenizerError, ReadError: as ``convert``.
        ConversionError: the cache's disk is full or refuses, or another process is at it.
    """
    say = progress or _warn
    found, place = find_converted(name)
    if found is not None:
        return found
    folder = _folder(name.repository, place.files[0])
    record = _record(folder)
    file = place.fetched()
    blobs = tuple(_blob(file.parents[place.files[0].count("/")] / item) for item in place.files)
    commit = place.commit or ""
    made = _Record(name.repository, place.files, commit, blobs, _version())
    same = record is not None and (record.blobs, record.version) == (made.blobs, made.version)
    if not same or not (folder / CONFIG).is_file():
        _make(file, folder, name, say)
    _write_record(folder, made)
    return folder


def find_converted(name: HubName) -> tuple[Path | None, GgufPlace]:
    """Return the folder made of a GGUF file on the Hub, and where the file is; nothing is made.

    The folder is None where there is none, or it is no longer that of the file.

    Raises:
        ModelNotFoundError, DownloadError: as ``hub.download``.
    """
    records = list(_records(name.repository))
    place = find_gguf(name, tuple(file for record in records for file in record.files))
    folder = _folder(name.repository, place.files[0])
    record = _record(folder)
    if record is None or not (folder / CONFIG).is_file():
        return None, place
    # without the Hub and the file there is nothing else to be had
    is_all = place.error is not None and place.folder is None
    is_current = (record.commit, record.version) == (place.commit, _version())
    if is_all or is_current:
        return folder, place
    return None, place


def kept_conversions() -> list[tuple[str, Path]]:
    """Return the names of the GGUF models that are kept converted, each with its folder."""
    found = []
    for path in sorted(conversions_folder().glob(f"*{RECORD_SUFFIX}")):
        folder = path.with_name(path.name.removesuffix(RECORD_SUFFIX))
        record = _record(folder)
        if record is not None and (folder / CONFIG).is_file():
            first = record.files[0]
            found.append((model_names(record.repository, [first])[first], folder))
    return found


def forget(folder: Path) -> None:
    """Delete a kept conversion, which is made again when it is used. Raises ConversionError."""
    try:
        shutil.rmtree(folder)
        _record_path(folder).unlink(missing_ok=True)
    except OSError as error:
        raise write_error(folder, error) from error


def _make(file: Path, folder: Path, name: HubName, say: ConvertCallback) -> None:
    try:
        make_private_folder(folder.parent)
    except OSError as error:
        raise write_error(folder.parent, error) from error
    _tell(say, f"{name.text} is converted once, into {folder}")
    bits = as_it_is(GgufSource(file)).bits
    report = convert(file, folder, bits=bits, force=folder.exists(), progress=say)
    _tell(say, f"converted: {size(report.weight_bytes)}, found again until {folder} is deleted")


def _warn(step: ConversionStep) -> None:
    if step.message:
        warnings.warn(step.message, stacklevel=2)


def _tell(say: ConvertCallback, message: str) -> None:
    say(ConversionStep("", 0, 0, message))


def _folder(repository: str, first: str) -> Path:
    """Return where the model of a GGUF file lies in our cache."""
    name = f"{repository}/{first}".removesuffix(".gguf").replace("/", "--")
    return conversions_folder() / shortened(name)


def _record_path(folder: Path) -> Path:
    return folder.with_name(folder.name + RECORD_SUFFIX)


def _write_record(folder: Path, record: _Record) -> None:
    # without it the file is looked at again, and converted again
    with suppress(EdgeLLMError):
        write_json(_record_path(folder), record.as_json(), private=True)


def _records(repository: str) -> Iterator[_Record]:
    """Yield what the folders were made from that were made of a repository's files."""
    for path in sorted(conversions_folder().glob(f"*{RECORD_SUFFIX}")):
        record = _record(path.with_name(path.name.removesuffix(RECORD_SUFFIX)))
        if record is not None and record.repository == repository:
            yield record


def _record(folder: Path) -> _Record | None:
    """Return what a folder was made from; None where nothing is known, and it is made again."""
    path = _record_path(folder)
    if not path.is_file():
        return None
    try:
        found = read_json(path)
        return _Record(
            str(found["repository"]),
            tuple(map(str, found["files"])),
            str(found["commit"]),
            tuple(map(str, found["blobs"])),
            str(found["version"]),
        )
    except (EdgeLLMError, KeyError, TypeError):
        return None


def _blob(file: Path) -> str:
    """Return what tells a file's content from another's: the cache names it by its digest."""
    content = file.resolve()
    return f"{content.name} {content.stat().st_size}"


def _version() -> str:
    return metadata.version("edgellm")
