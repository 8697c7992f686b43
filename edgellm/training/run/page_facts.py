"""The facts of a run that its page shows besides its steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgellm.console.units import count, plural, seconds, size
from edgellm.device import machine
from edgellm.training.data.rendering import Rendered
from edgellm.training.full.memory import FullMemory
from edgellm.training.learners.adapter_memory import TrainingMemory
from edgellm.training.page.training_page import PageFacts, ShownAnswer
from edgellm.training.run.request import TrainRequest
from edgellm.training.run.trainer import Trainer

PAGE = "training.html"

Table = Sequence[tuple[str, str]]
"""Names, each with what stands behind it."""


def page_facts(
    request: TrainRequest,
    trainer: Trainer[Any],
    steps: Sequence[Mapping[str, Any]],
    *,
    learned: int,
    answers: Sequence[ShownAnswer],
    data: Table,
    memory: TrainingMemory | FullMemory,
    machines: Mapping[str, str],
) -> PageFacts:
    """Return a run as its page shows it.

    Args:
        request: what was asked for.
        trainer: where the run is.
        steps: that were taken.
        learned: numbers that are learned.
        answers: before and after.
        data: what became of the records, as ``data_table`` has it.
        memory: what it takes.
        machines: what it takes on each of the others, in words.
    """
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    taken = sum(step["seconds"] for step in steps)
    tokens = sum(step["tokens"] for step in steps)
    numbers = count(learned)
    pace = f"{tokens / taken:.0f} tokens a second" if taken else ""
    lines = [
        f"{Path(request.data).name} on {Path(request.model).name}: {numbers} numbers are learned",
        f"step {trainer.step} of {trainer.steps}, {now}"
        + (f"; {seconds(taken)} of steps, {pace}" if taken else ""),
        machine.chip_name(),
    ]
    tables: dict[str, Table] = {
        "Data": data,
        "Memory, as planned": [
            *((name, size(nbytes)) for name, nbytes in memory.parts.items()),
            ("together", size(memory.total)),
            ("in short", memory.in_words()),
            ("peak of the process so far", size(machine.peak_process_memory())),
        ],
        "Settings": [
            *(
                (name.replace("_", " "), _text(value))
                for name, value in request.settings.by_option().items()
            ),
            ("max tokens", str(request.max_tokens)),
            ("format", request.form),
        ],
    }
    if machines:
        shares = steps[-1].get("shares", {}) if steps else {}
        tables["Other machines"] = [
            (name, f"{words}; {shares.get(name, 0):,} tokens of the last step")
            for name, words in machines.items()
        ]
    return PageFacts(
        title=f"Training {request.folder.absolute().name}",
        lines=lines,
        steps=steps,
        epochs=trainer.history,
        answers=answers,
        limit=request.settings.rates.clip,
        tables=tables,
    )


def data_table(data: Rendered, valid: int, notes: Sequence[str]) -> Table:
    """Return what became of the records; it looks at each token, and is the same at each save.

    Args:
        data: of those that are learned.
        valid: sequences that are not learned.
        notes: of all records.
    """
    return [
        ("pairs" if data.paired else "sequences", data.counted.split()[0]),
        ("tokens", f"{data.tokens:,}, of which {data.learned:,} are learned"),
        ("not learned", plural(valid, "sequence") if valid else "none"),
        *(("note", note) for note in notes),
    ]


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)
