"""Options that the commands of ``edgellm bench`` share, and what they do with records."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Annotated, TypeVar

from typer import Argument, Option

from edgellm.bench.records.backend_names import current_name
from edgellm.bench.records.collect import collect
from edgellm.bench.tables.narrow_tables import (
    cluster_lines,
    doubt_lines,
    fitting_table,
    name_lines,
)
from edgellm.bench.tables.text_tables import Column, as_json
from edgellm.cli import headings
from edgellm.cli.common import options
from edgellm.cli.common.values import one_of
from edgellm.console.terminal import note, write_line
from edgellm.errors import ConfigError
from edgellm.files.given_path import given_path
from edgellm.settings import parse_budget

if TYPE_CHECKING:
    from edgellm.bench.records.record import Record

Model = options.Model
Json = options.Json
Files = Annotated[
    list[Path], Argument(metavar="FILE ...", help="json or jsonl files of edgellm bench.")
]
Wide = Annotated[
    bool,
    Option(
        "--wide",
        help="Show all columns, however long the lines become.",
        rich_help_panel=headings.OUTPUT,
    ),
]
Threads = Annotated[
    int | None,
    Option(
        metavar="N",
        min=1,
        help="CPU threads; default: chosen for the machine.",
        rich_help_panel=headings.SPEED,
    ),
]
Activations = Annotated[
    str,
    Option(
        metavar="auto|int8|float",
        help="Number type of the CPU kernels' activations.",
        rich_help_panel=headings.SPEED,
        autocompletion=one_of("auto|int8|float"),
    ),
]
DType = Annotated[
    str | None,
    Option(
        metavar="TYPE",
        help="Type of activations: float32, bfloat16, float16; default: the best.",
        rich_help_panel=headings.SPEED,
    ),
]
KVBits = Annotated[
    int | None,
    Option(
        metavar="32|16|8|4",
        help="Bits per number of edgellm's KV cache; default: as `edgellm plan` says.",
        rich_help_panel=headings.MEMORY,
    ),
]
Machines = Annotated[
    str | None,
    Option(
        metavar="HOSTS",
        help="Spread edgellm's model over the machines of a file, this one first "
        "(edgellm cluster).",
        rich_help_panel=headings.MEMORY,
    ),
]
SplitOption = Annotated[
    str,
    Option(
        "--split",
        metavar="auto|windows|rows",
        help="What each machine has: layers that take turns, rows of every matrix, or the faster.",
        rich_help_panel=headings.MEMORY,
        autocompletion=one_of("auto|windows|rows"),
    ),
]
Turns = Annotated[
    int,
    Option(
        metavar="N",
        min=1,
        help="Turns of each, the others between them.",
        rich_help_panel=headings.TESTS,
    ),
]
Timeout = Annotated[
    float,
    Option(metavar="SECONDS", min=1, help="Give up as failed after this long without progress."),
]
Outputs = Annotated[
    list[Path] | None,
    Option(
        "--output",
        metavar="FILE",
        help="Write json, jsonl, csv, md or html, by the suffix; may be given several times.",
        rich_help_panel=headings.OUTPUT,
    ),
]

NUMBERS = "N,N,..."
"""Stands for a list of numbers in help."""

USUAL_WIDTH = 80
"""Letters of a line where standard output is no terminal."""

AnyRecord = TypeVar("AnyRecord", bound="Record")


def split_names(text: str) -> list[str]:
    """Return the parts of a list with commas, without empty ones."""
    return [part.strip() for part in text.split(",") if part.strip()]


def split_backends(text: str) -> list[str]:
    """Return the names of backends in a list with commas, by what they are called now."""
    return list(dict.fromkeys(map(current_name, split_names(text))))


def split_numbers(option: str, text: str) -> tuple[int, ...]:
    """Return the whole numbers, from 0, of a list with commas. Raises ConfigError."""
    parts = split_names(text)
    # isdecimal alone would take digits of every script, and int() numbers of any length
    if not all(part.isdecimal() and part.isascii() and len(part) < 10 for part in parts):
        raise ConfigError(f"--{option} {text} is not a list of numbers", hint="write it as 1,2,4")
    return tuple(int(part) for part in parts)


def optional_size(text: str | None) -> int | None:
    """Return the bytes of a size such as 4GB; None for an option that was left out."""
    if not text:
        return None
    return parse_budget(text)


def absolute_folder(name: str) -> str:
    """Return a folder's path from wherever it is seen, as a worker elsewhere opens it."""
    return str(given_path(name).absolute())


def absolute_file(name: str | None) -> str | None:
    """Return a file's path from wherever it is seen; None for an option that was left out."""
    return None if name is None else str(given_path(name).absolute())


def collect_records(
    measure: Callable[..., Generator[AnyRecord]], output: Sequence[Path] | None
) -> tuple[list[AnyRecord], bool]:
    """Measure behind a status line, and write each record to the output files as it comes.

    Args:
        measure: called with ``progress``, to which it gives the ``Status`` that is to be shown.
        output: the files.

    Returns:
        The records, and whether Ctrl-C has ended the measuring.
    """
    from edgellm.bench.report.result_files import open_outputs
    from edgellm.bench.worker.status_line import StatusLine

    with open_outputs(output) as outputs, StatusLine() as status:
        return collect(measure(progress=status.show), outputs, status.note)


def table_width() -> int:
    """Return the letters that a line of a table may have: the terminal's, or 80."""
    if not sys.stdout.isatty():
        return USUAL_WIDTH
    return get_terminal_size((USUAL_WIDTH, 24)).columns


def print_records(
    records: Sequence[Record],
    columns: Mapping[str, Column],
    *,
    json: bool,
    wide: bool = False,
    sentences: Sequence[str] = (),
) -> None:
    """Write records to standard output: one JSON document, or a table if there are any.

    Sentences on what they show go below the table. What a person must know to read it goes to
    standard error: the names of tests, doubts, and columns for which there is no room. Failures
    have been noted as they came.
    """
    if json:
        write_line(as_json(records))
        return
    if not records:
        return
    width = table_width()
    table, left_out = fitting_table(records, columns, width=None if wide else width)
    write_line(table)
    notes = [
        *name_lines(records),
        *cluster_lines(records),
        *doubt_lines(records, width=width),
    ]
    if left_out:
        notes.append(f"--wide shows also: {', '.join(left_out)}")
    for line in notes:
        note(line)
    if sentences:
        write_line("\n" + "\n".join(sentences))
