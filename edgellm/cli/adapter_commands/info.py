"""``edgellm adapter info``: what an adapter changes, and by how much."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated

from typer import Argument

from edgellm.cli.common import options
from edgellm.console import terminal

if TYPE_CHECKING:
    from edgellm.low_rank.description import AdapterFacts, ChangeFacts


def info(
    folder: Annotated[Path, Argument(metavar="FOLDER", help="A folder of PEFT's or mlx-lm's.")],
    *,
    json: options.Json = False,
) -> None:
    """Show what an adapter changes: form, base, ranks and targets, norms and effective ranks."""
    from edgellm.adapters.stored import open_stored
    from edgellm.console.rows import show_rows
    from edgellm.low_rank.description import describe

    facts = describe(open_stored(folder))
    if json:
        terminal.write_json(facts.facts())
        return
    show_rows(_rows(facts), title=str(facts.stored.path))
    if facts.changes:
        terminal.write_line(f"\n{_table(facts)}")


def _rows(facts: AdapterFacts) -> list[tuple[str, str]]:
    from edgellm.console.units import count, plural, size

    adapter = facts.stored.adapter
    whose = {"peft": "PEFT", "mlx-lm": "mlx-lm"}[facts.stored.form]
    rows = [
        ("kind", f"{facts.kind}, as {whose} stores it"),
        ("base", facts.stored.base or "not named"),
    ]
    if facts.changes:
        types = sorted({item.up.tensor.info.dtype for item in adapter.changes.values()})
        numbers = sum(change.numbers for change in facts.changes)
        changed = plural(len(facts.changes), "matrix", "matrices")
        if facts.layers:
            changed += f" in {plural(len(facts.layers), 'layer')} ({_ranges(facts.layers)})"
        rows += [
            ("rank", ", ".join(map(str, sorted({change.rank for change in facts.changes})))),
            ("scale", ", ".join(f"{x:g}" for x in sorted({c.scale for c in facts.changes}))),
            ("changes", changed),
            ("numbers", f"{count(numbers)} in {' and '.join(types)}"),
            ("norm of all changes", f"{facts.norm:.4g}"),
        ]
    if adapter.replacements:
        rows.append(("whole tensors", ", ".join(sorted(adapter.replacements))))
    for path, brought in adapter.token_rows.items():
        rows.append((f"rows of {path}", plural(len(brought.ids), "token")))
    rows.append(("file", size(facts.file_bytes)))
    return rows


def _table(facts: AdapterFacts) -> str:
    from edgellm.cli.adapter_commands.columns import columns

    heads = ("matrices", "count", "norm", "largest", "effective rank", "for 90%", "for 99%")
    return columns(heads, [_line(name, changes) for name, changes in facts.targets.items()])


def _line(name: str, changes: Sequence[ChangeFacts]) -> list[str]:
    """Return a target's figures: medians over its layers, and the largest norm."""
    norms = [change.spectrum.norm for change in changes]
    return [
        name,
        str(len(changes)),
        f"{median(norms):.3g}",
        f"{max(norms):.3g}",
        f"{median(change.spectrum.effective_rank for change in changes):.1f}",
        f"{median(change.spectrum.rank_for(0.90) for change in changes):g}",
        f"{median(change.spectrum.rank_for(0.99) for change in changes):g}",
    ]


def _ranges(numbers: Sequence[int]) -> str:
    """Return ``0-3, 7`` of 0, 1, 2, 3 and 7."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)
