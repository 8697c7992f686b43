"""The section of a report on training: techniques in memory, time and loss."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from edgellm.bench.records.differences import short_model
from edgellm.bench.records.record import Record
from edgellm.bench.records.training import TrainingRecord
from edgellm.bench.report.parts.record_tables import records_table
from edgellm.bench.tables.columns import training_columns, training_sentences
from edgellm.bench.tables.text_tables import number, seconds
from edgellm.console.units import size
from edgellm.pages.elements import bullets, definitions, details, panel, panels, section
from edgellm.pages.plots import Bar, bars

NOTE = (
    "Each technique in a process of its own, on the same tokens in the same order, with the same "
    "first numbers and AdamW."
)
WORDS = {
    "weights": "of the model in memory, what is learned included; paged, of pinned layers and "
    "buffers",
    "activations": "the rest of the peak in training: activations, scratch of the arithmetic, and "
    "memory freed for later",
    "before": "what the process held before the model was there: the interpreter and libraries",
    "loss": "of the first step's sequences before anything is learned, and after all steps, in "
    "nats per token",
}


def training_section(records: Sequence[Record], styles: Mapping[str, int]) -> str:
    """Return bars and a table for each model; nothing where no training was measured.

    Args:
        records: of all kinds.
        styles: the number of each library's colour.
    """
    by_model: dict[str, list[TrainingRecord]] = defaultdict(list)
    for record in records:
        if isinstance(record, TrainingRecord) and not record.error and record.seconds:
            by_model[record.model].append(record)
    if not by_model:
        return ""
    parts = [_of_model(model, group, styles) for model, group in by_model.items()]
    return section("Training", *parts, details("words", definitions(WORDS.items())), note=NOTE)


def _of_model(model: str, records: Sequence[TrainingRecord], styles: Mapping[str, int]) -> str:
    """Return the bars and the table of one model."""

    def drawn(figure: str, show: Callable[[float], str], *, samples: str | None = None) -> str:
        return bars(
            [
                Bar(
                    f"{record.backend}, {record.test}",
                    record.get(figure),
                    show(record.get(figure)),
                    styles[record.backend],
                    *_ends(record.get(samples) if samples else ()),
                )
                for record in records
                if record.get(figure) is not None
            ]
        )

    name, first = short_model(model), records[0]
    shown = [
        panel(f"{name}, peak of the process", drawn("peak_memory_bytes", size)),
        panel(
            f"{name}, seconds per step of {first.work}",
            drawn("median_seconds", seconds, samples="seconds"),
        ),
        panel(f"{name}, loss after {first.steps} steps", drawn("loss_after", number(4))),
    ]
    return (
        panels(shown)
        + bullets(training_sentences(records))
        + records_table(records, training_columns(records))
    )


def _ends(samples: Sequence[float]) -> tuple[float | None, float | None]:
    """Return the least and the largest of several samples."""
    if len(samples) < 2:
        return None, None
    return min(samples), max(samples)
