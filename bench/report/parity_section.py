"""The sections of a report on parity: do backends and bits agree; and on ablation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from edgellm.bench.records.differences import short_model
from edgellm.bench.records.record import RecordDict
from edgellm.bench.records.text_tables import Column, percent, seconds, show_cells
from edgellm.bench.report.elements import definitions, details, panel, panels, section, table
from edgellm.bench.report.plots import Bar, Series, bars, chart

PARITY_NOTE = "Logits after the same tokens of one text, and what each says by itself."
FIGURES: Mapping[str, Column] = {
    "largest difference": ("max_logit_difference", "{:.4g}".format),
    "KL": ("kl", "{:.4g}".format),
    "same top token": ("top1_agreement", percent),
    "perplexity": ("perplexity", "{:.4g}".format),
    "the other's": ("reference_perplexity", "{:.4g}".format),
}
ABLATION_COLUMNS: Mapping[str, Column] = {
    "variant": ("variant", str),
    "s/token": ("seconds_per_token", seconds),
    "as long as with it": ("slowdown", "{:.2f} x".format),
}


def parity_section(records: Sequence[RecordDict]) -> str:
    """Return how far logits, perplexity and greedy texts lie from the reference's."""
    compared = [
        record for record in records if record.get("kind") == "parity" and not record.get("error")
    ]
    if not compared:
        return ""
    heads = ["what", "compared with", *FIGURES, "same text"]
    rows = [
        [
            _side_name(record),
            _reference_name(record, record.get("reference_bits")),
            *show_cells(record, FIGURES),
            _text_equality(record),
        ]
        for record in compared
    ]
    texts = [_texts(record) for record in compared if record.get("text") is not None]
    parts = [_divergence_chart(compared), table(heads, rows), *texts]
    return section("Do they say the same?", *parts, note=PARITY_NOTE)


def ablation_section(records: Sequence[RecordDict]) -> str:
    """Return seconds a token with one part left out."""
    by_model: dict[str, list[RecordDict]] = defaultdict(list)
    for record in records:
        measured = not record.get("error") and record.get("seconds_per_token")
        if record.get("kind") == "ablation" and measured:
            by_model[record["model"]].append(record)
    if not by_model:
        return ""
    parts = [
        panel(
            short_model(model),
            bars([_ablation_bar(record) for record in group]),
            table(list(ABLATION_COLUMNS), [show_cells(one, ABLATION_COLUMNS) for one in group]),
        )
        for model, group in by_model.items()
    ]
    return section("What each part is worth", panels(parts), note="Seconds a token.")


def _ablation_bar(record: RecordDict) -> Bar:
    taken = record["seconds_per_token"]
    is_ablated = bool(record.get("without"))
    return Bar(str(record.get("variant")), taken, seconds(taken), style=int(is_ablated))


def _divergence_chart(records: Sequence[RecordDict]) -> str:
    """Return divergence over bits; nothing where all have the same bits."""
    points: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for record in records:
        if record.get("bits") and record.get("kl") is not None:
            points[record["backend"]].append((record["bits"], max(0.0, record["kl"])))
    bits = sorted({x for of_backend in points.values() for x, _ in of_backend})
    if len(bits) < 2:
        return ""
    return chart(
        [Series(backend, found, style) for style, (backend, found) in enumerate(points.items())],
        x_name="bits of a weight",
        y_name="KL divergence, nats a token",
        x_ticks=bits,
        logarithmic=True,
    )


def _texts(record: RecordDict) -> str:
    """Return two greedy texts under each other, folded away."""
    name = _side_name(record)
    pairs = [
        (name, str(record["text"])),
        (_reference_name(record, None), str(record.get("reference_text"))),
    ]
    return details(f"{name}: texts", definitions(pairs))


def _text_equality(record: RecordDict) -> str:
    equal = record.get("text_equal")
    if equal is None:
        return "-"
    if equal:
        return "yes"
    return f"the first {record.get('equal_tokens')} tokens"


def _side_name(record: RecordDict) -> str:
    return _name(record["model"], record["backend"], record.get("bits"))


def _reference_name(record: RecordDict, bits: int | None) -> str:
    model, backend = record.get("reference_model", ""), record.get("reference_backend", "")
    return _name(str(model), str(backend), bits)


def _name(model: str, backend: str, bits: int | None) -> str:
    name = f"{backend}, {short_model(model)}"
    if bits:
        name += f", {bits} bits"
    return name
