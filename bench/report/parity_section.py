"""The sections of a report on parity: do backends and bits agree; and on ablation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from edgellm.bench.records.differences import short_model
from edgellm.bench.records.kinds import AblationRecord, ParityRecord
from edgellm.bench.records.record import Record
from edgellm.bench.tables.text_tables import Column, percent, seconds, show_cells
from edgellm.pages.elements import definitions, details, panel, panels, section, table
from edgellm.pages.plots import Bar, Series, bars, chart

PARITY_NOTE = "Logits after the same tokens of one text, and what each says by itself."
FIGURES: Mapping[str, Column] = {
    "largest difference": ("max_logit_difference", "{:.4g}".format),
    "KL": ("kl", "{:.4g}".format),
    "same top token": ("top1_agreement", percent),
    "perplexity": ("perplexity", "{:.4g}".format),
    "the other's": ("reference_perplexity", "{:.4g}".format),
}
ABLATION_FIGURES: Mapping[str, Column] = {
    "variant": ("variant", str),
    "s/token": ("seconds_per_token", seconds),
    "as long as with it": ("slowdown", "{:.2f} x".format),
}


def parity_section(records: Sequence[Record]) -> str:
    """Return how far logits, perplexity and greedy texts lie from the reference's."""
    compared = [
        record for record in records if isinstance(record, ParityRecord) and not record.error
    ]
    if not compared:
        return ""
    heads = ["what", "compared with", *FIGURES, "same text"]
    rows = [
        [
            _side_name(record),
            _reference_name(record, record.reference_bits),
            *show_cells(record, FIGURES),
            _text_equality(record),
        ]
        for record in compared
    ]
    texts = [_texts(record) for record in compared if record.text is not None]
    parts = [_divergence_chart(compared), table(heads, rows), *texts]
    return section("Do they say the same?", *parts, note=PARITY_NOTE)


def ablation_section(records: Sequence[Record]) -> str:
    """Return seconds per token with one part left out."""
    by_model: dict[str, list[AblationRecord]] = defaultdict(list)
    for record in records:
        if isinstance(record, AblationRecord) and not record.error and record.seconds_per_token:
            by_model[record.model].append(record)
    if not by_model:
        return ""
    parts = [
        panel(
            short_model(model),
            bars([_ablation_bar(record) for record in group]),
            table(list(ABLATION_FIGURES), [show_cells(one, ABLATION_FIGURES) for one in group]),
        )
        for model, group in by_model.items()
    ]
    return section("What each part is worth", panels(parts), note="Seconds per token.")


def _ablation_bar(record: AblationRecord) -> Bar:
    taken = record.seconds_per_token or 0.0
    is_ablated = bool(record.without)
    return Bar(record.variant, taken, seconds(taken), style=int(is_ablated))


def _divergence_chart(records: Sequence[ParityRecord]) -> str:
    """Return divergence over bits; nothing where all have the same bits."""
    points: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for record in records:
        if record.bits and record.kl is not None:
            points[record.backend].append((record.bits, record.kl))
    bits = sorted({x for of_backend in points.values() for x, _ in of_backend})
    if len(bits) < 2:
        return ""
    return chart(
        [Series(backend, found, style) for style, (backend, found) in enumerate(points.items())],
        x_name="bits per weight",
        y_name="KL divergence, nats per token",
        x_ticks=bits,
        logarithmic=True,
    )


def _texts(record: ParityRecord) -> str:
    """Return two greedy texts under each other, folded away."""
    name = _side_name(record)
    pairs = [
        (name, str(record.text)),
        (_reference_name(record, None), str(record.reference_text)),
    ]
    return details(f"{name}: texts", definitions(pairs))


def _text_equality(record: ParityRecord) -> str:
    if record.text_equal is None:
        return "-"
    if record.text_equal:
        return "yes"
    return f"the first {record.equal_tokens} tokens"


def _side_name(record: ParityRecord) -> str:
    return _name(record.model, record.backend, record.bits)


def _reference_name(record: ParityRecord, bits: int | None) -> str:
    return _name(record.reference_model, record.reference_backend, bits)


def _name(model: str, backend: str, bits: int | None) -> str:
    name = f"{backend}, {short_model(model)}"
    if bits:
        name += f", {bits} bits"
    return name
