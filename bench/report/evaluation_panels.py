"""Plots of evaluations: quality over size, over time, and over examples."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from edgellm.bench.metrics.table import METRICS
from edgellm.bench.report.parts.interval_plot import Point, interval_plot
from edgellm.bench.tables.evaluation_pairs import apart_sentences
from edgellm.bench.tables.evaluation_picture import span_of
from edgellm.bench.tables.evaluation_runs import (
    ComparedRun,
    differing_settings,
    distinct_runs,
    frontier,
    sized_runs,
    telling_settings,
    words_of,
)
from edgellm.bench.tables.evaluation_sentences import (
    count_sentences,
    power_sentence,
    verdict_sentence,
)
from edgellm.bench.tables.evaluation_tables import (
    TEXT,
    TEXT_METRICS,
    Cell,
    cells_of,
    cost_columns,
    heading,
    metric_columns,
    metric_names,
    quality_columns,
)
from edgellm.bench.tables.evaluation_values import axis_title, axis_value
from edgellm.bench.tables.text_tables import throughput
from edgellm.pages.elements import bullets, definitions, details, panel, soft, table
from edgellm.pages.plots import Series, chart

SIGNS: Mapping[str, str] = {
    "area": "each point is a run; the larger its area, the more tokens per second",
    "across": "the score of the run that the others are compared with",
    "interval": "95% interval of the difference; where it crosses the dotted line, the difference "
    "may be chance",
    "line": "joins quantizations of one model",
    "disc": "on the frontier: nothing as small does better",
    "ring": "something that is no larger does as well or better",
}
"""How plots of quality over size are read."""


def quality_panel(task: str, runs: Sequence[ComparedRun]) -> str:
    """Return what was seen of a task in sentences, as a plot over size, and as a table."""
    shown = distinct_runs(runs)
    parts = [
        bullets(verdict_sentence(run) for run in shown),
        quality_plot(shown),
        soft(power_sentence(shown)),
        bullets([*apart_sentences(runs, by="name"), *count_sentences(shown, by="name")]),
        _perplexities(shown),
        details("figures", cells_table(shown, quality_columns(shown) | cost_columns())),
    ]
    return panel(heading(task, shown), *parts)


def _perplexities(runs: Sequence[ComparedRun]) -> str:
    """Return what is measured of texts, each figure with its definition; nothing of questions."""
    if runs[0].record.task_kind != TEXT:
        return ""
    names = [runs[0].headline, *TEXT_METRICS]
    shown = [name for name in metric_names(runs) if name in names]
    columns: dict[str, Cell] = {"run": lambda run: run.name}
    pairs = [(METRICS[name].title, METRICS[name].definition) for name in shown if name in METRICS]
    return cells_table(runs, columns | metric_columns(shown)) + definitions(pairs)


def cells_table(runs: Sequence[ComparedRun], columns: Mapping[str, Cell]) -> str:
    """Return a table of runs; letters, which name runs in pictures of text, are left out."""
    heads, *lines = [line[1:] for line in cells_of(runs, columns)]
    return table(heads, lines)


def time_panels(tasks: Mapping[str, Sequence[ComparedRun]]) -> list[str]:
    """Return scores over seconds a question, where runs differ in threads or decoding."""
    return [
        panel(f"{task}: score and time", _time_plot(runs))
        for task, runs in tasks.items()
        if set(differing_settings(runs)) & {"threads", "decoding"}
    ]


def shots_panels(tasks: Mapping[str, Sequence[ComparedRun]]) -> list[str]:
    """Return scores over the number of examples, where there are several numbers."""
    found = []
    for task, runs in tasks.items():
        counts = sorted({run.record.shots for run in runs})
        if len(counts) < 2:
            continue
        scores, rows = _scores_over_shots(runs)
        drawn = chart(
            [
                Series(name, list(points.items()), style)
                for style, (name, points) in enumerate(scores.items())
            ],
            x_name="examples in front of a question",
            y_name=axis_title(runs[0].headline),
            x_ticks=[float(count) for count in counts],
        )
        heads = ["run", "examples", "draws", "mean", "lowest", "highest"]
        found.append(panel(f"{task}: examples", drawn, table(heads, rows)))
    return found


def quality_plot(runs: Sequence[ComparedRun]) -> str:
    """Return scores over sizes; nothing where sizes are unknown or all the same."""
    sized = sized_runs(runs)
    if not sized:
        return ""
    best = {id(run) for run in frontier(sized)}
    fastest = max((run.record.tokens_per_second or 0.0 for run in sized), default=0.0)
    unit, unit_name = 1e6, "MB"
    if max(run.size or 0 for run in sized) >= 1e9:
        unit, unit_name = 1e9, "GB"
    names = _point_names(sized)
    families = {name: number for number, name in enumerate(dict.fromkeys(map(family, sized)))}
    first = next((run for run in sized if run.is_reference), None)
    across = None
    if first is not None:
        across = axis_value(first.headline, first.score)
    points = []
    for run in sized:
        low, high = _ends(run)
        speed = run.record.tokens_per_second
        points.append(
            Point(
                x=(run.size or 0) / unit,
                y=axis_value(run.headline, run.score),
                name=names[id(run)],
                line=families[family(run)],
                low=low,
                high=high,
                weight=speed / fastest if speed else None,
                is_filled=id(run) in best,
            )
        )
    drawn = interval_plot(
        points,
        x_name=f"weights in memory, {unit_name}",
        x_ticks=[(run.size or 0) / unit for run in sized],
        y_name=axis_title(sized[0].headline),
        across=across,
    )
    if not fastest:
        return drawn
    largest = max(sized, key=lambda run: run.record.tokens_per_second or 0.0)
    return drawn + soft(f"The largest area: {largest.name}, {throughput(fastest)} tokens/s.")


def _ends(run: ComparedRun) -> tuple[float | None, float | None]:
    """Return the ends of a run's interval as the axis has them."""
    span = span_of(run)
    if span is None:
        return None, None
    return axis_value(run.headline, span[0]), axis_value(run.headline, span[1])


