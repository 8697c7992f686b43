"""Records as markdown: tables, what they show in sentences, and where they were measured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from edgellm.bench.records.evaluation import EvaluationRecord
from edgellm.bench.records.record import Record
from edgellm.bench.tables.columns import COLUMNS, SENTENCES
from edgellm.bench.tables.narrow_tables import cluster_lines
from edgellm.bench.tables.text_tables import Column, show_cells


def as_markdown(records: Sequence[Record]) -> str:
    """Return a table for each kind of record and each task, and where they were measured."""
    by_kind: dict[str, list[Record]] = defaultdict(list)
    evaluations = []
    for record in records:
        if isinstance(record, EvaluationRecord):
            evaluations.append(record)
        else:
            by_kind[record.KIND].append(record)
    blocks = []
    for kind, group in by_kind.items():
        if len(by_kind) > 1:
            blocks.append(f"## {kind.capitalize()}")
        blocks.append(_table(_lines(group, COLUMNS[kind](group))))
        if kind in SENTENCES:
            blocks += _list(SENTENCES[kind](group))
    blocks += _evaluation_blocks(evaluations)
    machines = dict.fromkeys(_machine_sentence(record.environment) for record in records)
    blocks += _list([*machines, *cluster_lines(records)])
    return "\n\n".join(["# edgellm bench", *blocks])


def _lines(records: Sequence[Record], columns: Mapping[str, Column]) -> list[list[str]]:
    """Return heads and cells; models where they differ, and reasons where any has failed."""
    shown = dict(columns)
    if "model" not in shown and len({record.model for record in records}) > 1:
        shown = {"model": ("model", str), **shown}
    if any(record.error for record in records):
        shown["what went wrong"] = ("error", str)
    return [list(shown), *(show_cells(record, shown) for record in records)]


def _evaluation_blocks(records: Sequence[EvaluationRecord]) -> list[str]:
    """Return a heading, a table and sentences for each task, and why runs failed."""
    if not records:
        return []
    # with numpy, which speeds do not need
    from edgellm.bench.tables.evaluation_runs import compared_runs
    from edgellm.bench.tables.evaluation_sentences import task_sentences
    from edgellm.bench.tables.evaluation_tables import (
        cells_of,
        cost_columns,
        heading,
        quality_columns,
    )

    blocks = []
    for task, runs in compared_runs(records).items():
        lines = cells_of(runs, quality_columns(runs) | cost_columns())
        title = f"## {_escape(heading(task, runs))}"
        blocks += [title, _table(lines), *_list(task_sentences(runs))]
    failed = [f"{one.model}, {one.task}: {one.error}" for one in records if one.error]
    return [*blocks, *_list(failed)]


def _list(sentences: Sequence[str]) -> list[str]:
    """Return a block of sentences; no block without any."""
    if not sentences:
        return []
    return ["\n".join(f"- {_escape(sentence)}" for sentence in sentences)]


def _table(lines: Sequence[Sequence[str]]) -> str:
    rule = ["---"] * len(lines[0])
    return "\n".join(
        "| " + " | ".join(map(_escape, line)) + " |" for line in (lines[0], rule, *lines[1:])
    )


def _machine_sentence(environment: Mapping[str, Any]) -> str:
    parts = [f"{environment.get('chip')}", f"{environment.get('cores')} cores"]
    if environment.get("memory_bytes"):
        parts.append(f"{environment['memory_bytes'] / 1e9:.0f} GB")
    parts.append(f"{environment.get('system')}")
    packages = environment.get("packages", {})
    versions = [f"{name} {version}" for name, version in packages.items() if version]
    return f"{', '.join(parts)}; {', '.join(versions)}"


def _escape(text: str) -> str:
    """Return text that stays in its cell of a table, and is not taken for HTML."""
    return " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace("|", "&#124;")
