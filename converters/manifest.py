"""The manifest of an unfinished conversion: what it is made from, and which files are whole."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgellm.errors import ConversionError, FormatError, ReadError
from edgellm.files.atomic import FileRecord
from edgellm.files.names import PARTIAL_SUFFIX
from edgellm.files.strict_json import read_json, write_json


@dataclass(frozen=True, slots=True)
class Finished:
    """A file that is whole, and the quantization errors of its matrices if they were measured."""

    record: FileRecord
    errors: Mapping[str, float] | None


@dataclass(frozen=True, slots=True)
class Manifest:
    """An account of a conversion, in the folder where it grows.

    Attributes:
        origin: the source's fingerprint and the recipe's digest.
        names: the names of all files that it writes.
        files: those that are whole, by their name.
    """

    origin: Mapping[str, str]
    names: frozenset[str]
    files: Mapping[str, Finished] = field(default_factory=dict)


def read_manifest(path: Path) -> Manifest | None:
    """Return the manifest in a file, or None where there is none.

    Raises:
        ConversionError: something else bears its name.
    """
    if not os.path.lexists(path):
        return None
    try:
        if not _is_plain_file(path):
            raise FormatError("a link, a folder or a device")
        return _parsed(read_json(path))
    except (FormatError, ReadError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ConversionError(
            f"{path.parent} is in the way: no conversion has written its {path.name}",
            hint="move it, or name another destination",
        ) from error


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write a manifest, whole or not at all. Raises ConversionError."""
    files = {
        name: {"size": item.record.size, "sha256": item.record.sha256, "errors": item.errors}
        for name, item in manifest.files.items()
    }
    document = {
        "format": 1,
        "origin": dict(manifest.origin),
        "names": sorted(manifest.names),
        "files": files,
    }
    write_json(path, document)


def is_written(entry: Path, names: Collection[str]) -> bool:
    """Return whether a conversion has written a file: it has one of the names, or is unfinished."""
    named = entry.name in names or entry.name.endswith(PARTIAL_SUFFIX)
    return named and _is_plain_file(entry)


def _is_plain_file(path: Path) -> bool:
    """Return whether a path is a file itself, and no link to one."""
    return stat.S_ISREG(path.lstat().st_mode)


def _parsed(document: Mapping[str, Any]) -> Manifest:
    if document["format"] != 1:
        raise FormatError("another version's")
    files = {}
    for name, item in document["files"].items():
        errors = item["errors"]
        if errors is not None:
            errors = {path: float(error) for path, error in errors.items()}
        files[name] = Finished(FileRecord(name, int(item["size"]), str(item["sha256"])), errors)
    names = {str(name) for name in document.get("names", [])}  # older ones do not have them
    return Manifest(dict(document["origin"].items()), frozenset(names), files)
