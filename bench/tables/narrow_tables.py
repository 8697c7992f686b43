"""Tables that fit a number of columns, and what is said below them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from textwrap import wrap
from typing import Any

from edgellm.bench.records.differences import short_model
from edgellm.bench.records.record import Record
from edgellm.bench.tables.text_tables import Column, Row, aligned, megabytes, percent, show_cells

FIRST_TO_GO = (
    *("learned", "before"),
    *("J/token", "GB/s", "p99", "of", "pinned", "same text", "peak", "step p50", "tokens"),
    *("score", "first token", "change", "disk GB/s", "same first", "seconds", "s/token"),
    *("counted by", "E2E p95", "TPOT p50", "E2E p99", "TTFT p95", "ITL p95", "client"),
    *("E2E p50", "requests/s", "ITL p50"),
    *("±", "of roofline", "read per token", "KL", "bits"),
    *("CPU s", "loss before", "gradients", "optimizer", "s/step"),
)
"""Columns that are left out where a table is too wide: the first of them first."""

SHORT_MODEL = 20
"""Letters of a model's name where a table is too wide."""

SHORTEST_CELL = 10
"""Letters that are left of a long text."""


def fitting_table(
    records: Sequence[Record], columns: Mapping[str, Column], *, width: int | None
) -> tuple[str, list[str]]:
    """Return a table of records, and the columns that it has no room for.

    Failures are left to the lines below. Models are named without folders where that leaves them
    apart.

    Args:
        records: a line each.
        columns: all that could be shown.
        width: letters of a line; None: as many as it takes.
    """
    rows = [replace(record, error=None) for record in _short_models(records)]
    shown = dict(columns)
    if width is not None:
        if table_width(rows, shown) > width:
            rows = _renamed(rows, shortened_model)
        for name in FIRST_TO_GO:
            if table_width(rows, shown) <= width:
                break
            shown.pop(name, None)
    lines = [list(shown), *(show_cells(row, shown) for row in rows)]
    if width is not None:
        lines = cut(lines, width)
    return "\n".join(aligned(lines)), [name for name in columns if name not in shown]


def table_width(rows: Sequence[Row], columns: Mapping[str, Column]) -> int:
    """Return the letters of a table's lines."""
    lines = [list(columns), *(show_cells(row, columns) for row in rows)]
    return max(map(len, aligned(lines)))


def doubt_lines(records: Sequence[Record], *, width: int) -> list[str]:
    """Return a line for each reason to doubt figures, with the records that it is about."""
    about: dict[str, dict[str, None]] = {}
    for record in _short_models(records):
        for doubt in record.doubts:
            test = record.get("task") or f"{record.backend} {record.test}"
            name = f"{test}, {record.model}"
            about.setdefault(doubt.reason, {})[name] = None
    return [
        line
        for reason, names in about.items()
        for line in wrap(f"! {reason} ({'; '.join(names)})", width, subsequent_indent="  ")
    ]


def name_lines(records: Sequence[Record]) -> list[str]:
    """Return what the tests of some records are: ``pp128`` is a prompt of 128 tokens."""
    return [f"{name}: {meaning}" for name, meaning in meanings_of_tests(records).items()]


def cluster_lines(records: Sequence[Record]) -> list[str]:
    """Return a line for each of several machines, and one for each link, as measured first."""
    lines: dict[str, str] = {}
    for record in records:
        for machine in record.machines:
            named = f"{record.split} {machine.get('name')}"
            lines.setdefault(named, machine_sentence(record, machine))
        for link in record.links:
            name = f"{link.get('first')} to {link.get('second')}"
            lines.setdefault(name, f"{name}: {link_sentence(link)}")
    return list(lines.values())


def machine_sentence(record: Record, machine: Mapping[str, Any]) -> str:
    """Return one of several machines in words, with its part of the model."""
    parts = [str(machine.get("chip"))]
    for key, words in (("memory_bytes", "of memory"), ("budget_bytes", "budget")):
        if machine.get(key):
            parts.append(f"{megabytes(machine[key])} {words}")
    share, layers = percent(machine.get("share") or 0.0), machine.get("layers")
    layers = f"{layers} layer" if layers == 1 else f"{layers} layers"
    part = f"{layers}, {share} of all"
    if record.split == "rows":
        part = f"{share} of the rows of {layers}"
    return f"{machine.get('name')}: {', '.join(parts)}; {part}"


def link_sentence(link: Mapping[str, Any]) -> str:
    """Return how fast a link between two machines is, in words."""
    parts = []
    if link.get("round_trip_seconds"):
        parts.append(f"{1000 * link['round_trip_seconds']:.2f} ms there and back")
    if link.get("bytes_per_second"):
        parts.append(f"{link['bytes_per_second'] / 1e6:,.0f} MB/s")
    return ", ".join(parts)


def meanings_of_tests(records: Sequence[Record]) -> dict[str, str]:
    """Return each test's name with what it measures in words."""
    meanings = {}
    for record in records:
        name, _, depth = record.test.partition(" @ d")
        kind, count = name[:2], name[2:]
        if kind not in {"pp", "tg"} or not count.isdecimal():
            continue
        meaning = f"a prompt of {int(count):,} tokens"
        if kind == "tg":
            meaning = f"{int(count):,} tokens generated"
        if depth.isdecimal():
            meaning += f" after {int(depth):,} others"
        meanings[record.test] = meaning
    return meanings


def _short_models(records: Sequence[Record]) -> list[Record]:
    return _renamed(records, short_model)


def _renamed(records: Sequence[Record], rename: Callable[[str], str]) -> list[Record]:
    """Return records with other names of their models, where these tell them apart too."""
    names = {record.model: rename(record.model) for record in records}
    if len(set(names.values())) < len(names):
        return list(records)
    return [replace(record, model=names[record.model]) for record in records]


def shortened_model(name: str) -> str:
    """Return a name without its middle: the end often tells the bits."""
    if len(name) <= SHORT_MODEL:
        return name
    return f"{name[: SHORT_MODEL - 10]}…{name[-9:]}"


def cut(lines: list[list[str]], width: int) -> list[list[str]]:
    """Return cells, the longest ones cut until the lines fit."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    too_wide = sum(widths) + 2 * (len(widths) - 1) - width
    while too_wide > 0 and max(widths) > SHORTEST_CELL:
        place = widths.index(max(widths))
        taken = min(too_wide, widths[place] - SHORTEST_CELL)
        widths[place] -= taken
        too_wide -= taken
    return [
        [_shortened(cell, most) for cell, most in zip(line, widths, strict=True)] for line in lines
    ]


def _shortened(cell: str, most: int) -> str:
    if len(cell) <= most:
        return cell
    return f"{cell[: most - 1]}…"
