"""The commands that read result files: ``compare`` and ``report``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgellm.errors import ConfigError

if TYPE_CHECKING:
    from edgellm.bench.records.compare import Change, MatchedRecords

Files = Annotated[
    list[Path], typer.Argument(metavar="FILE ...", help="json or jsonl files of edgellm bench.")
]


def compare(
    files: Files,
    *,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Put result files beside each other, from this machine or others: what differs, and whether that is more than noise."""
    from edgellm.bench.records import compare as comparison
    from edgellm.bench.report.result_files import read_some_records

    if len(files) < 2:
        raise ConfigError("one file alone has nothing to be compared with", hint="name two or more")
    found = [read_some_records(path) for path in files]
    compared = comparison.compare(found)
    names = _names(files)
    if json:
        import json as library

        typer.echo(library.dumps(comparison.as_document(compared, names), indent=2))
        return
    typer.echo(_lines(compared, names))
    places = comparison.environments(found)
    if places:
        typer.echo(
            "\n"
            + _aligned(
                [
                    ["where they differ", *names],
                    *([name, *values] for name, values in places.items()),
                ]
            )
        )


def report(
    files: Files,
    *,
    html: Annotated[Path, typer.Option(metavar="FILE", help="The page to be written.")] = Path(
        "report.html"
    ),
) -> None:
    """Make one page of result files, from this machine or others."""
    from edgellm.bench.report.result_files import read_some_records, write_records

    if html.suffix != ".html":
        raise ConfigError(f"{html} is no html file", hint="end its name with .html")
    write_records(html, [record for path in files for record in read_some_records(path)])
    typer.echo(f"{html}: {html.stat().st_size:,} bytes", err=True)


def _lines(compared: Sequence[MatchedRecords], names: Sequence[str]) -> str:
    """A line a measurement: what tells it apart, each file's figure, and each change from the first."""
    from edgellm.bench.records.text_tables import number, seconds, throughput

    keys = [
        name
        for name in (compared[0].key if compared else ())
        if len({str(item.key[name]) for item in compared}) > 1
    ]

    def figure(row: Mapping[str, Any] | None) -> str:
        if row is None:
            return "-"
        if row.get("error"):
            return "failed"
        if row.get("raw_read_gbps") is not None and row.get("kind") == "disk":
            return f"{number(2)(row['raw_read_gbps'])} GB/s"
        if row.get("tokens_per_second") is not None:
            return f"{throughput(row['tokens_per_second'])} t/s"
        return seconds(sorted(row["seconds"])[len(row["seconds"]) // 2]) if row["seconds"] else "-"

    heads = [
        *(key.removesuffix("_bytes") for key in keys),
        *names,
        *(f"change {name}" for name in names[1:]),
    ]
    lines = [
        [
            *("-" if item.key[key] is None else str(item.key[key]) for key in keys),
            *(figure(row) for row in item.records),
            *(said(found) for found in item.changes),
        ]
        for item in compared
    ]
    return _aligned([heads, *lines])


def said(change: Change | None) -> str:
    """A change in words: ``1.42 x (1.38 to 1.45)``; of one that may be none, that it lies within the noise."""
    if change is None:
        return "-"
    if change.low is None or change.high is None:
        return f"{change.ratio:.2f} x (single sample)"
    noise = ", within noise" if change.within_noise else ""
    return f"{change.ratio:.2f} x ({change.low:.2f} to {change.high:.2f}{noise})"


def _names(files: Sequence[Path]) -> list[str]:
    """Each file's name; where some are alike, with their folders."""
    short = [path.stem for path in files]
    return short if len(set(short)) == len(short) else [str(path) for path in files]


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
