"""What can be seen while something takes its time: on a terminal's standard error, and nowhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edgellm.console.status_line import StatusLine
from edgellm.console.terminal import err, note

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn
    from rich.table import Column

    from edgellm.converters import ConversionStep

DELAY = 0.3
"""Seconds before anything is drawn: what is quick is not worth a flicker."""


@contextmanager
def loading(name: str) -> Iterator[Callable[[int, int], None]]:
    """Show how many of a model's bytes have been read; yields what is to be called with bytes read and bytes in all."""
    if not StatusLine.possible():
        yield lambda _done, _total: None
        return
    bar = _byte_bar(err())
    task = bar.add_task(f"loading {name}", total=None)
    begun = time.perf_counter()

    def report(done: int, total: int) -> None:
        bar.update(task, completed=done, total=total)
        if not bar.live.is_started and time.perf_counter() - begun > DELAY:
            bar.start()

    try:
        yield report
    finally:
        if bar.live.is_started:
            bar.stop()


@contextmanager
def conversion() -> Iterator[Callable[[ConversionStep], None]]:
    """Show how far a conversion is; yields what is to be called with each step."""
    if not StatusLine.possible():
        yield lambda step: note(step.message) if step.message else None
        return
    console = err()
    bar = _byte_bar(console)
    task = bar.add_task("converting", total=None)

    def report(step: ConversionStep) -> None:
        if step.message:
            console.print(step.message)
        bar.update(
            task,
            completed=step.bytes_done,
            total=step.bytes_total,
            description=step.file or "converting",
        )

    with bar:
        yield report


@contextmanager
def verification() -> Iterator[Callable[[str, int, int], None]]:
    """Show what is checked and how far; yields what is to be called with the check's name, bytes done and bytes in all."""
    if not StatusLine.possible():
        yield lambda _name, _done, _total: None
        return
    bar = _byte_bar(err())
    task = bar.add_task("checking", total=None)
    with bar:
        yield lambda name, done, total: bar.update(
            task, completed=done, total=total or None, description=name
        )


@contextmanager
def trying() -> Iterator[Callable[[str], None]]:
    """Show what is being tried; yields what is to be called with its name."""
    console = err()
    if not StatusLine.possible():
        yield lambda _name: None
        return
    with console.status("") as status:
        yield status.update


def _byte_bar(console: Console) -> Progress:
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns: list[ProgressColumn | str] = [
        TextColumn("{task.description}", markup=False, table_column=_narrow()),
        BarColumn(bar_width=24),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    ]
    return Progress(*columns, console=console, transient=True)


def _narrow() -> Column:
    """A column that gives way on a narrow terminal."""
    from rich.table import Column

    return Column(no_wrap=True, overflow="ellipsis", ratio=1, max_width=40)
