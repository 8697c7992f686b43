"""Make one page of records: plots, tables, failures, and where it was measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from html import escape

from edgellm.bench.records.differences import (
    SETTINGS,
    differing_settings,
    flat_environment,
    label,
    short_model,
)
from edgellm.bench.records.kinds import DiskRecord, PagingRecord
from edgellm.bench.records.record import Record, SpeedRecord
from edgellm.bench.report.answers_section import answers_section
from edgellm.bench.report.evaluation_section import evaluation_section
from edgellm.bench.report.parity_section import ablation_section, parity_section
from edgellm.bench.report.parts.record_tables import records_table, setting_columns
from edgellm.bench.report.serving_section import serving_section
from edgellm.bench.report.speed_sections import machine_name, speed_sections
from edgellm.bench.report.training_section import training_section
from edgellm.bench.tables.columns import DISK_COLUMNS, PAGING_COLUMNS, speed_columns
from edgellm.bench.tables.narrow_tables import cluster_lines, meanings_of_tests
from edgellm.bench.tables.text_tables import Column
from edgellm.pages.elements import bullets, definitions, panel, panels, section, sentence
from edgellm.pages.page import page

CLUSTERS = (
    "The memory held, the time to load and the reads of the figures are the first machine's; how "
    "near several machines are to their limits is not known."
)


def as_html(records: Sequence[Record]) -> str:
    """Return a whole document."""
    # the colour of a backend is the same in all sections
    backends = dict.fromkeys(record.backend for record in records)
    styles = {backend: number for number, backend in enumerate(backends)}
    speeds = [
        record
        for record in records
        if isinstance(record, SpeedRecord) and not record.error and record.tokens_per_second
    ]
    parts = [
        _head(records),
        _failures_section(records),
        _not_measured_section(records),
        _doubts_section(records),
        evaluation_section(records),
        *speed_sections(speeds, styles),
        serving_section(records, styles),
        training_section(records, styles),
        answers_section(records),
        parity_section(records),
        ablation_section(records),
        _kind_section(records, PagingRecord, PAGING_COLUMNS, "A model inside a budget of memory."),
        _kind_section(records, DiskRecord, DISK_COLUMNS, "Plain sequential reads."),
        _all_speeds_section(speeds),
        _clusters_section(records),
        _machines_section(records),
    ]
    return page("edgellm bench", "\n".join(part for part in parts if part))


def _head(records: Sequence[Record]) -> str:
    machines = dict.fromkeys(machine_name(record) for record in records)
    times = sorted(record.environment.get("time") or "" for record in records)
    first_and_last = dict.fromkeys((*times[:1], *times[-1:]))
    count = f"{len(records)} measurements"
    failed = sum(bool(record.error) for record in records)
    if failed:
        count += f", {failed} of them failed"
    lines = [escape("; ".join(machines)), escape(_readable(first_and_last)), count]
    head = f'<h1>edgellm bench</h1><p class="soft">{"<br>".join(lines)}</p>'
    meanings = meanings_of_tests(records)
    if not meanings:
        return head
    return f"{head}{definitions(meanings.items())}"


def _kind_section(
    records: Sequence[Record], kind: type[Record], columns: Mapping[str, Column], note: str
) -> str:
    """Return a table of all records of a kind."""
    shown = [record for record in records if isinstance(record, kind)]
    if not shown:
        return ""
    shown_table = records_table(shown, setting_columns(["model"]) | dict(columns))
    return section(kind.KIND.capitalize(), shown_table, note=note)


def _failures_section(records: Sequence[Record]) -> str:
    failed = [record for record in records if record.error]
    reasons = [(record.error or "", "", record) for record in failed]
    return _reasons_section("What went wrong", reasons, failed)


def _readable(times: Iterable[str]) -> str:
    """Return points in time as people write them."""
    texts = [time.replace("T", " ").removesuffix("Z") for time in times if time]
    if not texts:
        return ""
    return f"{' to '.join(texts)} UTC"


def _not_measured_section(records: Sequence[Record]) -> str:
    """Return what a run left out, with the reasons; empty where it left out nothing."""
    sentences = dict.fromkeys(
        sentence
        for record in records
        if isinstance(record, SpeedRecord)
        for sentence in record.not_measured
    )
    if not sentences:
        return ""
    shown = [sentence.removeprefix("not measured: ") for sentence in sentences]
    return section("What was not measured", bullets(shown))


def _doubts_section(records: Sequence[Record]) -> str:
    """Return the figures that are not to be trusted, with the reasons; empty where all are."""
    doubtful = [record for record in records if record.doubts]
    reasons = [
        (doubt.reason, f": {doubt.figure}", record)
        for record in doubtful
        for doubt in record.doubts
    ]
    return _reasons_section("Doubtful figures", reasons, doubtful)


def _reasons_section(
    title: str, reasons: Sequence[tuple[str, str, Record]], records: Sequence[Record]
) -> str:
    """Return each reason, with the records that it is about; empty without any.

    Args:
        title: the title of the section.
        reasons: each with what is said behind the name of the record that it is about.
        records: all of them.
    """
    if not reasons:
        return ""
    first = ["task", "backend", "test", "model"]
    names = [*first, *differing_settings(records, [name for name in SETTINGS if name not in first])]
    about: dict[str, dict[str, None]] = {}
    for reason, figure, record in reasons:
        named = replace(record, model=short_model(record.model))
        about.setdefault(reason, {})[label(named, names) + figure] = None
    parts = [sentence(f"{reason}:") + bullets(where) for reason, where in about.items()]
    return section(title, *parts)


def _all_speeds_section(records: Sequence[Record]) -> str:
    if not records:
        return ""
    return section("All speeds", records_table(records, speed_columns(records)))


def _clusters_section(records: Sequence[Record]) -> str:
    """Return which machines computed together, and the links between them; nothing of one."""
    clusters: dict[str, list[Record]] = {}
    for record in records:
        if record.machines:
            named = f"{record.split} {[machine.get('name') for machine in record.machines]}"
            clusters.setdefault(named, []).append(record)
    parts = [
        panel(group[0].cluster or "", bullets(cluster_lines(group))) for group in clusters.values()
    ]
    if not parts:
        return ""
    return section("Machines that computed together", panels(parts), note=CLUSTERS)


def _machines_section(records: Sequence[Record]) -> str:
    environments = {
        repr(sorted(environment.items())): environment
        for environment in map(flat_environment, records)
    }
    parts = [
        f"<div><h3>{escape(environment.get('chip', 'machine'))}</h3>"
        f"{definitions(_facts(environment).items())}</div>"
        for environment in environments.values()
    ]
    return section("Where it was measured", panels(parts))


def _facts(environment: Mapping[str, str]) -> dict[str, str]:
    """Return a flat environment with names and sizes as people say them."""
    facts = {}
    for name, value in environment.items():
        if name == "memory_bytes" and value.isdecimal():
            facts["memory"] = f"{int(value) / 1e9:.1f} GB"
        else:
            facts[name.removeprefix("packages.").replace("_", " ").replace(".", " ")] = value
    return facts
