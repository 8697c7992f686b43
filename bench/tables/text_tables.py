"""Show records as text: aligned columns, CSV, JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from edgellm.bench.records.backend_names import OWN
from edgellm.bench.records.differences import flatten
from edgellm.bench.records.doubts import MAX_SHARE, MAX_SPREAD
from edgellm.bench.records.record import SCHEMA, Record, quotient
from edgellm.bench.records.training import TrainingRecord
from edgellm.console.units import count, size

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


DISK_COLUMNS: Mapping[str, Column] = {
    "threads": ("threads", str),
    "piece": ("chunk_bytes", megabytes),
    "GB/s": ("raw_read_gbps", number(2)),
    "past the cache": ("direct_reads", yes_or_no),
}
PAGING_COLUMNS: Mapping[str, Column] = {
    "budget": ("memory_bytes", megabytes),
    "pinned": ("pinned_layers", str),
    "of": ("layers", str),
    "read per token": ("bytes_per_token", megabytes),
    "disk GB/s": ("raw_read_gbps", number(2)),
    "s/token": ("seconds_per_token", number(3)),
    "tokens/s": ("tokens_per_second", number(2)),
    "efficiency": ("efficiency", doubted(number(3), MAX_SHARE)),
    "±": ("spread", doubted(percent, MAX_SPREAD)),
    "peak": ("peak_rss_bytes", megabytes),
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
    "±": ("spread", doubted(percent, MAX_SPREAD)),
    "first token": ("time_to_first_token", seconds),
    "step p50": ("step_p50", seconds),
    "p99": ("step_p99", seconds),
    "GB/s": ("achieved_gbps", number(1)),
    "of roofline": ("roofline_share", doubted(percent, MAX_SHARE)),
    "J/token": ("joules_per_token", lambda value: f"{value:.3g}"),
    "peak": ("peak_memory_bytes", megabytes),
}
WHERE_DIFFERENT = ("model", "bits", "threads", "batch", "budget")
"""Columns of speeds that are shown only where records differ in them."""

WHERE_KNOWN = ("first token", "step p50", "p99", "GB/s", "of roofline", "J/token", "±")
"""Columns of speeds that are shown only where a record has something in them."""


def speed_columns(records: Sequence[Row]) -> dict[str, Column]:
    """Return the columns that tell these records apart, and those of figures that are there."""

    def is_shown(name: str, key: str) -> bool:
        values = {str(record.get(key)) for record in records}
        if name == "bits":
            values.discard("None")  # of a model that could not be opened
        if name in WHERE_DIFFERENT:
            return len(values) > 1
        if name in WHERE_KNOWN:
            return values != {"None"}
        return True

    return {name: column for name, column in SPEED_COLUMNS.items() if is_shown(name, column[0])}


TRAINING_COLUMNS: Mapping[str, Column] = {
    "backend": ("backend", str),
    "technique": ("test", str),
    "learned": ("numbers", count),
    "pinned": ("pinned_layers", str),
    "of": ("layers", str),
    "weights": ("weight_bytes", size),
    "activations": ("activation_bytes", size),
    "gradients": ("gradient_bytes", size),
    "optimizer": ("optimizer_bytes", size),
    "before": ("start_bytes", size),
    "peak memory": ("peak_memory_bytes", size),
    "s/step": ("median_seconds", number(3)),
    "CPU s": ("median_cpu_seconds", number(3)),
    "±": ("spread", doubted(percent, MAX_SPREAD)),
    "tokens/s": ("tokens_per_second", throughput),
    "loss before": ("loss_before", number(4)),
    "after": ("loss_after", number(4)),
}


def training_columns(records: Sequence[Row]) -> dict[str, Column]:
    """Return the columns of training; those of layers only where some of them are not in memory."""
    columns = dict(TRAINING_COLUMNS)
    if not any(_is_paged(record) for record in records):
        del columns["pinned"], columns["of"]
    return columns


def training_sentences(records: Sequence[TrainingRecord]) -> list[str]:
    """Return how edgellm's first record of each method compares with every other library's."""
    own: dict[tuple[str, str], TrainingRecord] = {}
    for record in records:
        if record.backend == OWN and not record.error:
            own.setdefault((record.model, record.method), record)
    sentences = []
    for record in records:
        ours = own.get((record.model, record.method))
        if ours is None or record.backend == OWN or record.error:
            continue
        pace = quotient(ours.tokens_per_second, record.tokens_per_second)
        peak = quotient(ours.peak_memory_bytes, record.peak_memory_bytes)
        if pace and peak:
            sentences.append(
                f"{ours.test}: {OWN} has {pace:.2f} times the tokens/s and {peak:.2f} times the "
                f"peak of {record.backend}, {record.test}"
            )
    return sentences


def _is_paged(record: Row) -> bool:
    pinned = record.get("pinned_layers")
    return pinned is not None and pinned < record.get("layers")


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
        return " ".join(map(str, value))
    return value
