"""Tables of records, and the settings that they show, as HTML."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from edgellm.bench.records.differences import short_model
from edgellm.bench.records.record import Record
from edgellm.bench.tables.text_tables import Column, megabytes, show_cells, show_value
from edgellm.pages.elements import table

SETTING_TEXTS: Mapping[str, Callable[[Any], str]] = {
    "model": short_model,
    "memory_bytes": megabytes,
}
"""Settings that are not shown as they are, and how they are shown."""


def records_table(records: Sequence[Record], columns: Mapping[str, Column]) -> str:
    """Return a table with a row for each record, its model without folders."""
    named = (replace(record, model=short_model(record.model)) for record in records)
    return table(list(columns), [show_cells(record, columns) for record in named])


def setting_columns(names: Iterable[str]) -> dict[str, Column]:
    """Return columns that show settings."""
    return {name.removesuffix("_bytes"): (name, SETTING_TEXTS.get(name, str)) for name in names}


def setting_text(record: Record, name: str) -> str:
    """Return a setting of a record as tables show it; ``-`` where it has none."""
    return show_value(record.get(name), SETTING_TEXTS.get(name, str))
