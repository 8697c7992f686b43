"""The steps of a training run as they are taken: a line that moves, or lines now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgellm.console.progress import note_above
from edgellm.console.status_line import StatusLine
from edgellm.console.terminal import err, note
from edgellm.console.units import seconds, size, speed
from edgellm.errors import escape_controls

if TYPE_CHECKING:
    from rich.progress import Progress

SECONDS_BETWEEN_LINES = 30.0
"""Where nothing can move on the screen; a tenth of the steps has a line, too."""

WIDE, BAR = 110, 24
"""Columns from which there is a bar beside the figures, and its own."""

AROUND = 4
"""Columns of the spinner and of blanks beside the figures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownStep:
    """A step as a person sees it.

    Attributes:
        done: steps that were taken.
        total: steps of the run.
        loss: smoothed; None where no step was applied yet.
        tokens_per_second: smoothed, of the steps.
        seconds_left: of steps alone.
        memory: bytes that the process has.
        planned: bytes that it was to have.
        figures: what else is to be known of the loss, by name.
        shares: tokens of each machine, by its name; empty where there is one.
    """

    done: int
    total: int
    loss: float | None
    tokens_per_second: float
    seconds_left: float
    memory: int
    planned: int
    figures: Mapping[str, float] = field(default_factory=dict)
    shares: Mapping[str, int] = field(default_factory=dict)

    @property
    def parts(self) -> list[str]:
        """The texts that are shown, the most important first."""
        parts = [f"step {self.done:,} of {self.total:,}"]
        if self.loss is not None:
            parts.append(f"loss {self.loss:.3f}")
        if self.done < self.total:
            parts.append(f"{seconds(self.seconds_left)} left")
        parts.append(speed(self.tokens_per_second).partition(" (")[0])
        parts += [f"{name} {value:.3f}" for name, value in self.figures.items()]
        if self.shares:
            each = ", ".join(f"{name} {tokens:,}" for name, tokens in self.shares.items())
            parts.append(f"tokens: {each}")
        parts.append(f"{size(self.memory)} of {size(self.planned)}")
        return parts


def line_of(parts: Sequence[str], columns: int) -> str:
    """Return as many parts as fit into so many columns, and one at least."""
    line = parts[0]
    for part in parts[1:]:
        if len(line) + 3 + len(part) > columns:
            break
        line += f" · {part}"
    return line


class StepsView:
    """Steps on the screen, and lines that stay.

    Args:
        bar: on which they move; None without a terminal.
        clock: returns seconds.
    """

    def __init__(
        self, bar: Progress | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._bar, self._clock = bar, clock
        self._said_at: float | None = None
        self._tenth = -1
        if bar is not None:
            self._task = bar.add_task("the first step", total=None)

    def doing(self, text: str) -> None:
        """Show what is being done besides steps, where something can move."""
        if self._bar is not None:
            self._bar.update(self._task, description=escape_controls(text))

    def step(self, shown: ShownStep) -> None:
        """Show a step that was taken."""
        if self._bar is not None:
            width = self._bar.console.width
            columns = width - AROUND - (BAR if width >= WIDE else 0)
            self._bar.update(
                self._task,
                completed=shown.done,
                total=shown.total,
                description=escape_controls(line_of(shown.parts, columns)),
            )
            return
        now = self._clock()
        tenth = 10 * shown.done // max(1, shown.total)
        is_due = self._said_at is None or now - self._said_at >= SECONDS_BETWEEN_LINES
        if is_due or tenth > self._tenth:
            note(", ".join(shown.parts))
            self._said_at, self._tenth = now, tenth

    def note(self, text: str) -> None:
        """Write a line that stays."""
        note_above(self._bar, text)


@contextmanager
def show_training() -> Iterator[StepsView]:
    """Show the steps of a run while the ``with`` lasts."""
    if not StatusLine.possible():
        yield StepsView()
        return
    from rich import progress
    from rich.table import Column

    columns: list[progress.ProgressColumn] = [
        progress.SpinnerColumn(),
        progress.TextColumn(
            "{task.description}",
            markup=False,
            table_column=Column(no_wrap=True, overflow="ellipsis"),
        ),
    ]
    if err().width >= WIDE:
        columns.append(progress.BarColumn(bar_width=BAR - 4))
    with progress.Progress(*columns, console=err(), transient=True) as bar:
        yield StepsView(bar)
