"""``edgellm bench report``: one page of result files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

from edgellm.bench import command_options as common
from edgellm.bench.report.result_files import read_some_records, write_records
from edgellm.console.terminal import say
from edgellm.errors import ConfigError


def report(
    files: common.Files,
    *,
    html: Annotated[Path, Option(metavar="FILE", help="The page to write.")] = Path("report.html"),
) -> None:
    """Make one page from result files, from this machine or others."""
    if html.suffix != ".html":
        raise ConfigError(f"{html} is not an HTML file", hint="end its name with .html")
    write_records(html, [record for path in files for record in read_some_records(path)])
    say(f"{html}: {html.stat().st_size:,} bytes")
