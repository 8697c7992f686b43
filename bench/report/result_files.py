"""Records in files: read back, and written so that after each one the file on disk is whole."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgellm.bench.records.record import SCHEMA, Record
from edgellm.bench.records.text_tables import as_csv, as_json, as_markdown
from edgellm.errors import BackendError, ConfigError, FormatError

MAX_BYTES = 256 << 20
JSONL = ".jsonl"
Written = Mapping[str, Any]
"""A record as ``Record.as_dict`` gives it."""


def _as_html(records: Sequence[Written]) -> str:
    from edgellm.bench.report.html_report import as_html

    return as_html(records)


WRITERS: Mapping[str, Callable[[Sequence[Written]], str]] = {
    ".json": as_json,
    ".csv": as_csv,
    ".md": as_markdown,
    ".html": _as_html,
}


class Output:
    """A file that records go to, in the format of its suffix; what was there before is replaced by the first of them.

    Raises:
        ConfigError: the suffix says no format, or there is no such folder.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix not in {*WRITERS, JSONL}:
            known = ", ".join([JSONL, *WRITERS])
            raise ConfigError(
                f"{path.name} says no format that is known", hint=f"end it with one of {known}"
            )
        if not path.absolute().parent.is_dir():
            raise ConfigError(f"there is no folder {path.parent}", hint="make it first")
        self.path = path
        self._records: list[Written] = []
        if path.suffix == JSONL:
            self._write(b"", "ab")  # says now whether it can be written

    def add(self, record: Written) -> None:
        """Put a record on the disk. Raises BackendError where the disk refuses."""
        self._records.append(record)
        if self.path.suffix == JSONL:
            self._write(_line(record), "ab" if len(self._records) > 1 else "wb")
        else:
            write_records(self.path, self._records)

    def replace(self, records: Sequence[Written]) -> None:
        """Put these records in the place of those so far; of none, leave the file as it is. Raises BackendError."""
        self._records = list(records)
        if records:
            write_records(self.path, self._records)

    def _write(self, data: bytes, mode: str) -> None:
        try:
            _flushed(self.path, data, mode)
        except OSError as error:
            raise _refused(self.path, error) from error


def write_records(path: Path, records: Sequence[Written]) -> None:
    """Replace a file, at once or not at all, in the format of its suffix. Raises BackendError where the disk refuses."""
    lines = path.suffix == JSONL
    data = (
        b"".join(map(_line, records)) if lines else WRITERS[path.suffix](records).encode() + b"\n"
    )
    partial = path.with_name(path.name + ".partial")
    try:
        _flushed(partial, data, "wb")
        partial.replace(path)
    except OSError as error:
        raise _refused(path, error) from error
    finally:
        partial.unlink(missing_ok=True)


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of a json or jsonl file that the bench has written.

    Raises:
        ConfigError: there is no such file.
        FormatError: it holds something else.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise FormatError(f"{path} is larger than {MAX_BYTES >> 20} MiB")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}", hint="name a json file of edgellm bench"
        ) from error
    except UnicodeDecodeError as error:
        raise _strange(path, "it is no text") from error
    try:
        documents = (
            [json.loads(text)]
            if path.suffix != JSONL
            else [json.loads(line) for line in _whole_lines(text)]
        )
    except (ValueError, RecursionError) as error:
        raise _strange(path, "it is no JSON") from error
    found: list[dict[str, Any]] = []
    for document in documents:
        if not isinstance(document, dict):
            raise _strange(path, "it is no object")
        if document.get("schema") != SCHEMA:
            raise _strange(
                path,
                f"its schema is {str(document.get('schema'))[:20]}, and this edgellm knows {SCHEMA}",
            )
        records = (
            [_without_schema(document)] if path.suffix == JSONL else document.get("records", [])
        )
        if not isinstance(records, list) or not all(_is_record(record) for record in records):
            raise _strange(path, "its records are none")
        found += records
    return found


def read_some_records(path: Path) -> list[dict[str, Any]]:
    """``read_records`` of a file that holds at least one. Raises FormatError where it holds none, and as that does."""
    found = read_records(path)
    if not found:
        raise _strange(path, "it is empty")
    return found


def as_written(records: Sequence[Record]) -> list[Written]:
    """Records as files hold them."""
    return [record.as_dict() for record in records]


def _without_schema(document: Mapping[str, Any]) -> dict[str, Any]:
    """The record that a line of a jsonl file is."""
    return {name: value for name, value in document.items() if name != "schema"}


def _line(record: Written) -> bytes:
    return json.dumps({"schema": SCHEMA} | dict(record), allow_nan=False).encode() + b"\n"


def _flushed(path: Path, data: bytes, mode: str) -> None:
    with path.open(mode) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _whole_lines(text: str) -> list[str]:
    """The lines that end: the last one may have been cut off with the power."""
    return [line for line in text.split("\n")[:-1] if line.strip()]


def _is_record(record: object) -> bool:
    if not isinstance(record, dict):
        return False
    texts = all(isinstance(record.get(name), str) for name in ("model", "backend", "test"))
    seconds = record.get("seconds")
    numbers = isinstance(seconds, list) and all(
        isinstance(value, int | float) and value >= 0 for value in seconds
    )
    return texts and numbers and isinstance(record.get("environment"), dict)


def _strange(path: Path, why: str) -> FormatError:
    return FormatError(
        f"{path} holds no records of edgellm bench: {why}",
        hint="write them with --output FILE.json",
    )


def _refused(path: Path, error: OSError) -> BackendError:
    return BackendError(f"{path} cannot be written: {error.strerror}")
