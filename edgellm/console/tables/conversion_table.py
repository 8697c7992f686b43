"""The outcome of converting and of exporting, and the error of each matrix."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgellm.console.rows import Row, show_rows
from edgellm.console.terminal import note
from edgellm.console.units import percent, plural, size

if TYPE_CHECKING:
    from edgellm.converters import ConversionReport, ExportReport

MOSTLY_KEPT = 0.9
"""The share of an adapter's change from which nobody is told how to keep more of it."""


def show_conversion(report: ConversionReport, *, listed: bool) -> None:
    """Write what was made to standard error.

    If it is ``listed``, a table of quantization errors goes to standard output.
    """
    if report.errors and listed:
        title = "relative error of each quantized matrix, the largest first"
        show_rows(_error_rows(report.errors), title=title)
    usual = report.quantization
    stored = report.dtype
    usual_bits = None
    if usual:
        stored = f"{usual.bits} bits in groups of {usual.group_size}"
        usual_bits = usual.bits
    other_bits = {item.bits for item in report.exceptions.values() if item is not None}
    if other_bits - {usual_bits}:
        stored += f", others of {', '.join(map(str, sorted(other_bits - {usual_bits})))}"
    note(f"{report.path}: {size(report.weight_bytes)}, {stored}")
    if report.merged:
        note(f"the adapter has changed {plural(report.merged, 'tensor')}")
    if report.change_kept is not None:
        kept = f"{_kept(report.change_kept)} of its change is left in {usual_bits} bits"
        if report.change_kept < MOSTLY_KEPT:
            kept += "; all of it runs beside the base, unmerged: edgellm generate BASE --adapter"
        note(kept)
    if report.errors:
        worst = max(report.errors, key=report.errors.__getitem__)
        mean = math.sqrt(sum(error**2 for error in report.errors.values()) / len(report.errors))
        note(
            f"relative error of quantizing: {mean:.5f}, "
            f"at most {report.errors[worst]:.5f} in {worst}"
        )
    if report.kept_files:
        note(f"{plural(report.kept_files, 'file')} of an earlier run that was stopped went into it")


def show_export(report: ExportReport) -> None:
    """Write what was made to standard error, and a table of what changed to standard output."""
    if report.merged:
        kept = ""
        if report.change_kept is not None:
            kept = f"; {_kept(report.change_kept)} of its change is left"
        note(f"the adapter has changed {plural(report.merged, 'tensor')}, unquantized here{kept}")
    kinds = ", ".join(f"{number} in {kind}" for kind, number in report.kinds.items())
    line = f"{report.path}: {size(report.file_bytes)}; matrices: {kinds}"
    if not report.errors:
        changed = "nothing else" if report.merged else "none of them"
        note(f"{line}; {changed} has changed")
        return
    title = "relative error of each matrix that is not exactly what it was, the largest first"
    show_rows(_error_rows(report.errors), title=title)
    note(line)


def _kept(share: float) -> str:
    # of a change far below the rounding, chance can make it less than nothing or more than all
    return percent(min(max(share, 0.0), 1.0))


def _error_rows(errors: Mapping[str, float]) -> list[Row]:
    descending = sorted(errors.items(), key=lambda item: -item[1])
    return [(path, f"{error:.5f}") for path, error in descending]
