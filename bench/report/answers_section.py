"""The part of a report that is about answers: how good they are, and how their time falls with cores."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from html import escape

from edgellm.bench.records.amdahl import Scaling
from edgellm.bench.records.differences import Row, short_model
from edgellm.bench.records.text_tables import megabytes, percent, seconds
from edgellm.bench.report.plots import Line, chart, table


def answers_section(rows: Sequence[Row]) -> str:
    """Accuracy against size, time against cores, and every answer; nothing where no question was asked."""
    asked = [row for row in rows if row.get("kind") == "queries"]
    answered = [row for row in asked if not row.get("error") and row.get("seconds_per_token")]
    if not answered:
        return ""
    parts = [_accuracy(answered), _cores(answered)]
    return f'<h2>Questions</h2><div class="panels">{"".join(parts)}</div>{_answers(answered)}'


def _accuracy(rows: Sequence[Row]) -> str:
    """The mean score of a model's answers over the size of its weights."""
    scored = [row for row in rows if row.get("score") is not None and row.get("model_bytes")]
    if not scored:
        return ""
    models = list(dict.fromkeys((row["model"], row["model_bytes"]) for row in scored))
    means = {
        model: statistics.mean(
            row["score"] for row in scored if (row["model"], row["model_bytes"]) == model
        )
        for model in models
    }
    unit, name = (1e9, "GB") if max(model[1] for model in models) >= 1e9 else (1e6, "MB")
    lines = [
        Line(short_model(model[0]), [(model[1] / unit, means[model])], style)
        for style, model in enumerate(models)
    ]
    drawn = chart(
        lines,
        x_name=f"weights in {name}",
        y_name="mean score, 1 to 10",
        y_limit=10.0,
        connected=False,
    )
    raters = ", ".join(dict.fromkeys(str(row.get("scored_by")) for row in scored))
    cells = [
        [short_model(model[0]), megabytes(model[1]), f"{means[model]:.1f}"] for model in models
    ]
    under = table(["model", "weights", "mean score"], cells)
    return f'<section><h3>Accuracy and size</h3>{drawn}{under}<p class="soft">Scored by {escape(raters)}.</p></section>'


def _cores(rows: Sequence[Row]) -> str:
    """Seconds a token over threads, and Amdahl's share."""
    found: dict[str, dict[int, list[Row]]] = {}
    for row in rows:
        if row.get("threads"):
            found.setdefault(row["model"], {}).setdefault(row["threads"], []).append(row)
    scalings = {
        model: Scaling(
            seconds={
                threads: sum(statistics.median(row["seconds"]) for row in group)
                / sum(row["tokens"] for row in group)
                for threads, group in sorted(counts.items())
            }
        )
        for model, counts in found.items()
    }
    if not scalings:
        return ""
    ticks = sorted({threads for scaling in scalings.values() for threads in scaling.seconds})
    unit, name = (
        (1.0, "seconds")
        if max(max(scaling.seconds.values()) for scaling in scalings.values()) >= 1
        else (1e3, "ms")
    )
    lines = [
        Line(
            short_model(model),
            [(threads, unit * taken) for threads, taken in scaling.seconds.items()],
            style,
        )
        for style, (model, scaling) in enumerate(scalings.items())
    ]
    drawn = chart(
        lines, x_name="threads", y_name=f"{name} a token", x_ticks=ticks, logarithmic=len(ticks) > 1
    )
    cells = [
        [
            short_model(model),
            str(threads),
            seconds(scaling.seconds[threads]),
            f"{scaling.speed_up(threads):.2f}",
            percent(scaling.efficiency(threads)),
            percent(scaling.parallel_share) if scaling.parallel_share is not None else "-",
        ]
        for model, scaling in scalings.items()
        for threads in scaling.seconds
    ]
    under = table(
        ["model", "threads", "s/token", "speed-up", "efficiency", "shared work (Amdahl)"], cells
    )
    return f"<section><h3>Time and cores</h3>{drawn}{under}</section>"


def _answers(rows: Sequence[Row]) -> str:
    """Each different answer once, under its question."""
    questions = dict.fromkeys(str(row["question"]) for row in rows)
    parts = []
    for question in questions:
        said = dict.fromkeys(
            (short_model(row["model"]), str(row["answer"]), row.get("score"))
            for row in rows
            if row["question"] == question
        )
        items = "".join(
            f"<dt>{escape(model)}{f' ({score:g})' if score is not None else ''}</dt><dd>{escape(answer)}</dd>"
            for model, answer, score in said
        )
        parts.append(f"<details><summary>{escape(question)}</summary><dl>{items}</dl></details>")
    return "".join(parts)
