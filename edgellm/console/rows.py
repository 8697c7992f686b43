"""Names and values in two columns."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING

from edgellm.console.terminal import out
from edgellm.errors import escape_controls

if TYPE_CHECKING:
    from rich.console import Console

Row = tuple[str, str]

MINIMUM_WIDTH = 20
"""Columns; where values would have fewer, they stand below their names."""


def show_rows(
    rows: Iterable[Row], *, title: str | None = None, console: Console | None = None
) -> None:
    """Write names and values in two columns, to standard output if no console is given.

    Lines are broken on a terminal, and left whole where a program reads them.
    """
    from rich.text import Text

    console = console or out()
    rows = list(rows)
    width = sys.maxsize
    if console.is_terminal:
        width = console.width
        rows = [(escape_controls(name), escape_controls(value)) for name, value in rows]
    name_width = 2 + max(len(name) for name, _ in rows)
    beside = width - name_width >= MINIMUM_WIDTH
    indent = name_width if beside else 4
    if title:
        console.print(title, style="bold", soft_wrap=True)
    for name, value in rows:
        lines = textwrap.wrap(value, width - indent, break_on_hyphens=False)
        label = name.ljust(name_width)
        if not beside:
            label = name
            lines.insert(0, "")
        text = f"\n{' ' * indent}".join(lines)
        console.print(Text.assemble((label, "dim"), text), soft_wrap=True)
