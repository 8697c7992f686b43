"""Evaluations on the screen: a table, and what it shows in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgellm.bench import command_options as common
from edgellm.bench.tables.text_tables import Column, as_json
from edgellm.console.terminal import write_line

if TYPE_CHECKING:
    from edgellm.bench.records.evaluation import EvaluationRecord


def show_evaluations(
    records: Sequence[EvaluationRecord], *, json: bool, wide: bool = False
) -> None:
    """Write records to standard output: a JSON document, or a table and what it shows."""
    if json:
        write_line(as_json(records))
        return
    columns: dict[str, Column] = {
        "task": ("task", str),
        "model": ("model", str),
        "score": ("score", "{:.4f}".format),
        "questions/s": ("questions_per_second", "{:.1f}".format),
    }
    common.print_records(records, columns, json=False, wide=wide)
