"""Rows of a file: JSON objects, one a line or in a list, or plain text documents."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgellm.errors import ConfigError, EdgeLLMError, FormatError
from edgellm.files.bounded import read_bounded
from edgellm.files.given_path import given_path
from edgellm.files.strict_json import parse_json, quoted
from edgellm.row_files.problems import BadRow, Problems

MAX_BYTES = 512 << 20
"""Bytes of a file."""

MAX_ITEMS = 20_000_000
"""Values of one row; all of SQuAD can be one object."""

DOCUMENT_END = "<|endoftext|>"
"""Between the documents of a plain text file."""

BLANK = " \t\r\n"
"""Characters between values of JSON."""

TEXT_SUFFIXES = {".txt", ".text", ".md"}

PACKED = {
    b"PAR1": (
        "is a Parquet file",
        "make JSON lines of it: python -c \"import pandas; pandas.read_parquet('FILE.parquet')"
        ".to_json('FILE.jsonl', orient='records', lines=True)\"",
    ),
    b"\x1f\x8b": ("is packed with gzip", "unpack it: gunzip FILE.jsonl.gz"),
    b"\x28\xb5\x2f\xfd": ("is packed with zstd", "unpack it: zstd -d FILE.jsonl.zst"),
    b"PK\x03\x04": ("is a zip archive", "unpack it, and name the file in it"),
    b"ARROW1": ("is an Arrow file", "save it as JSON lines: Dataset.to_json('FILE.jsonl')"),
    codecs.BOM_UTF16_LE: ("is UTF-16 text", "save it as UTF-8"),
    codecs.BOM_UTF16_BE: ("is UTF-16 text", "save it as UTF-8"),
}
"""First bytes of files that are not lines of JSON: the fact and the next step."""

CSV_HINT = (
    'make JSON lines of it: python -c "import csv, json, sys; '
    '[print(json.dumps(row)) for row in csv.DictReader(sys.stdin)]" < FILE.csv > FILE.jsonl'
)


@dataclass(frozen=True, slots=True)
class Row:
    """The fields of one row, and the line that it begins in, from 1."""

    line: int
    fields: Mapping[str, Any]


def read_rows(path: str | Path, example: str) -> list[Row]:
    """Return the rows of a file.

    Args:
        path: of the file.
        example: of a row, for hints: ``{"text": "..."}``.

    Raises:
        ConfigError: nothing there can be read, it is a folder, or it holds no row.
        FormatError: it is of another format, or has lines that are no JSON objects; says which.
    """
    found = given_path(path)
    hint = f"write one JSON object per line, such as {example}"
    if found.is_dir():
        inside = ", ".join(sorted(file.name for file in found.glob("*.json*"))[:5])
        raise ConfigError(
            f"{found} is a folder, not a file of rows",
            hint=f"name a file in it: {inside or 'none'}",
        )
    if not found.exists():
        raise ConfigError(f"there is no file {found}", hint="check how its name is written")
    data = read_bounded(found, MAX_BYTES)
    for mark, (fact, way) in PACKED.items():
        if data.startswith(mark):
            raise FormatError(f"{found} {fact}", hint=way)
    data = data.removeprefix(codecs.BOM_UTF8)
    reader = _Reader(found, data, hint)
    if found.suffix.lower() in TEXT_SUFFIXES:
        rows = list(reader.documents())
    elif data.lstrip()[:1] == b"[":
        rows = reader.listed()
    else:
        rows = reader.lines()
    if not rows:
        raise ConfigError(f"{found} holds no row", hint=hint)
    return rows


@dataclass(frozen=True, slots=True)
class _Reader:
    """The bytes of a file, and what hints say of its rows."""

    path: Path
    data: bytes
    hint: str

    def lines(self) -> list[Row]:
        """Return a row for each line that is not blank."""
        # bytes.splitlines would do too; str.splitlines also ends lines inside JSON texts
        lines = [
            (number, line) for number, line in enumerate(self.data.split(b"\n"), 1) if line.strip()
        ]
        if lines:
            _refuse_tables(self.path, lines)
        if lines and _begins_an_object(lines[0][1]):
            whole = self._objects()
            if whole is not None:
                return whole
        rows = []
        problems = Problems(self.path)
        for number, line in lines:
            try:
                rows.append(Row(number, self._object(line)))
            except BadRow as problem:
                problems.add(number, problem)
        problems.raise_found()
        return rows

    def _objects(self) -> list[Row] | None:
        """Return a row for each object of objects that have several lines; None: it is not so.

        It is so once one that has several lines is whole. Raises FormatError for what follows.
        """
        try:
            text = self.data.decode("utf-8")
        except UnicodeDecodeError:
            return None  # whose line is told
        decoder = json.JSONDecoder()
        rows: list[Row] = []
        place, counted, line = 0, 0, 1
        is_so = False
        while True:
            while place < len(text) and text[place] in BLANK:
                place += 1
            if place == len(text):
                return rows
            line += text.count("\n", counted, place)
            counted = place
            try:
                _, end = decoder.raw_decode(text, place)
                rows.append(Row(line, self._object(text[place:end].encode())))
            except (ValueError, RecursionError) as error:
                if not is_so:
                    return None
                problems = Problems(self.path)
                problems.add(line, self._as_problem(error))
                problems.raise_found()
            is_so = is_so or "\n" in text[place:end]
            place = end

    def listed(self) -> list[Row]:
        """Return the rows of a JSON list, each with the line that it begins in."""
        text = self._decoded()
        decoder = json.JSONDecoder()
        problems = Problems(self.path)
        rows = []
        place, line = text.index("[") + 1, 1
        counted = 0
        while True:
            while place < len(text) and text[place] in f"{BLANK},":
                place += 1
            line += text.count("\n", counted, place)
            counted = place
            if place == len(text) or text[place] == "]":
                break
            try:
                _, end = decoder.raw_decode(text, place)
                rows.append(Row(line, self._object(text[place:end].encode())))
            except (ValueError, RecursionError) as error:
                problems.add(line, self._as_problem(error))
                problems.raise_found()
            place = end
        problems.raise_found()
        if place == len(text):
            raise FormatError(f"{self.path}, line {line}: the list does not end", hint=self.hint)
        return rows

    def documents(self) -> Iterator[Row]:
        """Yield a row for each document that is not blank."""
        line = 1
        for document in self._decoded().split(DOCUMENT_END):
            begin = len(document) - len(document.lstrip())
            if document.strip():
                yield Row(line + document.count("\n", 0, begin), {"text": document.strip("\r\n")})
            line += document.count("\n")

    def _object(self, line: bytes) -> dict[str, Any]:
        try:
            return parse_json(line, "the row", max_bytes=MAX_BYTES, max_items=MAX_ITEMS)
        except EdgeLLMError as error:
            place = _not_utf8(line)
            if place is not None:
                fact = f"the row is not UTF-8 at byte {place + 1}"
                raise BadRow(fact, hint="save it as UTF-8") from error
            raise BadRow(error.message, hint=self.hint) from error

    def _as_problem(self, error: Exception) -> BadRow:
        if isinstance(error, BadRow):
            return error
        return BadRow(f"the row is not valid JSON: {error}", hint=self.hint)

    def _decoded(self) -> str:
        try:
            return self.data.decode("utf-8")
        except UnicodeDecodeError as error:
            line = self.data.count(b"\n", 0, error.start) + 1
            raise FormatError(
                f"{self.path}, line {line} is not UTF-8", hint="save it as UTF-8"
            ) from error


def _not_utf8(line: bytes) -> int | None:
    """Return the place of the first byte that is not UTF-8; None where all are."""
    try:
        line.decode()
    except UnicodeDecodeError as error:
        return error.start
    return None


def _begins_an_object(line: bytes) -> bool:
    """Return whether a line begins an object that it does not end."""
    if not line.lstrip().startswith(b"{"):
        return False
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return True
    return False


def _refuse_tables(path: Path, lines: list[tuple[int, bytes]]) -> None:
    """Refuse CSV, whose first line names columns."""
    first = lines[0][1].lstrip()
    is_named_so = path.suffix.lower() in {".csv", ".tsv"}
    has_columns = any(mark in first for mark in (b",", b"\t", b";"))
    has_objects = any(line.lstrip().startswith(b"{") for _, line in lines[:2])
    if is_named_so or (has_columns and not has_objects):
        shown = quoted(first.decode("utf-8", "replace").strip())
        raise FormatError(
            f"{path}, line {lines[0][0]} is {shown}: a table, not lines of JSON", hint=CSV_HINT
        )
