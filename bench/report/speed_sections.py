"""The sections of a report about speed: tokens/s, roofline, threads, and latency of a token."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from edgellm.bench.records.differences import SETTINGS, differing_settings, label
from edgellm.bench.records.doubts import MAX_SHARE
from edgellm.bench.records.record import Record, SpeedRecord
from edgellm.bench.report.parts.record_tables import records_table, setting_columns, setting_text
from edgellm.bench.tables.columns import speed_columns
from edgellm.bench.tables.text_tables import (
    Column,
    doubted,
    megabytes,
    percent,
    seconds,
    throughput,
)
from edgellm.pages.elements import details, panel, panels, section
from edgellm.pages.plots import Bar, Series, bars, chart

INSIDE_A_PANEL = tuple(name for name in SETTINGS if name not in {"model", "test"})
"""Settings in which records of one panel differ; a model and test has a panel of its own."""

INTERVALS = (
    "A bar is the median repetition; the line over its end reaches from the slowest to the fastest."
)
ROOFLINE = (
    "The share of what this machine could do at most: a full track is 100%, every weight read once "
    "per token at the rate that its memory was measured to have in the same run. More than 100% is "
    "explained under Doubtful figures."
)
ROOFLINE_COLUMNS: Mapping[str, Column] = {
    "of roofline": ("roofline_share", doubted(percent, MAX_SHARE)),
    "weights per token": ("weight_bytes_per_token", megabytes),
    "GB/s": ("achieved_gbps", "{:.1f}".format),
    "machine's GB/s": ("read_gbps", "{:.1f}".format),
    "machine's GFLOP/s": ("compute_gflops", "{:,.0f}".format),
}
LATENCY_COLUMNS: Mapping[str, Column] = {
    "median": ("step_p50", seconds),
    "p90": ("step_p90", seconds),
    "p99": ("step_p99", seconds),
    "steps": ("step_seconds", lambda steps: str(len(steps))),
}


def speed_sections(records: Sequence[SpeedRecord], styles: Mapping[str, int]) -> list[str]:
    """Return the HTML of each section; empty where no record has its figures.

    Args:
        records: of speeds, without failures.
        styles: the number of each backend's colour.
    """
    prompts = [record for record in records if record.is_prompt]
    generations = [record for record in records if record.test.startswith("tg")]
    generation_unit = "Tokens per second, all sequences of a batch together."
    return [
        _throughput_section("Generation", generation_unit, generations, styles),
        _throughput_section("Prompt", "Prompt tokens per second.", prompts, styles),
        _roofline_section(generations, styles),
        _threads_section(records, styles),
        _latency_section(generations),
    ]


def machine_name(record: Record) -> str:
    """Return the device, and the machine that it is in, as a person tells machines apart."""
    environment = record.environment
    chip = environment.get("chip") or "?"
    host = chip
    if environment.get("cores"):
        host = f"{chip}, {environment['cores']} cores"
    if record.device in {"", chip}:
        return host
    return f"{record.device} at {host}"


def _throughput_section(
    title: str, unit: str, records: Sequence[SpeedRecord], styles: Mapping[str, int]
) -> str:
    if not records:
        return ""
    name = _bar_name_in(records)

    def draw(group: Sequence[SpeedRecord]) -> str:
        settings = _bar_settings(group)
        drawn = [
            Bar(
                name(record, settings),
                value,
                throughput(value),
                styles[record.backend],
                *_slowest_and_fastest(record),
            )
            for value, record in _largest_first(group, "tokens_per_second")
        ]
        return bars(drawn) + _folded(records_table(group, speed_columns(group)))

    return section(title, _panels(_by_model_and_test(records), draw), note=f"{unit} {INTERVALS}")


def _roofline_section(records: Sequence[SpeedRecord], styles: Mapping[str, int]) -> str:
    shown = [record for record in records if record.roofline_share]
    if not shown:
        return ""
    name = _bar_name_in(shown)

    def draw(group: Sequence[SpeedRecord]) -> str:
        settings = _bar_settings(group)
        drawn = [
            Bar(
                name(record, settings),
                value,
                percent(value),
                styles[record.backend],
            )
            for value, record in _largest_first(group, "roofline_share")
        ]
        # a model in the processor's caches may be above 100%
        limit = max(1.0, drawn[0].value)
        columns = setting_columns(settings) | dict(ROOFLINE_COLUMNS)
        return bars(drawn, limit=limit) + _folded(records_table(group, columns))

    groups = _by_model_and_test(shown)
    return section("How near to the machine's limit", _panels(groups, draw), note=ROOFLINE)


def _threads_section(records: Sequence[SpeedRecord], styles: Mapping[str, int]) -> str:
    threaded = [record for record in records if record.threads]
    columns = setting_columns(["backend", "threads"])
    columns["tokens/s"] = ("tokens_per_second", throughput)

    def draw(group: Sequence[SpeedRecord]) -> str:
        counts = sorted({record.threads or 0 for record in group})
        drawn = chart(
            _thread_series(group, styles),
            x_name="threads",
            y_name="tokens per second",
            x_ticks=counts,
            logarithmic=counts[0] < counts[-1],
        )
        return drawn + _folded(records_table(group, columns))

    groups = {
        heading: group
        for heading, group in _by_model_and_test(threaded).items()
        if _thread_series(group, styles)
    }
    if not groups:
        return ""
    note = "The same work with more of the processor's cores."
    return section("What threads bring", _panels(groups, draw), note=note)


def _thread_series(group: Sequence[SpeedRecord], styles: Mapping[str, int]) -> list[Series]:
    """Return tokens/s over threads of what was measured on several numbers of them."""
    others = [name for name in INSIDE_A_PANEL if name != "threads"]
    settings = _with_backend(differing_settings(group, others))
    by_label: dict[str, list[SpeedRecord]] = defaultdict(list)
    for record in group:
        by_label[label(record, settings)].append(record)
    return [
        Series(
            name,
            [(record.threads or 0, record.tokens_per_second or 0.0) for record in members],
            styles[members[0].backend],
        )
        for name, members in by_label.items()
        if len({record.threads for record in members}) > 1
    ]


def _latency_section(records: Sequence[SpeedRecord]) -> str:
    shown = [record for record in records if record.step_seconds]
    if not shown:
        return ""
    names = ("model", "bits", "threads", "batch", "test", "memory_bytes")
    columns = setting_columns(["backend", *differing_settings(shown, names)])
    note = "Steps of a generation timed one by one, each waited for."
    table = records_table(shown, columns | dict(LATENCY_COLUMNS))
    return section("Time of a single token", table, note=note)


def _bar_settings(group: Sequence[SpeedRecord]) -> list[str]:
    """Return the settings that tell the bars of a panel apart."""
    names = differing_settings(group, INSIDE_A_PANEL)
    return _with_backend([name for name in names if name != "device"])


def _with_backend(names: Sequence[str]) -> list[str]:
    """Return the settings, the backend always among them."""
    if "backend" in names:
        return list(names)
    return ["backend", *names]


def _bar_name_in(records: Sequence[SpeedRecord]) -> Callable[[SpeedRecord, Sequence[str]], str]:
    """Return what names a record by its settings, and by its machine if there are several."""
    several_machines = len({machine_name(record) for record in records}) > 1

    def name(record: SpeedRecord, settings: Sequence[str]) -> str:
        if several_machines:
            return f"{label(record, settings)}, {machine_name(record)}"
        return label(record, settings)

    return name


def _largest_first(records: Iterable[SpeedRecord], figure: str) -> list[tuple[float, SpeedRecord]]:
    """Return records, each behind its figure, from the largest figure to the smallest."""
    pairs = [(record.get(figure), record) for record in records]
    return sorted(pairs, key=lambda pair: -pair[0])


def _slowest_and_fastest(record: SpeedRecord) -> tuple[float | None, float | None]:
    """Return tokens per second of the slowest and of the fastest repetition."""
    times = record.seconds
    if len(times) < 2 or not min(times):
        return None, None
    tokens = record.tokens * record.batch
    return tokens / max(times), tokens / min(times)


def _by_model_and_test(records: Iterable[SpeedRecord]) -> dict[str, list[SpeedRecord]]:
    """Return the records of each panel by its heading."""
    groups: dict[str, list[SpeedRecord]] = defaultdict(list)
    for record in records:
        heading = f"{setting_text(record, 'model')}, {setting_text(record, 'test')}"
        groups[heading].append(record)
    return groups


def _panels(
    groups: Mapping[str, Sequence[SpeedRecord]], draw: Callable[[Sequence[SpeedRecord]], str]
) -> str:
    return panels(panel(heading, draw(group)) for heading, group in groups.items())


def _folded(table: str) -> str:
    return details("figures", table)
