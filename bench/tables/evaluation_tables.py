"""Evaluations as tables for a terminal: quality beside its cost, a table a task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from edgellm.bench.metrics.table import METRICS
from edgellm.bench.records.differences import counted
from edgellm.bench.records.evaluation import EvaluationRecord
from edgellm.bench.statistics.paired import PairedResult
from edgellm.bench.tables.evaluation_runs import SETTINGS, ComparedRun, differing_settings
from edgellm.bench.tables.evaluation_values import (
    LOWER,
    direction_of,
    interval_text,
    title_of,
    value_text,
)
from edgellm.bench.tables.narrow_tables import cut, shortened_model
from edgellm.bench.tables.text_tables import aligned, number, seconds, throughput

Cell = Callable[[ComparedRun], str | None]
"""A column: its text for a run; None where it has nothing to show."""

TEXT = "text"
"""The kind of tasks whose texts are read, and not asked about."""

TEXT_METRICS = ("kl", "top1", "token_perplexity", "word_perplexity", "byte_perplexity")
"""The metrics of texts that one line has room for, besides bits per byte."""

JUDGED = "rating"
"""The metric of the judge, which is shown wherever one was asked."""

HEADS: Mapping[str, str] = {
    "kv_bits": "KV bits",
    "memory_bytes": "budget",
    "shot_seed": "examples",
    "device": "machine",
}
"""Heads of settings that are no words."""


def size_text(nbytes: float) -> str:
    """Return a size with two or three digits: ``3.9 MB``, ``14 MB``, ``4.01 GB``."""
    if nbytes >= 1e9:
        return f"{nbytes / 1e9:,.2f} GB"
    if nbytes >= 1e7:
        return f"{nbytes / 1e6:,.0f} MB"
    return f"{nbytes / 1e6:.1f} MB"


COST: Mapping[str, tuple[str, Callable[[Any], str]]] = {
    "asked/s": ("questions_per_second", throughput),
    "tokens/s": ("tokens_per_second", throughput),
    "first token": ("first_token_p50", seconds),
    "peak memory": ("peak_memory_bytes", size_text),
}
WIDE_COST: Mapping[str, tuple[str, Callable[[Any], str]]] = {
    "load": ("load_seconds", seconds),
    "read": ("bytes_read", size_text),
    "layer tokens": ("layer_tokens", number(0)),
    "head rows": ("head_rows", number(0)),
}


def evaluation_tables(
    tasks: Mapping[str, Sequence[ComparedRun]], *, width: int | None = None, wide: bool = False
) -> str:
    """Return a table for each task, or two where lines of one would be too long.

    Args:
        tasks: what ``compared_runs`` returns.
        width: letters of a line; None: as many as it takes.
        wide: whether every metric is shown.
    """
    return "\n\n".join(_of_task(task, runs, width, wide=wide) for task, runs in tasks.items())


def heading(task: str, runs: Sequence[ComparedRun]) -> str:
    """Return a task in words: its kind, questions, and how all of its runs were asked."""
    record = runs[0].record
    told: tuple[str, ...] = ("shots", "decoding")
    if record.task_kind == TEXT:
        told = ()
    same = [name for name in told if name not in differing_settings(runs)]
    asked = [SETTINGS[name](record.get(name)) for name in same if record.get(name) is not None]
    most = max(run.record.questions for run in runs)
    parts = [f"{record.task_kind}, {counted(most, asked_noun(record))}", *asked]
    return f"{task} ({', '.join(part for part in parts if part)})"


def asked_noun(record: EvaluationRecord) -> str:
    """Return what a task consists of: ``question``, or ``text``."""
    if record.task_kind == TEXT:
        return TEXT
    return "question"


def score_text(run: ComparedRun) -> str:
    """Return a score with its standard error: ``90.5 ± 2.1``."""
    text = value_text(run.headline, run.score)
    if run.standard_error is None:
        return text
    return f"{text} ± {value_text(run.headline, run.standard_error)}"


def change_cell(run: ComparedRun) -> str | None:
    """Return a run's difference from its reference, with its interval."""
    if run.is_reference:
        return None
    if run.refusal:
        return "not compared"
    if run.paired is None:
        return "the same answers"
    found = run.paired
    return interval_text(found.metric, found.difference, found.low, found.high)


def verdict_text(run: ComparedRun) -> str | None:
    """Return what a comparison says, in a word or two."""
    if run.paired is None:
        return None
    if not run.paired.is_seen:
        return "none seen"
    return run.paired.verdict


def metric_names(runs: Sequence[ComparedRun]) -> list[str]:
    """Return the metrics that any of the runs has, the headlines first."""
    names = [run.headline for run in runs]
    names += [name for run in runs for name in (*METRICS, *sorted(run.record.metrics))]
    return [
        name for name in dict.fromkeys(names) if any(name in run.record.metrics for run in runs)
    ]


def quality_columns(runs: Sequence[ComparedRun]) -> dict[str, Cell]:
    """Return what tells runs of a task apart, their scores, and how these differ."""
    settings = differing_settings(runs)
    if "bits" not in settings and runs[0].record.bits is not None:
        settings.insert(0, "bits")
    columns: dict[str, Cell] = {"model": lambda run: run.model}
    for name in settings:
        columns[HEADS.get(name, name.replace("_", " "))] = _setting(name)
    columns["size"] = lambda run: _shown(run.record.model_bytes, size_text)
    headline = runs[0].headline
    columns[title_of(headline)] = score_text
    firsts = [run.letter for run in runs if run.is_reference]
    against = "against the first"
    if len(firsts) == 1:
        against = f"against {firsts[0]}"
    columns[against] = change_cell
    columns["difference"] = verdict_text
    return columns


