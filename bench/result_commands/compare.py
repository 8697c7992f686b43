"""``edgellm bench compare``: result files beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from edgellm.bench import command_options as common
from edgellm.bench.comparison import compare as comparison
from edgellm.bench.comparison.compare import Change, MatchedRecords
from edgellm.bench.records.evaluation import EvaluationRecord
from edgellm.bench.records.kinds import DiskRecord
from edgellm.bench.records.record import Record
from edgellm.bench.report.result_files import read_some_records
from edgellm.bench.tables.text_tables import number, seconds, show_value, throughput
from edgellm.console.terminal import write_json, write_line
from edgellm.errors import ConfigError


def compare(files: common.Files, *, json: common.Json = False, wide: common.Wide = False) -> None:
    """Compare result files, from this machine or others: what differs, and whether
    that is more than noise.
    """
    if len(files) < 2:
        raise ConfigError("a single file has nothing to be compared with", hint="name two or more")
    records = [read_some_records(path) for path in files]
    compared = comparison.compare(records)
    names = _short_names(files)
    if json:
        document = comparison.as_document(compared, names)
        write_json(document)
        return
    width = None if wide else common.table_width()
    write_line(describe(compared, comparison.environments(records), names, width=width))


def describe(
    compared: Sequence[MatchedRecords],
    environments: Mapping[str, Sequence[str]],
    names: Sequence[str],
    *,
    width: int | None = None,
) -> str:
    """Return what was found in files of these names as text: measurements, then machines.

    Intervals are left out where lines would be longer than ``width``.
    """
    text = _align(_measurement_lines(compared, names))
    if width is not None and max(map(len, text.splitlines())) > width:
        text = _align(_measurement_lines(compared, names, intervals=False))
    if environments:
        lines = [["where they differ", *names]]
        lines += [[name, *values] for name, values in environments.items()]
        text += "\n\n" + _align(lines)
    return text


def describe_change(change: Change | None, *, interval: bool = True) -> str:
    """Return ``1.42 x (1.38 to 1.45)``, with a note where the change may be none."""
    if change is None:
        return "-"
    if change.low is None or change.high is None:
        return f"{change.ratio:.2f} x (single sample)"
    notes = []
    if interval:
        notes.append(f"{change.low:.2f} to {change.high:.2f}")
    if change.within_noise:
        notes.append("within noise")
    if not notes:
        return f"{change.ratio:.2f} x"
    return f"{change.ratio:.2f} x ({', '.join(notes)})"


def _measurement_lines(
    compared: Sequence[MatchedRecords], names: Sequence[str], *, intervals: bool = True
) -> list[list[str]]:
    """Return a line per measurement: what tells it apart, each file's figure, and the changes.

    Changes are from the first file.
    """
    keys = [name for name in compared[0].key if len({str(item.key[name]) for item in compared}) > 1]
    heads = [key.removesuffix("_bytes") for key in keys]
    lines = [[*heads, *names, *(f"change {name}" for name in names[1:])]]
    for item in compared:
        line = [_cell(item.key[key]) for key in keys]
        line += [_figure(record) for record in item.records]
        line += [describe_change(change, interval=intervals) for change in item.changes]
        lines.append(line)
    return lines


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return str(value)


def _figure(record: Record | None) -> str:
    """Return the figure by which people know a kind of record: a rate, or the median time."""
    if record is None:
        return "-"
    if record.error:
        return "failed"
    if isinstance(record, DiskRecord) and record.raw_read_gbps is not None:
        return f"{number(2)(record.raw_read_gbps)} GB/s"
    if isinstance(record, EvaluationRecord):
        score = show_value(record.score, "{:.4g}".format)
        return f"{record.headline} {score}, {show_value(record.questions_per_second, throughput)}/s"
    if record.tokens_per_second is not None:
        return f"{throughput(record.tokens_per_second)} t/s"
    return show_value(record.median_seconds, seconds)


def _short_names(files: Sequence[Path]) -> list[str]:
    """Return each file's name; where some are alike, with their folders."""
    names = [path.stem for path in files]
    if len(set(names)) < len(names):
        return [str(path) for path in files]
    return names


def _align(lines: Sequence[Sequence[str]]) -> str:
    """Return lines of cells as text in columns."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in lines
    ]
    return "\n".join(line.rstrip() for line in padded)
