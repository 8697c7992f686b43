"""Files of records: written so that they are whole after each record, and read back."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgellm.bench.records.record import SCHEMA, RecordDict
from edgellm.bench.records.text_tables import as_csv, as_json, as_markdown
from edgellm.errors import BackendError, ConfigError, ConversionError, FormatError
from edgellm.files.atomic import read_errors, write_file

MAX_BYTES = 256 << 20
"""Of a file that is read; a larger one is not ours."""

JSONL = ".jsonl"
"""The suffix of files with a record a line, to which records are appended."""


def _as_html(records: Sequence[RecordDict]) -> str:
    # half of the bench's code, which other formats do not need
    from edgellm.bench.report.html_report import as_html

    return as_html(records)


FORMATS: Mapping[str, Callable[[Sequence[RecordDict]], str]] = {
    ".json": as_json,
    ".csv": as_csv,
    ".md": as_markdown,
    ".html": _as_html,
}
"""By suffix, the text of a file that is written anew with each record."""


class ResultFile:
    """A file that records go to, in the format of its suffix.

    The first record replaces what was there before.

    Raises:
        ConfigError: the suffix says no format, or there is no such folder.
        BackendError: the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix not in {*FORMATS, JSONL}:
            known = ", ".join([JSONL, *FORMATS])
            raise ConfigError(
                f"{path.name} says no format that is known", hint=f"end it with one of {known}"
            )
        if not path.absolute().parent.is_dir():
            raise ConfigError(f"there is no folder {path.parent}", hint="make it first")
        self.path = path
        self._records: list[RecordDict] = []
        if path.suffix == JSONL:
            # says now whether it can be written, not after the first measurement
            _write_in_place(path, b"", "ab")

    def add(self, record: RecordDict) -> None:
        """Put a record on the disk. Raises BackendError where the disk refuses."""
        self._records.append(record)
        if self.path.suffix != JSONL:
            write_records(self.path, self._records)
        elif len(self._records) == 1:
            _write_in_place(self.path, _as_line(record), "wb")
        else:
            _write_in_place(self.path, _as_line(record), "ab")

    def replace(self, records: Sequence[RecordDict]) -> None:
        """Put these records in the place of those so far; of none, leave the file as it is.

        Raises:
            BackendError: the disk refuses.
        """
        self._records = list(records)
        if records:
            write_records(self.path, self._records)


def write_records(path: Path, records: Sequence[RecordDict]) -> None:
    """Replace a file, at once or not at all, in the format of its suffix.

    Raises:
        BackendError: the disk refuses.
    """
    if path.suffix == JSONL:
        data = b"".join(map(_as_line, records))
    else:
        data = FORMATS[path.suffix](records).encode() + b"\n"
    try:
        write_file(path, [data])
    except ConversionError as error:
        raise BackendError(error.message, hint=error.hint) from error


def read_records(path: Path) -> list[dict[str, Any]]:
    """Return the records of a json or jsonl file that the bench has written.

    Raises:
        ConfigError: there is no such file.
        FormatError: it holds something else.
    """
    text = _read_text(path)
    try:
        if path.suffix == JSONL:
            documents = [json.loads(line) for line in _whole_lines(text)]
        else:
            documents = [json.loads(text)]
    except (ValueError, RecursionError) as error:
        raise _format_error(path, "it is no JSON") from error
    return [record for document in documents for record in _records_of(document, path)]


def read_some_records(path: Path) -> list[dict[str, Any]]:
    """Return the records of a file that holds at least one.

    Raises:
        ConfigError: there is no such file.
        FormatError: it holds something else, or no record.
    """
    records = read_records(path)
    if not records:
        raise _format_error(path, "it is empty")
    return records


def _write_in_place(path: Path, data: bytes, mode: str) -> None:
    try:
        _write_to_disk(path, data, mode)
    except OSError as error:
        raise _refusal(path, error) from error


def _write_to_disk(path: Path, data: bytes, mode: str) -> None:
    with path.open(mode) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _as_line(record: RecordDict) -> bytes:
    return json.dumps({"schema": SCHEMA} | dict(record), allow_nan=False).encode() + b"\n"


def _read_text(path: Path) -> str:
    try:
        with read_errors(path, ConfigError, hint="name a json file of edgellm bench"):
            if path.stat().st_size > MAX_BYTES:
                raise FormatError(f"{path} is larger than {MAX_BYTES >> 20} MiB")
            return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise _format_error(path, "it is no text") from error


def _whole_lines(text: str) -> list[str]:
    """Return the lines that end: the last one may have been cut off with the power."""
    return [line for line in text.split("\n")[:-1] if line.strip()]


def _records_of(document: object, path: Path) -> list[dict[str, Any]]:
    """Return the records of a json file's document, or the one of a jsonl file's line."""
    if not isinstance(document, dict):
        raise _format_error(path, "it is no object")
    schema = document.pop("schema", None)
    if schema != SCHEMA:
        found = str(schema)[:20]
        raise _format_error(path, f"its schema is {found}, and this edgellm knows {SCHEMA}")
    records = [document]
    if path.suffix != JSONL:
        records = document.get("records", [])
    if not isinstance(records, list) or not all(map(_is_record, records)):
        raise _format_error(path, "its records are none")
    return records


def _is_record(record: object) -> bool:
    if not isinstance(record, dict) or not isinstance(record.get("environment"), dict):
        return False
    if not all(isinstance(record.get(name), str) for name in ("model", "backend", "test")):
        return False
    seconds = record.get("seconds")
    return isinstance(seconds, list) and all(
        isinstance(value, int | float) and value >= 0 for value in seconds
    )


def _format_error(path: Path, why: str) -> FormatError:
    return FormatError(
        f"{path} holds no records of edgellm bench: {why}",
        hint="write them with --output FILE.json",
    )


def _refusal(path: Path, error: OSError) -> BackendError:
    return BackendError(f"{path} cannot be written: {error.strerror}")
