"""Records as text. A writer is a function of records and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .record import SCHEMA, Record

Column = tuple[str, Callable[[Any], str]]
"""A key of ``Record.as_dict``, and how its values are shown."""


def megabytes(value: Any) -> str:
    """Bytes as ``1,234 MB``."""
    return f"{value / 1e6:,.0f} MB"


def number(digits: int) -> Callable[[Any], str]:
    """Show a number with so many digits behind the point."""
    return lambda value: f"{value:,.{digits}f}"


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


def as_json(records: Sequence[Record]) -> str:
    """One JSON document."""
    return json.dumps({"schema": SCHEMA, "records": [record.as_dict() for record in records]}, indent=2, allow_nan=False)


def as_table(records: Sequence[Record | Mapping[str, Any]], columns: Mapping[str, Column]) -> str:
    """Lines of aligned columns; a record that failed says why in its line. Records may come as dictionaries, with more keys."""
    heads = list(columns)
    lines, failures = [heads], dict[int, str]()
    for record in records:
        found = record.as_dict() if isinstance(record, Record) else record
        lines.append(["-" if found[key] is None else show(found[key]) for key, show in columns.values()])
        if found["error"] is not None:
            failures[len(lines) - 1] = found["error"]
    widths = [max(len(line[place]) for line in lines) for place in range(len(heads))]
    shown = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    return "\n".join(line + (f"  {failures[place]}" if place in failures else "") for place, line in enumerate(shown))
