"""Task files: JSON objects, one a line or in a list, or plain text documents."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgellm.bench.evaluation.tasks.rows.problems import BadRow, Problems
from edgellm.bench.evaluation.tasks.rows.squad import is_squad, squad_rows
from edgellm.errors import ConfigError, EdgeLLMError, FormatError
from edgellm.files.bounded import read_bounded
from edgellm.files.given_path import given_path
from edgellm.files.strict_json import parse_json, quoted

MAX_BYTES = 512 << 20
"""Bytes of a task file."""

MAX_ITEMS = 20_000_000
"""Values of one row; all of SQuAD can be one object."""

DOCUMENT_END = "<|endoftext|>"
"""Between the documents of a plain text file."""

TEXT_SUFFIXES = {".txt", ".text", ".md"}

ONE_OBJECT_A_LINE = 'write one JSON object per line, such as {"text": "...", "label": "..."}'

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


def read_rows(path: str | Path) -> list[Row]:
    """Return the rows of a task file.

    Raises:
        ConfigError: nothing there can be read, or it is a folder.
        FormatError: it is of another format, holds no row, or lines that are no JSON objects;
            says which.
    """
    found = given_path(path)
    if found.is_dir():
        inside = ", ".join(sorted(file.name for file in found.glob("*.json*"))[:5])
        raise ConfigError(
            f"{found} is a folder; a task is a file", hint=f"name a file in it: {inside or 'none'}"
        )
    if not found.exists():
        raise ConfigError(f"there is no task file {found}", hint="check how its name is written")
    data = read_bounded(found, MAX_BYTES)
    for mark, (fact, hint) in PACKED.items():
        if data.startswith(mark):
            raise FormatError(f"{found} {fact}", hint=hint)
    data = data.removeprefix(codecs.BOM_UTF8)
    if found.suffix.lower() in TEXT_SUFFIXES:
        rows = list(_documents(found, data))
    elif data.lstrip()[:1] == b"[":
        rows = _listed(found, data)
    else:
        rows = _lines(found, data)
    if len(rows) == 1 and is_squad(rows[0].fields):
        rows = [Row(rows[0].line, fields) for fields in squad_rows(rows[0].fields)]
    if not rows:
        raise FormatError(f"{found} holds no row", hint=ONE_OBJECT_A_LINE)
    return rows


def _lines(path: Path, data: bytes) -> list[Row]:
    # bytes.splitlines would do too; str.splitlines also ends lines inside JSON texts
    lines = [(number, line) for number, line in enumerate(data.split(b"\n"), 1) if line.strip()]
    if lines:
        _refuse_tables(path, lines)
    rows = []
    problems = Problems(path)
    for number, line in lines:
        try:
            rows.append(Row(number, _object(line)))
        except BadRow as problem:
            problems.add(number, problem)
    problems.raise_found()
    return rows


def _listed(path: Path, data: bytes) -> list[Row]:
    """Return the rows of a JSON list, each with the line that it begins in."""
    text = _decoded(path, data)
    decoder = json.JSONDecoder()
    problems = Problems(path)
    rows = []
    place, line = text.index("[") + 1, 1
    counted = 0
    while True:
        while place < len(text) and text[place] in " \t\r\n,":
            place += 1
        line += text.count("\n", counted, place)
        counted = place
        if place == len(text) or text[place] == "]":
            break
        try:
            _, end = decoder.raw_decode(text, place)
            rows.append(Row(line, _object(text[place:end].encode())))
        except (ValueError, RecursionError) as error:
            problems.add(line, _as_problem(error))
            problems.raise_found()
        place = end
    problems.raise_found()
    if place == len(text):
        raise FormatError(f"{path}, line {line}: the list does not end", hint=ONE_OBJECT_A_LINE)
    return rows


def _documents(path: Path, data: bytes) -> Iterator[Row]:
    line = 1
    for document in _decoded(path, data).split(DOCUMENT_END):
        begin = len(document) - len(document.lstrip())
        if document.strip():
            yield Row(line + document.count("\n", 0, begin), {"text": document.strip("\r\n")})
        line += document.count("\n")


def _object(line: bytes) -> dict[str, Any]:
    try:
        return parse_json(line, "the row", max_bytes=MAX_BYTES, max_items=MAX_ITEMS)
    except EdgeLLMError as error:
        raise BadRow(error.message, hint=ONE_OBJECT_A_LINE) from error


def _as_problem(error: Exception) -> BadRow:
    if isinstance(error, BadRow):
        return error
    return BadRow(f"the row is not valid JSON: {error}", hint=ONE_OBJECT_A_LINE)


def _decoded(path: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise FormatError(f"{path}, line {line} is not UTF-8", hint="save it as UTF-8") from error


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
