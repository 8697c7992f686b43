"""Files of records: written so that they are whole after each record, and read back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from edgellm.bench.records.fields import FieldError
from edgellm.bench.records.kinds import record_of
from edgellm.bench.records.record import SCHEMA, Record
from edgellm.bench.tables.markdown_tables import as_markdown
from edgellm.bench.tables.text_tables import as_csv, as_json
from edgellm.errors import ConfigError, FormatError, ReadError
from edgellm.files.atomic import append_to_file, require_replaceable, write_file
from edgellm.files.bounded import read_bounded
from edgellm.files.file_lock import file_lock
from edgellm.files.refusals import write_error
from edgellm.files.strict_json import parse_json, quoted

MAX_BYTES = 64 << 20
"""Bytes of a file that is read; a larger one is not ours. A record has some KB."""

MAX_ITEMS = 4_000_000
"""Values in such a file."""

HINT = "name a json or jsonl file that edgellm bench --output has written"

JSONL = ".jsonl"
"""The suffix of files with a record per line, to which records are appended."""


def _as_html(records: Sequence[Record]) -> str:
    # half of the bench's code, which other formats do not need
    from edgellm.bench.report.html_report import as_html

    return as_html(records)


FORMATS: Mapping[str, Callable[[Sequence[Record]], str]] = {
    ".json": as_json,
    ".csv": as_csv,
    ".md": as_markdown,
    ".html": _as_html,
}
"""By suffix, the text of a file that is rewritten with each record."""


class ResultFile:
    """A file that records go to, in the format of its suffix.

    The first record replaces what was there before.

    Raises:
        ConfigError: the suffix says no format, or there is no such folder.
        ConversionError: something that is not a regular file is there, or it has a name that no
            file can have.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix not in {*FORMATS, JSONL}:
            known = ", ".join([JSONL, *FORMATS])
            raise ConfigError(
                f"{path.name} does not end with a known format", hint=f"end it with one of {known}"
            )
        try:
            if not path.absolute().parent.is_dir():
                raise ConfigError(f"there is no folder {path.parent}", hint="make it first")
            require_replaceable(path)
        except OSError as error:  # a name that is too long, a folder that may not be looked into
            raise write_error(path, error) from error
        self.path = path
        self._records: list[Record] = []

    def add(self, record: Record) -> None:
        """Put a record on the disk. Raises ConversionError where the disk refuses."""
        self._records.append(record)
        if self.path.suffix == JSONL and len(self._records) > 1:
            append_to_file(self.path, _as_line(record))
        else:
            write_records(self.path, self._records)

    def replace(self, records: Sequence[Record]) -> None:
        """Put these records in the place of those so far; of none, leave the file as it is.

        Raises:
            ConversionError: the disk refuses.
        """
        self._records = list(records)
        if records:
            write_records(self.path, self._records)


@contextmanager
def open_outputs(paths: Sequence[Path] | None) -> Iterator[list[ResultFile]]:
    """Hold the files that records go to: no other run writes them meanwhile.

    Raises:
        ConfigError, ConversionError: as ``ResultFile``; or another run holds one, or its folder
            cannot be written: said now, not after the first measurement.
    """
    with ExitStack() as held:
        outputs = []
        for path in dict.fromkeys(paths or ()):
            outputs.append(ResultFile(path))
            held.enter_context(file_lock(path, "edgellm bench"))
        yield outputs


def write_records(path: Path, records: Sequence[Record]) -> None:
    """Replace a file, at once or not at all, in the format of its suffix.

    Raises:
        ConversionError: the disk refuses.
    """
    if path.suffix == JSONL:
        data = b"".join(map(_as_line, records))
    else:
        data = FORMATS[path.suffix](records).encode(errors="backslashreplace") + b"\n"
    write_file(path, [data])


def read_records(path: Path) -> list[Record]:
    """Return the records of a json or jsonl file that the bench has written.

    Raises:
        ReadError: there is no such file.
        FormatError: it holds something else; the error names the record and its field.
    """
    try:
        return [_record(document, number, path) for number, document in _documents(path)]
    except (ReadError, FormatError) as error:
        hint = error.hint
        if hint == error.usual_hint:
            hint = HINT
        raise type(error)(error.message, hint=hint) from error


def read_some_records(path: Path) -> list[Record]:
    """Return the records of a file that holds at least one.

    Raises:
        ReadError: there is no such file.
        FormatError: it holds something else, or no record.
    """
    records = read_records(path)
    if not records:
        raise FormatError(f"{path} holds no records: it is empty", hint=HINT)
    return records


def _as_line(record: Record) -> bytes:
    return json.dumps({"schema": SCHEMA} | record.as_dict(), allow_nan=False).encode() + b"\n"


def _record(document: object, number: int, path: Path) -> Record:
    try:
        return record_of(document)
    except FieldError as error:
        raise FormatError(f"{path}, record {number}: {error.message}") from error


def _documents(path: Path) -> Iterable[tuple[int, object]]:
    """Return the numbers and the JSON values of records. Raises ReadError, FormatError."""
    data = read_bounded(path, MAX_BYTES)
    if b'"avg_ts"' in data and b'"schema"' not in data:
        raise FormatError(
            f"{path} is llama-bench's",
            hint="measure the same file here: edgellm bench FILE.gguf --backend llama.cpp",
        )
    if path.suffix == JSONL:
        return enumerate((_without_schema(line, path) for line in _lines(data, path)), 1)
    if not data.strip():
        return ()
    document = _without_schema(_parse(data, str(path)), path)
    if "comparisons" in document:
        raise FormatError(f"{path} holds what bench compare has found, no records")
    records = document.get("records")
    if not isinstance(records, list):
        raise FormatError(f"{path} holds no list of records")
    return enumerate(records, 1)


def _lines(data: bytes, path: Path) -> Iterator[dict[str, Any]]:
    """Yield the object of each line; a last one that was cut off with the power is left out."""
    *lines, last = data.split(b"\n")
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield _parse(line, f"{path}, record {number}")
    with suppress(FormatError):
        yield _parse(last, str(path))


def _parse(data: bytes, name: str) -> dict[str, Any]:
    return parse_json(data, name, max_bytes=MAX_BYTES, max_items=MAX_ITEMS)


def _without_schema(document: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return a document without its schema. Raises FormatError where it is not the one we know."""
    schema = document.pop("schema", None)
    if schema == SCHEMA:
        return document
    if isinstance(schema, int) and schema > SCHEMA:
        raise FormatError(
            f"{path} is a newer edgellm's: its schema is {quoted(schema)}, and not {SCHEMA}",
            hint="update edgellm",
        )
    raise FormatError(f"{path} holds no records of edgellm bench")
