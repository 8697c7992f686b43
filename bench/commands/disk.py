"""The commands that measure one thing of this machine: ``disk`` and ``paging``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from edgellm.bench.records.collect import exit_code
from edgellm.errors import ConfigError
from edgellm.settings import parse_size

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def disk(
    path: Annotated[
        Path,
        typer.Argument(metavar="PATH", help="A file, or a folder with files: a model's, best."),
    ],
    *,
    threads: Annotated[str, typer.Option(metavar="N,N,...", help="Reads at once.")] = "1,2,4,8",
    chunk: Annotated[
        str, typer.Option(metavar="SIZE,...", help="Bytes of one read.")
    ] = "1MiB,8MiB,32MiB",
    repeats: Annotated[
        int, typer.Option(metavar="N", min=1, help="Times that each combination is tried.")
    ] = 3,
    json: Json = False,
) -> None:
    """Measure plain sequential reads, past the system's cache, with the reader that pages models."""
    from edgellm.bench.machine.disk import measure_disk_sweep
    from edgellm.bench.records.text_tables import DISK_COLUMNS, as_json, as_table
    from edgellm.reading.read_plan import SECTOR

    counts = [_count(text) for text in threads.split(",")]
    chunks = [parse_size(text) for text in chunk.split(",")]
    if any(size % SECTOR for size in chunks):
        raise ConfigError(f"a piece is a multiple of {SECTOR} bytes", hint="write it as 1MiB, 8MiB")
    records = measure_disk_sweep(
        path, threads=counts, chunks=chunks, repeats=repeats, progress=_progress
    )
    typer.echo(as_json(records) if json else as_table(records, DISK_COLUMNS))


def paging(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A folder, a Hub id, or the name of the bundled model."
        ),
    ],
    *,
    memory: Annotated[
        str,
        typer.Option(
            metavar="SIZE,...",
            help="Budgets; left out: a quarter, a half, three quarters of the model, where it runs in them.",
        ),
    ] = "",
    samples: Annotated[int, typer.Option(metavar="N", min=1, help="Repetitions of each.")] = 3,
    tokens: Annotated[int, typer.Option(metavar="N", min=1, help="Tokens of a repetition.")] = 2,
    context: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Tokens that the KV cache has room for.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Processor threads for arithmetic.")
    ] = None,
    headroom: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Cap each process at its budget and this much (Linux, with control groups).",
        ),
    ] = None,
    json: Json = False,
) -> int:
    """Measure tokens a second of a model larger than its budget, and how near they come to the disk's own speed."""
    from edgellm.bench.paging.paging import PagingSettings, measure_paging
    from edgellm.bench.records.text_tables import PAGING_COLUMNS, as_json, as_table, megabytes

    budgets = [parse_size(text) for text in memory.split(",")] if memory else []
    settings = PagingSettings(
        samples=samples,
        tokens=tokens,
        context=context,
        threads=threads,
        headroom=parse_size(headroom) if headroom else None,
    )
    records = measure_paging(model, budgets, settings, progress=_progress)
    for record in records:
        if record.error:
            typer.echo(
                f"{record.model}, {megabytes(record.memory_bytes)}: {record.error}", err=True
            )
    typer.echo(as_json(records) if json else as_table(records, PAGING_COLUMNS))
    return exit_code(records, stopped=False)


def _count(text: str) -> int:
    if not text.strip().isdigit() or not 0 < int(text) <= 64:
        raise ConfigError(f"{text.strip()!r} is no number of threads", hint="write them as 1,2,4")
    return int(text)


def _progress(text: str) -> None:
    """Show on a terminal what is being measured."""
    if sys.stderr.isatty():
        typer.echo(f"\r\x1b[K{text}", nl=False, err=True)
