"""Records as one page: plots, a table under each of them, what failed, and where it was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any

from edgellm.bench.records.differences import (
    SETTINGS,
    Row,
    differing,
    flat_environment,
    label,
    short_model,
)
from edgellm.bench.records.text_tables import (
    DISK_COLUMNS,
    PAGING_COLUMNS,
    Column,
    as_rows,
    megabytes,
    percent,
    seconds,
    speed_columns,
    throughput,
)
from edgellm.bench.report.answers_section import answers_section
from edgellm.bench.report.page import page
from edgellm.bench.report.parity_section import ablation_section, parity_section
from edgellm.bench.report.plots import Bar, Line, bars, chart, facts, table

INSIDE_A_PANEL = tuple(name for name in SETTINGS if name not in {"model", "test"})
Groups = Mapping[tuple[str, ...], Sequence[Row]]


def as_html(records: Sequence[Any]) -> str:
    """A whole document; records are ``Record`` or what ``Record.as_dict`` says."""
    rows = as_rows(records)
    speeds = [
        row
        for row in rows
        if row.get("kind") == "speed" and not row.get("error") and row["seconds"]
    ]
    prompts, generations = (
        [row for row in speeds if row["test"].startswith(kind)] for kind in ("pp", "tg")
    )
    styles = {
        name: number for number, name in enumerate(dict.fromkeys(row["backend"] for row in rows))
    }
    parts = [
        _head(rows),
        _speed_section(
            "Generation", "tokens a second, all sequences of a batch together", generations, styles
        ),
        _speed_section("Prompt", "prompt tokens a second", prompts, styles),
        _roofline_section(generations, styles),
        _threads_section(speeds, styles),
        _latency_section(generations),
        answers_section(rows),
        parity_section(rows),
        ablation_section(rows),
        _plain_section(
            "Paging", "A model inside a budget of memory.", rows, "paging", PAGING_COLUMNS
        ),
        _plain_section("Disk", "Plain sequential reads.", rows, "disk", DISK_COLUMNS),
        _failures(rows),
        _everything(speeds),
        _places(rows),
    ]
    return page("edgellm bench", "\n".join(part for part in parts if part))


def _head(rows: Sequence[Row]) -> str:
    chips = dict.fromkeys(_machine(row) for row in rows)
    times = sorted(str(row["environment"].get("time", "")) for row in rows)
    when = "" if not times else times[0] if times[0] == times[-1] else f"{times[0]} to {times[-1]}"
    failed = sum(bool(row.get("error")) for row in rows)
    count = f"{len(rows)} measurements" + (f", {failed} of them failed" if failed else "")
    return f'<h1>edgellm bench</h1><p class="soft">{escape("; ".join(chips))}<br>{escape(when)}<br>{count}</p>'


def _speed_section(title: str, unit: str, rows: Sequence[Row], styles: Mapping[str, int]) -> str:
    if not rows:
        return ""
    several_machines = len({_machine(row) for row in rows}) > 1

    def panel(group: Sequence[Row]) -> str:
        names = _names(group)
        found = [
            Bar(
                _named(row, names, several_machines),
                row["tokens_per_second"],
                throughput(row["tokens_per_second"]),
                styles[row["backend"]],
                *_range(row),
            )
            for row in sorted(group, key=lambda row: -row["tokens_per_second"])
        ]
        return bars(found) + _speed_table(group)

    note = "A bar is the median repetition; the line over its end reaches from the slowest to the fastest."
    return f"<h2>{title}</h2><p>{unit[:1].upper()}{unit[1:]}. {note}</p>{_panels(_by(rows, 'model', 'test'), panel)}"


def _names(group: Sequence[Row]) -> list[str]:
    """What tells the bars of a panel apart: always the backend."""
    names = [name for name in differing(group, INSIDE_A_PANEL) if name != "device"]
    return names if "backend" in names else ["backend", *names]


def _roofline_section(rows: Sequence[Row], styles: Mapping[str, int]) -> str:
    shown = [row for row in rows if row.get("roofline_share")]
    if not shown:
        return ""
    several_machines = len({_machine(row) for row in shown}) > 1

    def panel(group: Sequence[Row]) -> str:
        names = _names(group)
        found = [
            Bar(
                _named(row, names, several_machines),
                row["roofline_share"],
                percent(row["roofline_share"]),
                styles[row["backend"]],
            )
            for row in sorted(group, key=lambda row: -row["roofline_share"])
        ]
        columns: Mapping[str, Column] = {
            "of roofline": ("roofline_share", percent),
            "weights a token": ("weight_bytes_per_token", lambda value: f"{value / 1e6:,.0f} MB"),
            "GB/s": ("achieved_gbps", lambda value: f"{value:.1f}"),
            "machine's GB/s": ("read_gbps", lambda value: f"{value:.1f}"),
            "machine's GFLOP/s": ("compute_gflops", lambda value: f"{value:,.0f}"),
        }
        largest = max(row["roofline_share"] for row in group)
        return bars(found, limit=max(1.0, largest)) + _folded(_rows_table(group, names, columns))

    note = (
        "The share of what this machine could do at the most: a full track is 100%, every weight read once a token at the rate "
        "that its memory was measured to have in the same run. More is a model small enough for the processor's caches."
    )
    return f"<h2>How near to the machine's limit</h2><p>{note}</p>{_panels(_by(shown, 'model', 'test'), panel)}"


def _threads_section(rows: Sequence[Row], styles: Mapping[str, int]) -> str:
    others = [name for name in INSIDE_A_PANEL if name != "threads"]
    counted = [row for row in rows if row.get("threads")]

    def lines(group: Sequence[Row]) -> list[Line]:
        names = differing(group, others)
        names = names if "backend" in names else ["backend", *names]
        series: dict[str, list[Row]] = {}
        for row in group:
            series.setdefault(label(row, names), []).append(row)
        return [
            Line(
                name,
                [(row["threads"], row["tokens_per_second"]) for row in members],
                styles[members[0]["backend"]],
            )
            for name, members in series.items()
            if len({row["threads"] for row in members}) > 1
        ]

    def panel(group: Sequence[Row]) -> str:
        counts = sorted({row["threads"] for row in group})
        columns: Mapping[str, Column] = {"tokens/s": ("tokens_per_second", throughput)}
        drawn = chart(
            lines(group),
            x_name="threads",
            y_name="tokens a second",
            x_ticks=counts,
            logarithmic=counts[0] < counts[-1],
        )
        return drawn + _folded(_rows_table(group, ["backend", "threads"], columns))

    groups = {name: group for name, group in _by(counted, "model", "test").items() if lines(group)}
    if not groups:
        return ""
    return f"<h2>What threads bring</h2><p>The same work with more of the processor's cores.</p>{_panels(groups, panel)}"


def _latency_section(rows: Sequence[Row]) -> str:
    shown = [row for row in rows if row.get("step_seconds")]
    if not shown:
        return ""
    columns: Mapping[str, Column] = {
        "half below": ("step_p50", seconds),
        "90% below": ("step_p90", seconds),
        "99% below": ("step_p99", seconds),
        "steps": ("step_seconds", lambda value: str(len(value))),
    }
    names = [
        "backend",
        *(
            name
            for name in differing(
                shown, ("model", "bits", "threads", "batch", "test", "memory_bytes")
            )
        ),
    ]
    note = "Steps of a generation timed one by one, each waited for."
    return f"<h2>Time of a single token</h2><p>{note}</p>{_rows_table(shown, names, columns)}"


def _plain_section(
    title: str, note: str, rows: Sequence[Row], kind: str, columns: Mapping[str, Column]
) -> str:
    shown = [row for row in rows if row.get("kind") == kind]
    if not shown:
        return ""
    return f"<h2>{title}</h2><p>{note}</p>{_rows_table(shown, ['model'], columns)}"


def _failures(rows: Sequence[Row]) -> str:
    failed = [row for row in rows if row.get("error")]
    if not failed:
        return ""
    names = differing(
        failed, [name for name in SETTINGS if name not in {"backend", "model", "test"}]
    )
    heads = ["backend", "model", "test", *names, "what went wrong"]
    cells = [[_text(row, name) for name in heads[:-1]] + [str(row["error"])] for row in failed]
    return f"<h2>What went wrong</h2>{table(heads, cells, prose=heads[-1])}"


def _everything(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    return f"<h2>All speeds</h2>{_speed_table(rows, folded=False)}"


def _places(rows: Sequence[Row]) -> str:
    places: dict[str, dict[str, str]] = {}
    for row in rows:
        found = flat_environment(row)
        places.setdefault(repr(sorted(found.items())), found)
    drawn = [
        f"<h3>{escape(found.get('chip', 'machine'))}</h3>{facts(_said(found))}"
        for found in places.values()
    ]
    return f'<h2>Where it was measured</h2><div class="panels">{"".join(f"<div>{part}</div>" for part in drawn)}</div>'


def _said(found: Mapping[str, str]) -> dict[str, str]:
    named = {
        name.removeprefix("packages.").replace("_", " ").replace(".", " "): value
        for name, value in found.items()
    }
    memory = found.get("memory_bytes", "")
    if memory.isdecimal():
        named = {
            ("memory" if name == "memory bytes" else name): value for name, value in named.items()
        }
        named["memory"] = f"{int(memory) / 1e9:.1f} GB"
    return named


def _speed_table(rows: Sequence[Row], *, folded: bool = True) -> str:
    columns = speed_columns(rows)
    found = table(
        list(columns), [[_shown(row, column) for column in columns.values()] for row in rows]
    )
    return _folded(found) if folded else found


def _rows_table(rows: Sequence[Row], names: Sequence[str], columns: Mapping[str, Column]) -> str:
    cells = [
        [
            *(_text(row, name) for name in names),
            *(_shown(row, column) for column in columns.values()),
        ]
        for row in rows
    ]
    return table([*(name.removesuffix("_bytes") for name in names), *columns], cells)


def _folded(found: str) -> str:
    return f"<details><summary>figures</summary>{found}</details>"


def _panels(groups: Groups, panel: Callable[[Sequence[Row]], str]) -> str:
    drawn = [
        f"<section><h3>{escape(', '.join(names))}</h3>{panel(group)}</section>"
        for names, group in groups.items()
    ]
    return f'<div class="panels">{"".join(drawn)}</div>'


def _by(rows: Iterable[Row], *names: str) -> dict[tuple[str, ...], list[Row]]:
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(_text(row, name) for name in names), []).append(row)
    return groups


def _text(row: Row, name: str) -> str:
    value = row.get(name)
    if value is None:
        return "-"
    return (
        short_model(str(value))
        if name == "model"
        else megabytes(value)
        if name == "memory_bytes"
        else str(value)
    )


def _shown(row: Row, column: Column) -> str:
    key, show = column
    value = row.get(key)
    if value is None:
        return "-"
    return short_model(value) if key == "model" else show(value)


def _named(row: Row, names: Sequence[str], several_machines: bool) -> str:
    found = label(row, names)
    return f"{found}, {_machine(row)}" if several_machines else found


def _machine(row: Row) -> str:
    """What computed, as a person tells machines apart."""
    environment, device = row["environment"], str(row.get("device") or "")
    chip = str(environment.get("chip") or "?")
    cores = environment.get("cores")
    host = f"{chip}, {cores} cores" if cores else chip
    return host if device in {"", chip} else f"{device} at {host}"


def _range(row: Row) -> tuple[float | None, float | None]:
    """Tokens a second of the slowest and of the fastest repetition."""
    times, work = row["seconds"], row["tokens"] * (row.get("batch") or 1)
    return (
        (work / max(times), work / min(times))
        if len(times) > 1 and min(times) > 0
        else (None, None)
    )