def cost_columns(*, wide: bool = False) -> dict[str, Cell]:
    """Return how fast and how large runs were."""
    figures = dict(COST)
    if wide:
        figures |= WIDE_COST
    return {head: _figure(name, show) for head, (name, show) in figures.items()}


def metric_columns(names: Iterable[str]) -> dict[str, Cell]:
    """Return metrics of runs."""
    return {title_of(name): _metric(name) for name in names}


def detail_columns(runs: Sequence[ComparedRun]) -> dict[str, Cell]:
    """Return every metric besides the headline, and what the comparison is made of."""
    names = [name for name in metric_names(runs) if name != runs[0].headline]
    columns = metric_columns(names)
    columns["better / worse"] = _paired(lambda found: f"{found.better} / {found.worse}")
    columns["p"] = _paired(lambda found: p_text(found.p))
    columns["p (Holm)"] = _paired(lambda found: p_text(found.p_holm))
    columns["right answer, nats"] = _right_logprob
    columns["cut"] = lambda run: str(run.record.cut)
    columns["ties"] = lambda run: str(run.record.ties)
    columns["skipped"] = lambda run: str(run.record.skipped)
    return columns


def cells_of(runs: Sequence[ComparedRun], columns: Mapping[str, Cell]) -> list[list[str]]:
    """Return heads and a line of cells for each run; columns that say nothing are left out.

    The first column is the letter of each run.
    """
    texts = {head: [cell(run) or "-" for run in runs] for head, cell in columns.items()}
    said = {head: column for head, column in texts.items() if set(column) - {"-", "0"}}
    lines = [
        [run.letter, *(column[number] for column in said.values())]
        for number, run in enumerate(runs)
    ]
    return [["", *said], *lines]


def p_text(p: float) -> str:
    """Return a probability that is seldom needed exactly."""
    if p < 0.0001:
        return "<0.0001"
    return f"{p:.2g}"


def _of_task(task: str, runs: Sequence[ComparedRun], width: int | None, *, wide: bool) -> str:
    quality, cost = quality_columns(runs), cost_columns(wide=wide)
    more: dict[str, Cell] = {}
    if runs[0].record.task_kind == TEXT:
        more = metric_columns(TEXT_METRICS)
    elif JUDGED in metric_names(runs) and runs[0].headline != JUDGED:
        more = metric_columns([JUDGED])
    if wide:
        more |= detail_columns(runs)
    title = heading(task, runs)
    if direction_of(runs[0].headline) == LOWER:
        title += f"; {LOWER}"
    tables = [cells_of(runs, quality | more | cost)]
    if width is not None and _width(tables[0]) > width:
        model, size = ({name: quality.pop(name)} for name in ("model", "size"))
        parts = filter(None, [quality, more, size | cost])
        tables = [cells_of(runs, model | part) for part in parts]
    texts = [_aligned(lines, width) for lines in tables]
    return "\n\n".join([f"{title}\n{texts[0]}", *texts[1:]])


def _aligned(lines: list[list[str]], width: int | None) -> str:
    """Return lines of cells as text: letters and models at the left, numbers below each other."""
    if width is not None:
        for shorter in (_without_bits, _with_short_models):
            if _width(lines) > width:
                lines = shorter(lines)
        lines = cut(lines, width)
    widest = max(len(line[1]) for line in lines)
    return "\n".join(aligned([[line[0], line[1].ljust(widest), *line[2:]] for line in lines]))


def _width(lines: Sequence[Sequence[str]]) -> int:
    return max(map(len, aligned(lines)))


def _with_short_models(lines: list[list[str]]) -> list[list[str]]:
    return [[line[0], shortened_model(line[1]), *line[2:]] for line in lines]


def _without_bits(lines: list[list[str]]) -> list[list[str]]:
    """Return the lines without bits, which the names of models mostly tell too."""
    if "bits" not in lines[0]:
        return lines
    place = lines[0].index("bits")
    return [[*line[:place], *line[place + 1 :]] for line in lines]


def _setting(name: str) -> Cell:
    def shown(run: ComparedRun) -> str | None:
        value = run.record.get(name)
        if value is None:
            return None
        if name == "memory_bytes":
            return size_text(value)
        if name == "chat":
            return SETTINGS[name](value)
        return str(value)

    return shown


def _figure(name: str, show: Callable[[Any], str]) -> Cell:
    return lambda run: _shown(run.record.get(name), show)


def _metric(name: str) -> Cell:
    return lambda run: _shown(run.record.metrics.get(name), lambda value: value_text(name, value))


def _paired(show: Callable[[PairedResult], str]) -> Cell:
    def shown(run: ComparedRun) -> str | None:
        if run.paired is None:
            return None
        return show(run.paired)

    return shown


def _right_logprob(run: ComparedRun) -> str | None:
    if run.paired is None or run.paired.right_logprob is None:
        return None
    change = run.paired.right_logprob
    return interval_text("right_logprob", change.difference, change.low, change.high)


def _shown(value: Any, show: Callable[[Any], str]) -> str | None:
    if value is None:
        return None
    return show(value)
