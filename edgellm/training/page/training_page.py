"""The page of a training run: one file without scripts, light or dark, on a phone too."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from edgellm.pages.elements import (
    definitions,
    details,
    panel,
    panels,
    quotation,
    section,
    soft,
    table,
)
from edgellm.pages.page import page
from edgellm.pages.plots import Series, chart
from edgellm.training.page.curves import points_of, smoothed, thinned


@dataclass(frozen=True, slots=True)
class ShownAnswer:
    """A question of the data, and what the model says to it.

    Attributes:
        prompt: as a person reads it.
        expected: the record's own answer.
        before: the model's, before it learned anything.
        after: the model's at the end; None while it learns.
    """

    prompt: str
    expected: str
    before: str
    after: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PageFacts:
    """A run as its page shows it.

    Attributes:
        title: of the page.
        lines: stand below it.
        steps: those taken, as the run's log has them.
        epochs: losses of epochs, as the run's history has them.
        answers: before and after.
        limit: the norm from which derivatives are scaled down; 0: none.
        tables: further facts, by title: names, each with what stands behind it.
    """

    title: str
    lines: Sequence[str]
    steps: Sequence[Mapping[str, Any]]
    epochs: Sequence[Mapping[str, Any]]
    answers: Sequence[ShownAnswer] = ()
    limit: float = 0.0
    tables: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)


def training_page(facts: PageFacts) -> str:
    """Return a whole document."""
    head = f"<h1>{escape(facts.title)}</h1>" + "".join(soft(line) for line in facts.lines)
    parts = [
        head,
        _losses(facts),
        _answers(facts.answers),
        _figures(facts.steps),
        _course(facts),
        _tables(facts.tables),
    ]
    return page(facts.title, "\n".join(part for part in parts if part))


def _losses(facts: PageFacts) -> str:
    """Return the loss of steps as a curve, and that of epochs as a table."""
    each = points_of(facts.steps, "loss")
    others = points_of(facts.epochs, "valid")
    lines = []
    if each:
        lines += [
            Series("each step", thinned(each), marked=False, faint=True),
            Series("steps, smoothed", thinned(smoothed(each)), marked=len(each) < 2),
        ]
    if others:
        lines.append(Series("records that are not learned", others, 1))
    parts = []
    if lines:
        lowest = min(0.0, *(y for one in lines for _, y in one.points))
        parts.append(chart(lines, x_name="step", y_name="loss", y_low=lowest))
    if facts.epochs:
        parts.append(_epochs(facts.epochs))
    if not parts:
        return ""
    return section(
        "Loss",
        panels(f"<div>{part}</div>" for part in parts),
        note="The mean over what is learned, in nats a token unless said otherwise; lower is "
        "better. A loss of records that are not learned which rises again means that the rest is "
        "being learned by heart.",
    )


def _epochs(epochs: Sequence[Mapping[str, Any]]) -> str:
    """Return losses and further figures of epochs; columns that are empty are left out."""
    figures = dict.fromkeys(
        (kind, name)
        for epoch in epochs
        for kind in ("figures", "valid_figures")
        for name in epoch.get(kind) or {}
    )
    heads = ["epoch", "step", "loss", "on other records", "perplexity there", "bits a byte there"]
    heads += [f"{name}{' there' if kind == 'valid_figures' else ''}" for kind, name in figures]
    rows = []
    for epoch in epochs:
        valid = epoch.get("valid")
        rows.append(
            [
                "before" if epoch["epoch"] == 0 else str(epoch["epoch"]),
                str(epoch.get("step", "-")),
                _number(epoch.get("train")),
                _number(valid),
                "-" if valid is None or valid > 50 or figures else f"{math.exp(valid):.4g}",
                _number(epoch.get("bits_per_byte")),
                *(_number((epoch.get(kind) or {}).get(name)) for kind, name in figures),
            ]
        )
    shown = [place for place in range(len(heads)) if any(row[place] != "-" for row in rows)]
    return table(
        [heads[place] for place in shown], [[row[place] for place in shown] for row in rows]
    )


def _answers(answers: Sequence[ShownAnswer]) -> str:
    """Return each question with the answers before and after, and that of its record."""
    if not answers:
        return ""
    parts = []
    for number, answer in enumerate(answers, 1):
        shown = [("before", answer.before)]
        if answer.after is not None:
            shown.append(("after", answer.after))
        shown.append(("the record's own", answer.expected))
        cells = panels(
            (panel(name, quotation(text or "(nothing)")) for name, text in shown), narrow=True
        )
        parts.append(f"<h3>Question {number}</h3>{quotation(answer.prompt)}{cells}")
    return section(
        "Answers before and after",
        *parts,
        note="Each token is the likeliest one; answers end after a few tokens. The prompts are of "
        "records that are not learned, if there are such.",
    )


def _figures(steps: Sequence[Mapping[str, Any]]) -> str:
    """Return a curve for each further figure of steps, such as the margin of preferences."""
    names = dict.fromkeys(name for step in steps for name in step["figures"])
    drawn = []
    for name in names:
        flat = [{"step": step["step"], name: step["figures"].get(name)} for step in steps]
        points = points_of(flat, name)
        if points:
            drawn.append(_curve(points, name))
    if not drawn:
        return ""
    return section("Figures of the loss", panels(drawn))


def _course(facts: PageFacts) -> str:
    """Return rate, norm and speed over the steps."""
    steps = facts.steps
    if not steps:
        return ""
    rates = points_of(steps, "rate")
    norms = points_of(steps, "norm")
    drawn = [
        chart([Series("rate", thinned(rates), marked=False)], x_name="step", y_name="learning rate")
    ]
    if norms:
        limit = []
        if facts.limit:
            ends = [(norms[0][0], facts.limit), (norms[-1][0], facts.limit)]
            limit = [Series("from here on scaled down", ends, 1, marked=False)]
        drawn.append(_curve(norms, "norm of derivatives", *limit))
    pace = [
        (float(step["step"]), step["tokens"] / step["seconds"]) for step in steps if step["seconds"]
    ]
    if pace:
        drawn.append(_curve(pace, "tokens a second"))
    refused = [str(step["step"]) for step in steps if not step.get("applied", True)]
    note = ""
    if refused:
        note = (
            f"Not applied, because loss or derivatives were not finite: step {', '.join(refused)}."
        )
    rows = [
        [
            str(step["step"]),
            str(step["epoch"]),
            _number(step["loss"]),
            f"{step['rate']:.3g}",
            _number(step["norm"]),
            str(step["tokens"]),
            str(step["asked"]),
            f"{step['seconds']:.3g}",
        ]
        for step in steps[-MOST_ROWS:]
    ]
    heads = ["step", "epoch", "loss", "rate", "norm", "tokens", "learned", "seconds"]
    last = details(f"the last {len(rows)} steps in figures", table(heads, rows))
    return section("Course", panels(drawn), last, note=note)


MOST_ROWS = 50
"""Steps whose figures are on the page; the log has all."""


def _curve(points: Sequence[tuple[float, float]], name: str, *more: Series) -> str:
    lowest = min(0.0, *(y for _, y in points))
    lines = [
        Series("each step", thinned(points), marked=False, faint=True),
        Series("smoothed", thinned(smoothed(points)), marked=len(points) < 2),
        *more,
    ]
    return chart(lines, x_name="step", y_name=name, y_low=lowest)


def _tables(tables: Mapping[str, Sequence[tuple[str, str]]]) -> str:
    shown = [panel(title, definitions(rows)) for title, rows in tables.items() if rows]
    return section("The run", panels(shown, narrow=True)) if shown else ""


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
