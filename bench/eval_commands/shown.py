"""Evaluations on the screen: tables, what they show in sentences, and a picture."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgellm.bench import command_options as common
from edgellm.bench.tables.narrow_tables import cluster_lines, doubt_lines
from edgellm.bench.tables.text_tables import as_json
from edgellm.console.terminal import note, write_line

if TYPE_CHECKING:
    from edgellm.bench.records.evaluation import EvaluationRecord


def show_evaluations(
    records: Sequence[EvaluationRecord], *, json: bool, wide: bool = False
) -> None:
    """Write records to standard output: a JSON document, or tables and what they show."""
    if json:
        write_line(as_json(records))
        return
    from edgellm.bench.tables.evaluation_picture import evaluation_picture
    from edgellm.bench.tables.evaluation_runs import compared_runs
    from edgellm.bench.tables.evaluation_sentences import evaluation_lines
    from edgellm.bench.tables.evaluation_tables import evaluation_tables

    tasks = compared_runs(records)
    if not tasks:
        return
    width = common.table_width()
    parts = [
        evaluation_tables(tasks, width=None if wide else width, wide=wide),
        "\n".join(evaluation_lines(tasks, width=width)),
        evaluation_picture(tasks, width=width, plain=_is_plain()),
    ]
    write_line("\n\n".join(filter(None, parts)))
    for line in [*cluster_lines(records), *doubt_lines(records, width=width)]:
        note(line)


def _is_plain() -> bool:
    """Return whether standard output has no letters but ASCII's."""
    try:
        "│┼─└·".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return True
    return False
