"""Records as text. A writer is a function of records and nothing else."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgellm.bench.records.record import SCHEMA, Record

Column = tuple[str, Callable[[Any], str]]
"""A key of ``Record.as_dict``, and how its values are shown."""

Rows = Sequence[Record | Mapping[str, Any]]
"""Records, or what ``Record.as_dict`` says of them."""


def megabytes(value: Any) -> str:
    """Bytes as ``1,234 MB``."""
    return f"{value / 1e6:,.0f} MB"


def number(digits: int) -> Callable[[Any], str]:
    """Show a number with so many digits behind the point."""
    return lambda value: f"{value:,.{digits}f}"


def seconds(value: float) -> str:
    """A time as people say it: ``3.2 ms``, ``1.40 s``."""
    return f"{1000 * value:.1f} ms" if value < 1 else f"{value:.2f} s"


def percent(value: float) -> str:
    """A share as ``37%``."""
    return f"{100 * value:.0f}%"


def throughput(value: float) -> str:
    """Tokens a second, with as many digits as mean something."""
    return f"{value:,.2f}" if value < 10 else f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"


DISK_COLUMNS: Mapping[str, Column] = {
    "threads": ("threads", str),
    "piece": ("chunk_bytes", megabytes),
    "GB/s": ("raw_read_gbps", number(2)),
    "past the cache": ("direct_reads", lambda value: "yes" if value else "no"),
}
PAGING_COLUMNS: Mapping[str, Column] = {
    "budget": ("memory_bytes", megabytes),
    "pinned": ("pinned_layers", str),
    "of": ("layers", str),
    "read a token": ("bytes_per_token", megabytes),
    "disk GB/s": ("raw_read_gbps", number(2)),
    "s/token": ("seconds_per_token", number(3)),
    "tokens/s": ("tokens_per_second", number(2)),
    "efficiency": ("efficiency", number(3)),
    "peak memory": ("peak_rss_bytes", megabytes),
}


QUERY_COLUMNS: Mapping[str, Column] = {
    "model": ("model", str),
    "bits": ("bits", str),
    "threads": ("threads", str),
    "question": ("number", str),
    "tokens": ("tokens", str),
    "seconds": ("median_seconds", number(2)),
    "tokens/s": ("tokens_per_second", number(1)),
    "score": ("score", number(1)),
    "answer begins": ("answer", lambda text: " ".join(text.split())[:40]),
}
SPEED_COLUMNS: Mapping[str, Column] = {
    "model": ("model", str),
    "backend": ("backend", str),
    "bits": ("bits", str),
    "threads": ("threads", str),
    "batch": ("batch", str),
    "budget": ("memory_bytes", megabytes),
    "test": ("test", str),
    "tokens/s": ("tokens_per_second", throughput),
    "±": ("spread", percent),
    "first token": ("time_to_first_token", seconds),
    "step p50": ("step_p50", seconds),
    "p99": ("step_p99", seconds),
    "GB/s": ("achieved_gbps", number(1)),
    "of roofline": ("roofline_share", percent),
    "J/token": ("joules_per_token", lambda value: f"{value:.3g}"),
    "peak": ("peak_memory_bytes", megabytes),
}
SETTINGS = ("model", "bits", "threads", "batch", "budget")
"""Columns of the speed table that it shows only where its lines differ."""

WHERE_KNOWN = ("first token", "step p50", "p99", "GB/s", "of roofline", "J/token", "±")
"""Columns that it shows only where a line has something in them."""


def speed_columns(records: Rows) -> dict[str, Column]:
    """The columns that tell these records apart, and those of figures that are there."""
    rows = as_rows(records)

    def shown(name: str, key: str) -> bool:
        values = {str(row.get(key)) for row in rows}
        return (
            len(values) > 1 if name in SETTINGS else values != {"None"} or name not in WHERE_KNOWN
        )

    return {name: column for name, column in SPEED_COLUMNS.items() if shown(name, column[0])}


def as_rows(records: Rows) -> list[dict[str, Any]]:
    """What every record says, as dictionaries."""
    return [record.as_dict() if isinstance(record, Record) else dict(record) for record in records]


def as_json(records: Rows) -> str:
    """One JSON document."""
    return json.dumps({"schema": SCHEMA, "records": as_rows(records)}, indent=2, allow_nan=False)


def as_csv(records: Rows) -> str:
    """A line a record, and a column for each thing that any of them says; what is nested has names with points."""
    rows = [_flat(row) for row in as_rows(records)]
    heads = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    lines = csv.DictWriter(text, heads)
    lines.writeheader()
    lines.writerows(rows)
    return text.getvalue().removesuffix("\r\n")


def as_markdown(records: Rows) -> str:
    """A table of the speeds, and where they were measured; other kinds of records are in the other formats."""
    rows = [row for row in as_rows(records) if row.get("kind") == "speed"]
    columns = speed_columns(rows)
    heads = [*columns, *(["what went wrong"] if any(row.get("error") for row in rows) else [])]
    lines = [heads, ["---"] * len(heads)]
    for row in rows:
        cells = [_cell(row, column) for column in columns.values()]
        lines.append([*cells, row.get("error") or ""] if len(heads) > len(cells) else cells)
    table = "\n".join("| " + " | ".join(map(_escaped, line)) + " |" for line in lines)
    places = list(dict.fromkeys(_place(row["environment"]) for row in rows))
    return "\n".join(
        ["# edgellm bench", "", table, "", *(f"- {_escaped(place)}" for place in places)]
    )


def as_table(records: Rows, columns: Mapping[str, Column]) -> str:
    """Lines of aligned columns; a record that failed says why in its line. Records may come as dictionaries, with more keys."""
    heads = list(columns)
    lines, failures = [heads], dict[int, str]()
    for found in as_rows(records):
        lines.append([_cell(found, column) for column in columns.values()])
        if found["error"] is not None:
            failures[len(lines) - 1] = found["error"]
    widths = [max(len(line[place]) for line in lines) for place in range(len(heads))]
    shown = [
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in lines
    ]
    return "\n".join(
        line + (f"  {failures[place]}" if place in failures else "")
        for place, line in enumerate(shown)
    )


def _cell(row: Mapping[str, Any], column: Column) -> str:
    key, show = column
    return "-" if row.get(key) is None else show(row[key])


def _flat(row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = (
                " ".join(map(str, value)) if isinstance(value, list | tuple) else value
            )
    return flat


def _place(environment: Mapping[str, Any]) -> str:
    cores, memory = environment.get("cores"), environment.get("memory_bytes")
    size = f", {memory / 1e9:.0f} GB" if memory else ""
    versions = [
        f"{name} {version}"
        for name, version in (environment.get("packages") or {}).items()
        if version
    ]
    return f"{environment.get('chip')}, {cores} cores{size}, {environment.get('system')}; {', '.join(versions)}"


def _escaped(text: str) -> str:
    """Text that stays in its cell of a markdown table, and is not taken for HTML."""
    return " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace("|", "&#124;")
