"""The parts of a report that say whether backends and quantizations agree, and what each part of the runtime is worth."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from edgellm.bench.records.differences import Row, short_model
from edgellm.bench.records.text_tables import percent, seconds
from edgellm.bench.report.plots import Bar, Line, bars, chart, table


def parity_section(rows: Sequence[Row]) -> str:
    """How far logits, perplexity and greedy texts of models lie from those of the one that they are compared with."""
    compared = [row for row in rows if row.get("kind") == "parity" and not row.get("error")]
    if not compared:
        return ""
    heads = [
        "what",
        "compared with",
        "largest difference",
        "KL",
        "same top token",
        "perplexity",
        "the other's",
        "same text",
    ]
    cells = [
        [
            _side(row["model"], row["backend"], row.get("bits")),
            _side(
                str(row.get("reference_model", "")),
                str(row.get("reference_backend", "")),
                row.get("reference_bits"),
            ),
            _digits(row.get("max_logit_difference")),
            _digits(row.get("kl")),
            "-" if row.get("top1_agreement") is None else percent(row["top1_agreement"]),
            _digits(row.get("perplexity")),
            _digits(row.get("reference_perplexity")),
            "-"
            if row.get("text_equal") is None
            else "yes"
            if row["text_equal"]
            else f"the first {row.get('equal_tokens')} tokens",
        ]
        for row in compared
    ]
    note = "Logits after the same tokens of one text, and what each says by itself."
    return f"<h2>Do they say the same?</h2><p>{note}</p>{_accuracy(compared)}{table(heads, cells)}{_texts(compared)}"


def ablation_section(rows: Sequence[Row]) -> str:
    """Seconds a token with one part left out."""
    measured = [
        row
        for row in rows
        if row.get("kind") == "ablation" and not row.get("error") and row.get("seconds_per_token")
    ]
    parts = []
    for model in dict.fromkeys(row["model"] for row in measured):
        own = [row for row in measured if row["model"] == model]
        drawn = [
            Bar(
                str(row.get("variant")),
                row["seconds_per_token"],
                seconds(row["seconds_per_token"]),
                int(bool(row.get("without"))),
            )
            for row in own
        ]
        cells = [
            [
                str(row.get("variant")),
                seconds(row["seconds_per_token"]),
                "-" if row.get("slowdown") is None else f"{row['slowdown']:.2f} x",
            ]
            for row in own
        ]
        under = table(["variant", "s/token", "as long as with it"], cells)
        parts.append(
            f"<section><h3>{escape(short_model(model))}</h3>{bars(drawn)}{under}</section>"
        )
    if not parts:
        return ""
    return f'<h2>What each part is worth</h2><p>Seconds a token.</p><div class="panels">{"".join(parts)}</div>'


def _accuracy(rows: Sequence[Row]) -> str:
    """Divergence over bits, where there are several."""
    found: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if row.get("bits") and row.get("kl") is not None:
            found.setdefault(row["backend"], []).append((row["bits"], max(0.0, row["kl"])))
    ticks = sorted({bits for points in found.values() for bits, _ in points})
    if len(ticks) < 2:
        return ""
    lines = [Line(backend, points, style) for style, (backend, points) in enumerate(found.items())]
    return chart(
        lines,
        x_name="bits of a weight",
        y_name="KL divergence, nats a token",
        x_ticks=ticks,
        logarithmic=True,
    )


def _texts(rows: Sequence[Row]) -> str:
    """Greedy texts side by side."""
    parts = []
    for row in rows:
        if row.get("text") is None:
            continue
        sides = [
            (_side(row["model"], row["backend"], row.get("bits")), row["text"]),
            (
                _side(
                    str(row.get("reference_model", "")), str(row.get("reference_backend", "")), None
                ),
                row.get("reference_text"),
            ),
        ]
        items = "".join(
            f"<dt>{escape(name)}</dt><dd>{escape(str(text))}</dd>" for name, text in sides
        )
        parts.append(
            f"<details><summary>{escape(sides[0][0])}: texts</summary><dl>{items}</dl></details>"
        )
    return "".join(parts)


def _side(model: str, backend: str, bits: int | None) -> str:
    return ", ".join([backend, short_model(model), *([f"{bits} bits"] if bits else [])])


def _digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
