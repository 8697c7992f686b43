"""``edgellm doctor``: what this machine is, how fast, and whether models run right on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument

from edgellm.cli.common import options
from edgellm.console import terminal
from edgellm.errors import ConfigError
from edgellm.files.given_path import given_path


def doctor(
    folder: Annotated[
        Path | None,
        Argument(metavar="FOLDER", help="A folder on the disk to measure; default: this one."),
    ] = None,
    *,
    json: options.Json = False,
) -> int:
    """Show what this machine is and how fast it is, and check that models run correctly on it."""
    # No require_backend: that MLX does not load is something to be found here.
    from edgellm.console.diagnosis_view import show_diagnosis
    from edgellm.console.progress import show_doing
    from edgellm.diagnostics.doctor import examine

    folder = given_path(folder or Path())
    if not folder.is_dir():
        raise ConfigError(
            f"there is no folder {folder}", hint="name a folder on the disk to measure"
        )
    with show_doing() as show:
        diagnosis = examine(folder, show)
    if json:
        terminal.write_json(diagnosis.as_dict())
    else:
        show_diagnosis(diagnosis)
    return int(not diagnosis.passed)
