"""The end of a training run: losses of epochs, answers before and after, what to do next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgellm.console.terminal import err, say
from edgellm.errors import escape_controls

BESIDE = 76
"""Columns from which answers stand side by side."""

PROMPT_LINES = 4
"""Of a prompt that are shown, its last ones."""

EPOCHS = 20
"""Lines of a table of epochs: of more, the first ones and the last ones are shown."""

LETTERS = 600
"""Of a text that are shown."""

NAMES = ("before", "after", "the record's own")


def show_epochs(epochs: Sequence[Mapping[str, Any]]) -> None:
    """Write the losses of epochs, a line each, to standard error; of many, not all."""
    if not epochs:
        return
    figures = dict.fromkeys(name for epoch in epochs for name in epoch.get("valid_figures") or {})
    heads = ["epoch", "loss", "on others", *figures]
    rows = [
        [
            "before" if epoch["epoch"] == 0 else str(epoch["epoch"]),
            _number(epoch.get("train")),
            _number(epoch.get("valid")),
            *(_number((epoch.get("valid_figures") or {}).get(name)) for name in figures),
        ]
        for epoch in epochs
    ]
    if all(epoch.get("valid") is None for epoch in epochs):
        heads, rows = heads[:2], [row[:2] for row in rows]
    if len(rows) > EPOCHS:
        rows[EPOCHS // 2 : 1 - EPOCHS // 2] = [["..."]]
    for row in (heads, *rows):
        say("  ".join(text.ljust(9) for text in row).rstrip())


def show_answers(answers: Sequence[Mapping[str, Any]]) -> None:
    """Write questions with their answers to standard error: side by side where there is room.

    Args:
        answers: each with ``prompt``, ``expected``, ``before`` and ``after``.
    """
    console = err()
    for number, answer in enumerate(answers, 1):
        lines = answer["prompt"].splitlines()[-PROMPT_LINES:]
        say(f"\nquestion {number}: " + _short("\n".join(lines)))
        texts = [answer["before"], answer["after"], answer["expected"]]
        shown = [
            (name, _short(text) or "(nothing)")
            for name, text in zip(NAMES, texts, strict=True)
            if text is not None
        ]
        if console.is_terminal and console.width >= BESIDE:
            _beside(shown)
        else:
            for name, text in shown:
                say(f"{name}: {text}")
    say("")


def _beside(shown: Sequence[tuple[str, str]]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE, expand=True, pad_edge=False)
    for name, _ in shown:
        table.add_column(name, ratio=1, overflow="fold", header_style="dim")
    table.add_row(*(Text(escape_controls(text)) for _, text in shown))
    err().print(table)


def _short(text: str) -> str:
    if len(text) <= LETTERS:
        return text
    return text[:LETTERS].rstrip() + " ..."


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
