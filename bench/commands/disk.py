"""``edgellm bench disk``: what the disk gives."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from edgellm.bench import command_options as common
from edgellm.bench.tables.columns import DISK_COLUMNS
from edgellm.console.progress import show_doing
from edgellm.errors import ConfigError
from edgellm.settings import parse_budget

MAX_THREADS = 64


def disk(
    path: Annotated[
        Path, Argument(metavar="PATH", help="A file or a folder of files, best a model's.")
    ],
    *,
    threads: Annotated[str, Option(metavar=common.NUMBERS, help="Parallel reads.")] = "1,2,4,8",
    chunk: Annotated[str, Option(metavar="SIZE,...", help="Bytes per read.")] = "1MiB,8MiB,32MiB",
    repeats: Annotated[
        int, Option(metavar="N", min=1, help="Repetitions of each combination.")
    ] = 3,
    json: common.Json = False,
) -> None:
    """Measure sequential reads, bypassing the page cache, with the reader that pages
    models.
    """
    from edgellm.bench.machine.disk import measure_disk_sweep
    from edgellm.reading.read_plan import SECTOR

    thread_counts = [_thread_count(text.strip()) for text in threads.split(",")]
    read_sizes = [parse_budget(text) for text in chunk.split(",")]
    if any(size % SECTOR for size in read_sizes):
        raise ConfigError(f"a piece is a multiple of {SECTOR} bytes", hint="write it as 1MiB, 8MiB")
    with show_doing() as show:
        records = measure_disk_sweep(
            path, threads=thread_counts, read_sizes=read_sizes, repeats=repeats, progress=show
        )
    common.print_records(records, DISK_COLUMNS, json=json)


def _thread_count(text: str) -> int:
    if not text.isdigit() or not 0 < int(text) <= MAX_THREADS:
        raise ConfigError(f"{text!r} is not a number of threads", hint="write them as 1,2,4")
    return int(text)
