"""The section of a report on questions: how good answers are, and how time falls with cores."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from html import escape

from edgellm.bench.records.differences import short_model
from edgellm.bench.records.kinds import QueryRecord
from edgellm.bench.records.record import Record
from edgellm.bench.statistics.amdahl import scalings
from edgellm.bench.tables.text_tables import megabytes, percent, seconds, show_value
from edgellm.pages.elements import definitions, details, panel, panels, section, table
from edgellm.pages.plots import Series, chart


def answers_section(records: Sequence[Record]) -> str:
    """Return accuracy over size, time over cores, and answers; nothing where there is none."""
    answered = [
        record
        for record in records
        if isinstance(record, QueryRecord) and not record.error and record.seconds_per_token
    ]
    if not answered:
        return ""
    parts = [_accuracy_panel(answered), _cores_panel(answered)]
    return section("Questions", panels(parts), _answers(answered))


def _accuracy_panel(records: Sequence[QueryRecord]) -> str:
    """Return the mean score of a model's answers over the size of its weights."""
    scores: dict[tuple[str, int], list[float]] = defaultdict(list)
    raters: dict[str, None] = {}  # a set that stays in order
    for record in records:
        if record.score is not None and record.model_bytes:
            scores[record.model, record.model_bytes].append(record.score)
            raters[str(record.scored_by)] = None
    if not scores:
        return ""
    means = {model: statistics.mean(values) for model, values in scores.items()}
    unit, unit_name = 1e6, "MB"
    if max(nbytes for _, nbytes in means) >= 1e9:
        unit, unit_name = 1e9, "GB"
    drawn = chart(
        [
            Series(short_model(model), [(nbytes / unit, mean)], style)
            for style, ((model, nbytes), mean) in enumerate(means.items())
        ],
        x_name=f"weights in {unit_name}",
        y_name="mean score, 1 to 10",
        y_limit=10.0,
        connected=False,
    )
    rows = [
        [short_model(model), megabytes(nbytes), f"{mean:.1f}"]
        for (model, nbytes), mean in means.items()
    ]
    return panel(
        "Accuracy and size",
        drawn,
        table(["model", "weights", "mean score"], rows),
        f'<p class="soft">Scored by {escape(", ".join(raters))}.</p>',
    )


def _cores_panel(records: Sequence[QueryRecord]) -> str:
    """Return seconds per token over threads, and Amdahl's parallel fraction."""
    by_model = scalings(records)
    if not by_model:
        return ""
    threads = sorted({count for scaling in by_model.values() for count in scaling.seconds})
    slowest = max(taken for scaling in by_model.values() for taken in scaling.seconds.values())
    unit, unit_name = 1e3, "ms"
    if slowest >= 1:
        unit, unit_name = 1.0, "seconds"
    drawn = chart(
        [
            Series(
                short_model(model),
                [(count, unit * taken) for count, taken in scaling.seconds.items()],
                style,
            )
            for style, (model, scaling) in enumerate(by_model.items())
        ],
        x_name="threads",
        y_name=f"{unit_name} per token",
        x_ticks=threads,
        logarithmic=len(threads) > 1,
    )
    rows = [
        [
            short_model(model),
            str(count),
            seconds(taken),
            f"{scaling.speed_up(count):.2f}",
            percent(scaling.efficiency(count)),
            show_value(scaling.parallel_fraction, percent),
        ]
        for model, scaling in by_model.items()
        for count, taken in scaling.seconds.items()
    ]
    heads = ["model", "threads", "s/token", "speed-up", "efficiency", "shared work (Amdahl)"]
    return panel("Time and cores", drawn, table(heads, rows))


def _answers(records: Sequence[QueryRecord]) -> str:
    """Return each different answer once, folded away under its question."""
    # a dictionary without values: a set that stays in order
    answers: dict[str, dict[tuple[str, str], None]] = defaultdict(dict)
    for record in records:
        name = short_model(record.model)
        if record.score is not None:
            name += f" ({record.score:g})"
        answers[record.question][name, str(record.answer)] = None
    return "".join(details(question, definitions(pairs)) for question, pairs in answers.items())
