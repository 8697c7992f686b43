"""Show records as text: aligned columns, CSV, JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from edgellm.bench.records.differences import flatten
from edgellm.bench.records.record import SCHEMA, Record

Column = tuple[str, Callable[[Any], str]]
"""A field or derived figure of records, and how its values are shown."""


class Row(Protocol):
    """A line of a table: a record, or a dictionary of figures of several."""

    def get(self, name: str, /) -> Any:
        """Return the value of that name; None where there is none."""
        ...


def megabytes(value: Any) -> str:
    """Return bytes as ``1,234 MB``."""
    return f"{value / 1e6:,.0f} MB"


def number(digits: int) -> Callable[[float], str]:
    """Return a function that shows a number with this many digits behind the point."""
    return lambda value: f"{value:,.{digits}f}"


def seconds(value: float) -> str:
    """Return a time as people say it: ``3.2 ms``, ``1.40 s``."""
    if value < 1:
        return f"{1000 * value:.1f} ms"
    return f"{value:.2f} s"


def percent(value: float) -> str:
    """Return a fraction as ``37%``."""
    return f"{100 * value:.0f}%"


def doubted(show: Callable[[float], str], limit: float) -> Callable[[float], str]:
    """Return a function that shows a figure with ``!`` behind it where it is above a limit."""

    def marked(value: float) -> str:
        if value > limit:
            return f"{show(value)} !"
        return show(value)

    return marked


def throughput(value: float) -> str:
    """Return tokens per second, with as many digits as mean something."""
    if value < 10:
        return f"{value:,.2f}"
    if value < 1000:
        return f"{value:,.1f}"
    return f"{value:,.0f}"


def yes_or_no(value: object) -> str:
    """Return ``yes`` or ``no``."""
    if value:
        return "yes"
    return "no"


def as_json(records: Sequence[Record]) -> str:
    """Return one JSON document."""
    document = {"schema": SCHEMA, "records": [record.as_dict() for record in records]}
    return json.dumps(document, indent=2, allow_nan=False)


def as_csv(records: Sequence[Record]) -> str:
    """Return a line per record, and a column for each thing that any of them says.

    Nested values have names with points; lists are joined by spaces. Values of single questions
    are left out: json has them.
    """
    lines = [
        {name: _csv_cell(value) for name, value in flatten(_without_questions(record)).items()}
        for record in records
    ]
    heads = list(dict.fromkeys(name for line in lines for name in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, heads)
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue().removesuffix("\r\n")


def as_table(rows: Sequence[Row], columns: Mapping[str, Column]) -> str:
    """Return lines of aligned columns; a record that failed says why behind its line."""
    lines = aligned([list(columns), *(show_cells(row, columns) for row in rows)])
    failures = ["", *(_failure_behind(row.get("error")) for row in rows)]
    return "\n".join(line + failure for line, failure in zip(lines, failures, strict=True))


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Return lines of cells as text in columns, their ends below each other."""
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in lines
    ]


def show_cells(row: Row, columns: Mapping[str, Column]) -> list[str]:
    """Return what a row says in each column; ``-`` where it says nothing."""
    return [show_value(row.get(key), show) for key, show in columns.values()]


def show_value(value: Any, show: Callable[[Any], str]) -> str:
    """Return a value as ``show`` has it; ``-`` where there is none."""
    if value is None:
        return "-"
    return show(value)


def _failure_behind(error: str | None) -> str:
    if error is None:
        return ""
    return f"  {error}"


def _without_questions(record: Record) -> dict[str, Any]:
    left_out = record.get("BY_QUESTION") or ()
    return {name: value for name, value in record.as_dict().items() if name not in left_out}


def _csv_cell(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return " ".join(
            json.dumps(item) if isinstance(item, Mapping) else str(item) for item in value
        )
    return value
