"""Changes a program's settings so that they can be restored as they were."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgellm.clients.setup import Setup
from edgellm.errors import ConfigError, FormatError
from edgellm.files.atomic import write_file
from edgellm.files.bounded import read_bounded
from edgellm.files.names import beside
from edgellm.files.refusals import write_error
from edgellm.files.strict_json import loads_strict, read_json, write_json

MAX_BYTES = 16 << 20
UNDO = ".before-edgellm.json"
"""Behind the name of a file: what it was before we changed it."""


def write_setup(setup: Setup) -> Path:
    """Put what a program needs into its settings; return them.

    Raises:
        ConfigError: they cannot be changed without losing what a person wrote.
        ConversionError, ReadError: the disk refuses.
    """
    path = setup.path
    if path is None or not setup.can_be_written:
        raise ConfigError(
            "there is no settings file that can be changed safely",
            hint="leave out --write, and do as it says",
        )
    before = _read(path)
    if setup.merged is not None:
        after = _merged_text(path, before, setup.merged)
    else:
        assert setup.text is not None, "a file of its own has a text"
        after = setup.text
    if after == before:
        return path
    record = beside(path, UNDO)
    kept = _kept(record)
    if kept is None or kept["after"] != _digest(before):
        kept = {"before": before}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(path.parent, error) from error
    write_json(record, {"before": kept["before"], "after": _digest(after)}, private=True)
    write_file(path, [after.encode()])
    return path


def undo(setup: Setup) -> Path:
    """Restore a program's settings; return them.

    Raises:
        ConfigError: nothing was written, or the file was changed since.
        ConversionError, ReadError: the disk refuses.
    """
    path = setup.path
    kept = None
    if path is not None:
        kept = _kept(beside(path, UNDO))
    if path is None or kept is None:
        raise ConfigError("nothing was written, so there is nothing to undo", hint="see --help")
    record = beside(path, UNDO)
    if _digest(_read(path)) != kept["after"]:
        raise ConfigError(
            f"{path} was changed since edgellm wrote it",
            hint=f"take out edgellm's part yourself; what it was before is in {record}",
        )
    if kept["before"] is None:
        path.unlink(missing_ok=True)
    else:
        write_file(path, [kept["before"].encode()])
    record.unlink(missing_ok=True)
    return path


def _merged_text(path: Path, before: str | None, merged: Mapping[str, Any]) -> str:
    """Return JSON settings with our part in them; raises ConfigError where they are not plain."""
    value: Any = {}
    if before is not None and before.strip():
        try:
            value = loads_strict(before)
            _merge(value, merged)
        except (ValueError, TypeError, RecursionError) as error:
            raise ConfigError(
                f"{path} is not plain JSON (comments, for example), and would lose something",
                hint="leave out --write, and put in what it shows",
            ) from error
    else:
        _merge(value, merged)
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _merge(value: Any, added: Mapping[str, Any]) -> None:
    """Put settings into others; raises TypeError where something else has their place."""
    if not isinstance(value, dict):
        raise TypeError("it is no object")
    for name, item in added.items():
        if isinstance(item, Mapping) and name in value:
            _merge(value[name], item)
        else:
            value[name] = item


def _read(path: Path) -> str | None:
    """Return a file's text; None where there is none. Raises ReadError, FormatError."""
    if not path.exists():
        return None
    try:
        return read_bounded(path, MAX_BYTES).decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is not UTF-8 text") from error


def _kept(record: Path) -> dict[str, Any] | None:
    if not record.exists():
        return None
    return read_json(record, max_bytes=MAX_BYTES)


def _digest(text: str | None) -> str:
    return hashlib.sha256((text or "").encode()).hexdigest()
