"""The models on this machine as a table; names stand above values in a narrow one."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from edgellm.console.terminal import note, out
from edgellm.console.units import percent, plural, size
from edgellm.errors import escape_controls

if TYPE_CHECKING:
    from edgellm.local_models.survey import LocalModel

INDENT = "    "


def show_models(models: Iterable[LocalModel]) -> None:
    """Write a row for each model, and below it what is missing or comes next."""
    from rich.text import Text

    console = out()
    found = list(models)
    if not found:
        note("there is no model; edgellm pull OWNER/NAME downloads one")
        return
    width = sys.maxsize
    if console.is_terminal:
        width = console.width
    names = [escape_controls(model.name) for model in found]
    name_width = max(len(name) for name in (*names, "name"))
    values = [_values(model) for model in found]
    beside = name_width + 2 + max(map(len, values)) <= width
    if beside:
        header = f"{'name'.ljust(name_width)}  {_columns('size', 'bits', 'place', 'runs')}"
        console.print(header, style="dim", soft_wrap=True)
    for name, line, model in zip(names, values, found, strict=True):
        if beside:
            console.print(f"{name.ljust(name_width)}  {line}", soft_wrap=True)
        else:
            console.print(name, soft_wrap=True)
            console.print(f"{INDENT}{line.strip()}", soft_wrap=True)
        if model.note:
            text = Text(escape_controls(model.note), style="dim")
            console.print(Text(INDENT).append_text(text), soft_wrap=not console.is_terminal)
    total = sum(model.nbytes for model in found)
    note(f"{plural(len(found), 'model')}, {size(total)}; edgellm chat NAME talks to one")


def _values(model: LocalModel) -> str:
    fits = model.fits or "-"
    if model.pinned is not None:
        fits = f"paged, {percent(model.pinned)} pinned"
    return _columns(size(model.nbytes), str(model.bits or "-"), model.place, fits)


def _columns(nbytes: str, bits: str, place: str, runs: str) -> str:
    return f"{nbytes:>9}  {bits:>4}  {place:<9}  {runs}"