def family(run: ComparedRun) -> tuple[object, ...]:
    """Return what quantizations of one model have in common: sizes, and how they are run."""
    record = run.record
    return (record.shape or run.model, record.kv_bits, record.memory_bytes)


def _point_names(runs: Sequence[ComparedRun]) -> dict[int, str]:
    """Return a name for each point: bits in the one family of several, else the run's name."""
    members: dict[object, list[ComparedRun]] = defaultdict(list)
    for run in runs:
        members[family(run)].append(run)
    several = [group for group in members.values() if len(group) > 1]
    names = {id(run): run.name for run in runs}
    if len(several) == 1:
        bits = [run.record.bits for run in several[0]]
        if len(set(bits)) == len(bits) and None not in bits:
            names |= {id(run): f"{run.record.bits} bits" for run in several[0]}
    return names


def _time_plot(runs: Sequence[ComparedRun]) -> str:
    """Return scores over seconds a question: a shape a way to decode, a line a model.

    Lines join the runs of a model on several numbers of threads, which stand at the points; where
    ways to decode differ, models do.
    """
    timed = [run for run in runs if run.record.questions_per_second]
    if not timed:
        return ""
    differing = differing_settings(timed)
    along = {"threads", "decoding", "shot_seed"}
    lines = _numbered(words_of(run, telling_settings(timed, along)) for run in timed)
    ways = _numbered(str(run.record.decoding) for run in timed)
    by_way = "decoding" in differing
    points = []
    for run in timed:
        line = words_of(run, telling_settings(timed, along))
        way = ways[str(run.record.decoding)]
        threads = str(run.record.threads or "-")
        name = threads
        if by_way:
            name = ", ".join([line, threads][: 1 + ("threads" in differing)])
        points.append(
            Point(
                x=1 / (run.record.questions_per_second or 1.0),
                y=axis_value(run.headline, run.score),
                name=name,
                line=lines[line] + way * len(lines),
                mark=way if by_way else None,
            )
        )
    said, line_names, mark_names = "threads", _names_of(lines), {}
    if by_way:
        said, line_names, mark_names = "models", {}, _names_of(ways)
    return interval_plot(
        points,
        x_name="seconds a question",
        y_name=f"{axis_title(timed[0].headline)}; at the points: {said}",
        line_names=line_names,
        mark_names=mark_names,
    )


def _names_of(numbers: Mapping[str, int]) -> dict[int, str]:
    return {number: name for name, number in numbers.items()}


def _numbered(names: Iterable[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(dict.fromkeys(names))}


def _scores_over_shots(
    runs: Sequence[ComparedRun],
) -> tuple[dict[str, dict[float, float]], list[list[str]]]:
    """Return mean scores by run and number of examples, and rows with their spread."""
    names = telling_settings(runs, ("shots", "shot_seed"))
    found: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        value = axis_value(run.headline, run.score)
        found[words_of(run, names)][run.record.shots].append(value)
    means = {
        name: {float(shots): statistics.mean(values) for shots, values in by_shots.items()}
        for name, by_shots in found.items()
    }
    rows = [
        [
            name,
            str(shots),
            str(len(values)),
            *(f"{value:.4g}" for value in (statistics.mean(values), min(values), max(values))),
        ]
        for name, by_shots in found.items()
        for shots, values in by_shots.items()
    ]
    return means, rows
