"""Progress bars and spinners: on a terminal's standard error, and nowhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from edgellm.console.status_line import StatusLine
from edgellm.console.terminal import err, note
from edgellm.console.units import rate, size
from edgellm.errors import escape_controls

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from edgellm.converters import ConversionStep

DELAY = 0.3
"""Seconds before a loading bar is drawn: what is quick is not worth a flicker."""

SAY_SECONDS = 10.0
"""Between two lines about one machine, where there is no terminal."""


@contextmanager
def show_loading(name: str) -> Iterator[Callable[[int, int], None]]:
    """Show how much of a model has been read; yields a callback of bytes read and bytes in all."""
    if not StatusLine.possible():
        yield lambda _done, _total: None
        return
    bar = _byte_bar()
    task = bar.add_task(escape_controls(f"loading {name}"), total=None)
    begun = time.perf_counter()

    def report(done: int, total: int) -> None:
        bar.update(task, completed=done, total=total)
        if time.perf_counter() - begun > DELAY:
            bar.start()

    try:
        yield report
    finally:
        if bar.live.is_started:
            bar.stop()


@contextmanager
def show_sending() -> Iterator[Callable[[str, int, int], None]]:
    """Show what is sent to other machines; yields a callback of name, bytes sent, bytes in all.

    On a terminal that is a bar for each until all have theirs; else a line now and then.
    """
    begun = time.perf_counter()
    said: dict[str, float] = {}
    if not StatusLine.possible():

        def say(name: str, done: int, total: int) -> None:
            now = time.perf_counter()
            if done == total or now - said.setdefault(name, begun) > SAY_SECONDS:
                said[name] = now
                speed = rate(done / max(now - begun, 1e-9))
                note(f"{name}: {size(done)} of {size(total)}, {speed}")

        yield say
        return
    bar = _byte_bar()
    tasks: dict[str, TaskID] = {}

    def show(name: str, done: int, total: int) -> None:
        if name not in tasks:
            tasks[name] = bar.add_task(escape_controls(f"sending to {name}"), total=total)
        bar.update(tasks[name], completed=done)
        if not bar.finished:
            bar.start()
        elif bar.live.is_started:
            bar.stop()  # what is loaded next has a bar of its own

    try:
        yield show
    finally:
        if bar.live.is_started:
            bar.stop()


@contextmanager
def show_converting() -> Iterator[Callable[[ConversionStep], None]]:
    """Show how far a conversion is; yields a callback of its steps."""
    if not StatusLine.possible():
        yield _note_message
        return

    def report(step: ConversionStep) -> None:
        if step.message:
            bar.console.print(step.message)
        name = escape_controls(step.file or "converting")
        bar.update(task, completed=step.bytes_done, total=step.bytes_total, description=name)

    with _byte_bar() as bar:
        task = bar.add_task("converting", total=None)
        yield report


@contextmanager
def resumable() -> Iterator[None]:
    """Let Ctrl-C within say that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        note("what is done is kept: the same command continues from here")
        raise


@contextmanager
def converting_shown() -> Iterator[Callable[[ConversionStep], None]]:
    """Show a conversion as ``show_converting`` does, if there is one; yields the callback."""
    with ExitStack() as shown:
        started: list[Callable[[ConversionStep], None]] = []

        def report(step: ConversionStep) -> None:
            if not started:
                started.append(shown.enter_context(show_converting()))
            started[0](step)

        yield report


def _note_message(step: ConversionStep) -> None:
    if step.message:
        note(step.message)


@contextmanager
def show_verifying() -> Iterator[Callable[[str, int, int], None]]:
    """Show what is checked; yields a callback of the check's name, bytes done and bytes in all."""
    if not StatusLine.possible():
        yield lambda _name, _done, _total: None
        return
    with _byte_bar() as bar:
        task = bar.add_task("checking", total=None)
        # a check of no bytes has no end that could be drawn
        yield lambda name, done, total: bar.update(
            task, completed=done, total=total or None, description=escape_controls(name)
        )


class ShownSteps:
    """Steps with the time left, and lines that stay; without a terminal, the lines alone."""

    def __init__(self, bar: Progress | None = None) -> None:
        self._bar = bar
        if bar is not None:
            self._task = bar.add_task("", total=None)

    def show(self, done: int, total: int, text: str) -> None:
        """Show how many steps are done, of how many, and a text."""
        if self._bar is not None:
            description = escape_controls(text)
            self._bar.update(self._task, completed=done, total=total, description=description)

    def note(self, text: str) -> None:
        """Write a line that stays."""
        note_above(self._bar, text)


def note_above(bar: Progress | None, text: str) -> None:
    """Write a line that stays, above what moves."""
    if bar is None:
        note(text)
    else:
        bar.console.print(escape_controls(text), style="dim", markup=False)


@contextmanager
def show_steps() -> Iterator[ShownSteps]:
    """Show steps while the ``with`` lasts."""
    if not StatusLine.possible():
        yield ShownSteps()
        return
    from rich import progress

    with progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(bar_width=24),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
        console=err(),
        transient=True,
    ) as bar:
        yield ShownSteps(bar)


@contextmanager
def show_doing() -> Iterator[Callable[[str], None]]:
    """Show what is being done beside a spinner; yields a callback of its name."""
    if not StatusLine.possible():
        yield lambda _name: None
        return
    from rich.text import Text

    with err().status("") as status:
        # as Text: rich takes a string for markup here, whatever its console says
        yield lambda name: status.update(Text(escape_controls(name)))


def _byte_bar() -> Progress:
    """Return a bar that is wiped off in the end; its description gives way on a narrow terminal."""
    from rich import progress
    from rich.table import Column

    narrow = Column(no_wrap=True, overflow="ellipsis", ratio=1, max_width=40)
    return progress.Progress(
        progress.TextColumn("{task.description}", markup=False, table_column=narrow),
        progress.BarColumn(bar_width=24),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
        console=err(),
        transient=True,
    )
