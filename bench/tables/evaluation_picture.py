"""Quality over size as a picture of letters, for a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from textwrap import wrap

from edgellm.bench.tables.evaluation_runs import ComparedRun, distinct_runs, frontier, sized_runs
from edgellm.bench.tables.evaluation_tables import size_text
from edgellm.bench.tables.evaluation_values import axis_title, value_text

ROWS = 13
NARROWEST = 60
"""Letters of a line below which there is no picture."""

WIDEST = 100
MARGIN = 9
"""Letters in front of the vertical axis."""

LINES = {"interval": "│", "end": "┼", "axis": "│", "floor": "─", "corner": "└", "level": "·"}
PLAIN = {"interval": "|", "end": "+", "axis": "|", "floor": "-", "corner": "+", "level": "."}


def evaluation_picture(
    tasks: Mapping[str, Sequence[ComparedRun]], *, width: int, plain: bool = False
) -> str:
    """Return a picture for each task that has runs of several sizes; empty where none has room.

    Args:
        tasks: what ``compared_runs`` returns.
        width: letters of a line.
        plain: whether all of them are ASCII's.
    """
    if width < NARROWEST:
        return ""
    pictures = [
        _picture(task, runs, min(width, WIDEST), plain=plain) for task, runs in tasks.items()
    ]
    return "\n\n".join(filter(None, pictures))


def span_of(run: ComparedRun) -> tuple[float, float] | None:
    """Return the ends of a run's interval where its reference's score is taken as exact."""
    if run.paired is None:
        return None
    return run.paired.first + run.paired.low, run.paired.first + run.paired.high


def _picture(task: str, runs: Sequence[ComparedRun], width: int, *, plain: bool) -> str:
    shown = sized_runs(distinct_runs(runs))
    if not shown:
        return ""
    signs = LINES
    if plain:
        signs = PLAIN
    canvas = _Canvas(shown, width - MARGIN - 2)
    first = next((run for run in shown if run.is_reference), None)
    if first is not None:
        canvas.level(first, signs["level"])
    for run in shown:
        canvas.interval(run, signs)
    for run in shown:
        canvas.letter(run)
    lines = [
        f"{label:>{MARGIN - 1}} {signs['axis']}{line}".rstrip() for label, line in canvas.lines()
    ]
    floor = f"{'':{MARGIN}}{signs['corner']}{signs['floor'] * canvas.columns}"
    title = f"{task}: {axis_title(shown[0].headline)}; over weights in memory"
    return "\n".join([title, *lines, floor, canvas.sizes(), *_legend(shown, first, width)])


class _Canvas:
    """Rows of letters, on which values have places; sizes are equally far apart by their ratio."""

    def __init__(self, runs: Sequence[ComparedRun], columns: int) -> None:
        self.columns = columns
        self.headline = runs[0].headline
        self.cells = [[" "] * columns for _ in range(ROWS)]
        sizes = [math.log(run.size or 1) for run in runs]
        self.left, self.right = min(sizes), max(sizes)
        values = [value for run in runs for value in (run.score, *(span_of(run) or ()))]
        self.low, self.high = min(values), max(values)
        self.runs = runs

    def row(self, value: float) -> int:
        """Return the row of a score, from the top."""
        if self.high <= self.low:
            return ROWS // 2
        share: float = (self.high - value) / (self.high - self.low)
        return round((ROWS - 1) * share)

    def column(self, run: ComparedRun) -> int:
        """Return the column of a run's size, a little inside the edges."""
        share = 0.5
        if self.right > self.left:
            share = (math.log(run.size or 1) - self.left) / (self.right - self.left)
        return 3 + round(share * (self.columns - 7))

    def level(self, run: ComparedRun, sign: str) -> None:
        """Draw a line across at a run's score."""
        row = self.row(run.score)
        self.cells[row][::2] = [sign] * len(self.cells[row][::2])

    def interval(self, run: ComparedRun, signs: Mapping[str, str]) -> None:
        """Draw a run's interval."""
        span = span_of(run)
        if span is None:
            return
        bottom, top = self.row(span[0]), self.row(span[1])
        for row in range(top, bottom + 1):
            self.cells[row][self.column(run)] = signs["interval"]
        for row in (top, bottom):
            self.cells[row][self.column(run)] = signs["end"]

    def letter(self, run: ComparedRun) -> None:
        """Write a run's letter at its score, beside those that stand there already."""
        row, column = self.row(run.score), self.column(run)
        while column < self.columns - 1 and self.cells[row][column].isalpha():
            column += 1
        self.cells[row][column] = run.letter

    def lines(self) -> list[tuple[str, str]]:
        """Return the rows with their labels."""
        labels = [""] * ROWS
        labelled: tuple[int, ...] = (0, ROWS // 2, ROWS - 1)
        if self.high <= self.low:
            labelled = (ROWS // 2,)
        for row in labelled:
            value = self.high - (self.high - self.low) * row / (ROWS - 1)
            labels[row] = value_text(self.headline, value)
        return [(label, "".join(row)) for label, row in zip(labels, self.cells, strict=True)]

    def sizes(self) -> str:
        """Return the sizes below the axis, those for which there is room."""
        line = ""
        for run in sorted(self.runs, key=lambda run: run.size or 0):
            text = size_text(run.size or 0)
            place = max(0, MARGIN + 1 + self.column(run) - len(text) // 2)
            if not line or place > len(line) + 1:
                line = line.ljust(place) + text
        return line


def _legend(shown: Sequence[ComparedRun], first: ComparedRun | None, width: int) -> list[str]:
    best = {id(run) for run in frontier(shown)}
    lines = [
        f"  {run.letter} {run.name}, {size_text(run.size or 0)}: "
        f"{value_text(run.headline, run.score)}{'  *' if id(run) in best else ''}"
        for run in shown
    ]
    notes = ["* nothing as small does better"]
    if first is not None:
        notes.append(f"dots: {first.letter}'s score; a bar across them: perhaps no difference")
    return [*lines, *wrap("; ".join(notes), width, initial_indent="  ", subsequent_indent="  ")]
