"""The section of a report on evaluations: what fewer bits cost, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgellm.bench.metrics.table import METRICS
from edgellm.bench.records.differences import counted
from edgellm.bench.records.evaluation import EvaluationRecord
from edgellm.bench.records.record import Record
from edgellm.bench.report.evaluation_panels import (
    SIGNS,
    cells_table,
    quality_panel,
    shots_panels,
    time_panels,
)
from edgellm.bench.report.parts.interval_plot import interval_legend
from edgellm.bench.tables.evaluation_runs import ComparedRun, compared_runs, differing_settings
from edgellm.bench.tables.evaluation_sentences import count_sentences
from edgellm.bench.tables.evaluation_tables import (
    cost_columns,
    detail_columns,
    metric_names,
    quality_columns,
)
from edgellm.bench.tables.evaluation_values import title_of
from edgellm.pages.elements import (
    bullets,
    definitions,
    details,
    panel,
    panels,
    quotation,
    section,
    soft,
)

NOTE = (
    "All models were asked the same questions, and each is compared with the first question by "
    "question. Behind a change stands its 95% interval."
)
DECODING_COLUMNS = ("distinct_2", "repetition", "reference_logprob", "rating", "length")


def evaluation_section(records: Sequence[Record]) -> str:
    """Return what was seen of each task, in words and plots; nothing where there is none."""
    tasks = compared_runs(records)
    if not tasks:
        return ""
    quality = [quality_panel(task, runs) for task, runs in tasks.items()]
    legend = ""
    if any("<svg" in one for one in quality):
        legend = interval_legend(SIGNS)
    parts = [
        legend,
        panels(quality),
        panels([*shots_panels(tasks), *time_panels(tasks)]),
        *(_decoding_panel(task, runs) for task, runs in tasks.items()),
        *(_all_metrics(task, runs) for task, runs in tasks.items()),
        details("what each metric is", definitions(_definitions(tasks))),
        *(_how_it_was_asked(task, runs) for task, runs in tasks.items()),
    ]
    return section("How good are the answers?", *filter(None, parts), note=NOTE)


def _decoding_panel(task: str, runs: Sequence[ComparedRun]) -> str:
    """Return how ways to decode compare; nothing where there is one alone."""
    if "decoding" not in differing_settings(runs):
        return ""
    columns = quality_columns(runs)
    chosen = {name: columns[name] for name in ("model", "decoding")}
    details_of = detail_columns(runs)
    names = [title_of(name) for name in DECODING_COLUMNS]
    chosen |= {title_of(runs[0].headline): columns[title_of(runs[0].headline)]}
    chosen |= {name: details_of[name] for name in names if name in details_of}
    chosen |= cost_columns()
    return panel(f"{task}: ways to decode", cells_table(runs, chosen))


def _all_metrics(task: str, runs: Sequence[ComparedRun]) -> str:
    columns = quality_columns(runs) | detail_columns(runs) | cost_columns(wide=True)
    counted = count_sentences(runs, by="name")
    return details(
        f"{task}: all figures of all {len(runs)} runs",
        cells_table(runs, columns) + bullets(counted),
    )


def _definitions(tasks: Mapping[str, Sequence[ComparedRun]]) -> list[tuple[str, str]]:
    names = dict.fromkeys(name for runs in tasks.values() for name in metric_names(runs))
    return [(METRICS[name].title, METRICS[name].definition) for name in names if name in METRICS]


def _how_it_was_asked(task: str, runs: Sequence[ComparedRun]) -> str:
    """Return the first question and the examples as shown, and how libraries computed metrics."""
    texts: dict[str, str] = {}
    signatures: dict[str, None] = {}  # a set that stays in order
    for record in (run.record for run in runs):
        if record.first_prompt:
            texts.setdefault(_first_question(record), "the first question")
        if record.shot_text:
            name = "what stands in front of it"
            if record.shots:
                name = f"{counted(record.shots, 'example')} in front of it, draw {record.shot_seed}"
            texts.setdefault(record.shot_text, name)
        for name, signature in record.signatures.items():
            signatures[f"{title_of(name)}: {signature}"] = None
    parts = [soft(name) + quotation(text) for text, name in texts.items()]
    asked = "".join([*parts, bullets(signatures)])
    if not asked:
        return ""
    return details(f"{task}: how it was asked", asked)


def _first_question(record: EvaluationRecord) -> str:
    """Return a question and its options, each on a line of its own."""
    options = [f"- {option.strip()}" for option in record.first_options]
    return "\n".join([record.first_prompt or "", *options])
