"""Plain values of options: what typer would make of them, without pydantic."""

from __future__ import annotations

import enum
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer

from edgellm.cli.parsing.plain_values import convert_plain_values


class Kind(enum.StrEnum):
    QUIET = "quiet"


def _typers(seen: list[Any]) -> Any:
    """Return a command of typer's with an option of each kind."""
    app = typer.Typer(add_completion=False)

    @app.command()
    def command(
        word: str,
        *,
        file: Path = Path("here"),
        size: Annotated[int, typer.Option(min=1, max=8)] = 2,
        rate: float | None = None,
        kind: Kind = Kind.QUIET,
        names: Annotated[list[str] | None, typer.Option("--name")] = None,
        words: Annotated[list[str], typer.Option("--word", default_factory=lambda: ["a"])],
        folder: Annotated[Path | None, typer.Option(exists=True)] = None,
        loud: bool = False,
    ) -> None:
        seen.append((word, file, size, rate, kind, names, words, folder, loud))

    return typer.main.get_command(app)


def _outcome(seen: list[Any], command: Any, args: list[str]) -> Any:
    """Return what a command is called with, or the error that refuses its words."""
    seen.clear()
    try:
        command.main(args, standalone_mode=False)
    except Exception as error:
        return type(error), str(error)
    return repr(seen)


@pytest.mark.parametrize(
    "words",
    [
        "w",
        "w --file x/y --size 8 --rate 0.5 --loud",
        "w --size 0",
        "w --size 9",
        "w --size 1_0",
        "w --size ٣",
        "w --size 2.0",
        "w --rate nan",
        "w --rate 1e3",
        "w --rate x",
        "w --kind quiet",
        "w --kind other",
        "w --name a --name b",
        "w --word a --word b",
        "w --folder /",
        "w --folder missing",
        "w --unknown",
        "",
    ],
)
def test_values_and_errors_are_typers(words):
    seen: list[Any] = []
    ours = _typers(seen)
    expected = _outcome(seen, _typers(seen), words.split())

    for _ in range(2):  # a program may run a command again
        convert_plain_values(ours.params)
        assert _outcome(seen, ours, words.split()) == expected


def test_info_imports_no_numpy_and_no_pydantic():
    program = (
        "import sys\n"
        "from edgellm.__main__ import main\n"
        "sys.argv = ['edgellm', 'info', 'stories']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'numpy', 'pydantic', 'mlx.nn', 'jinja2'}.intersection(sys.modules)))"
    )

    shown = subprocess.run(
        [sys.executable, "-c", program], check=True, stdout=subprocess.PIPE, text=True
    ).stdout

    assert "parameters" in shown
    assert shown.splitlines()[-1] == "[]"
