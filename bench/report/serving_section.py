"""The section of a report on load tests: what a server does as users become more."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgellm.bench.records.differences import short_model
from edgellm.bench.records.record import Record
from edgellm.bench.records.serving import ServingRecord
from edgellm.bench.report.parts.record_tables import records_table
from edgellm.bench.tables.columns import load_text, ratio_sentences, serving_columns
from edgellm.pages.elements import bullets, definitions, details, panel, panels, section
from edgellm.pages.plots import Series, chart

WORDS = {
    "TTFT": "time to first token, from when a request was due",
    "ITL": "gap between two pieces of text of a stream (inter-token latency)",
    "TPOT": "time per token after the first, of a whole answer",
    "E2E": "from when a request was due to the end of its answer",
    "client": "share of a core that the client itself took",
}


@dataclass(frozen=True, slots=True)
class _Curve:
    """A figure over users or arrivals: its field, its words, and what it is multiplied by."""

    figure: str
    name: str
    factor: float = 1.0


CURVES: Sequence[_Curve] = (
    _Curve("tokens_per_second", "tokens per second, all streams together"),
    _Curve("ttft_p99", "p99 of the time to first token, in ms", 1e3),
    _Curve("itl_p99", "p99 of the gap between tokens, in ms", 1e3),
    _Curve("requests_per_second", "requests per second"),
)


def serving_section(records: Sequence[Record], styles: Mapping[str, int]) -> str:
    """Return curves, ratios and a table of the load tests; nothing where there is none.

    Args:
        records: of all kinds.
        styles: the number of each server's colour.
    """
    shown = [record for record in records if isinstance(record, ServingRecord) and not record.error]
    if not shown:
        return ""
    users = [record for record in shown if record.rate is None]
    arrivals = [record for record in shown if record.rate is not None]
    parts = [
        panels([*_curves(users, styles), *_curves(arrivals, styles)]),
        bullets(ratio_sentences(shown)),
        *(records_table(part, serving_columns(part)) for part in (users, arrivals) if part),
        _failures(shown),
        details("words", definitions(WORDS.items())),
    ]
    return section("Servers under load", *parts)


def _curves(records: Sequence[ServingRecord], styles: Mapping[str, int]) -> list[str]:
    """Return a panel with a chart for each test and figure."""
    by_test: dict[str, list[ServingRecord]] = defaultdict(list)
    for record in records:
        by_test[record.test.partition(" at ")[0]].append(record)
    return [
        panel(f"{test}, {curve.name}", _drawn(curve, group, styles))
        for test, group in by_test.items()
        for curve in CURVES
        if any(record.get(curve.figure) for record in group)
    ]


def _drawn(curve: _Curve, records: Sequence[ServingRecord], styles: Mapping[str, int]) -> str:
    """Return the chart of a figure, with a line for each server and model."""
    points: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    x_name = "users at once"
    for record in records:
        load: float = record.batch
        if record.rate is not None:
            load, x_name = record.rate, "arrivals per second"
        value = record.get(curve.figure)
        if value:
            points[record.backend, short_model(record.model)].append((load, curve.factor * value))
    loads = sorted({load for series in points.values() for load, _ in series})
    return chart(
        [
            Series(f"{server}, {model}", series, styles[server])
            for (server, model), series in points.items()
        ],
        x_name=x_name,
        y_name=curve.name,
        x_ticks=loads,
        logarithmic=len(loads) > 1,
    )


def _failures(records: Sequence[ServingRecord]) -> str:
    """Return what failed, by kind."""
    sentences = [
        f"{record.backend}, {load_text(record)}: {kind}, {count}"
        for record in records
        for kind, count in record.failures.items()
    ]
    if not sentences:
        return ""
    return details("failed requests", bullets(sentences))
