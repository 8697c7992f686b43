"""Lines of texts in columns."""

from __future__ import annotations

from collections.abc import Sequence

from edgellm.checkpoint.folder import LAYER_PREFIX


def columns(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table: the first column begins at the left, the others end at the right."""
    lines = [heads, *rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(heads))]
    return "\n".join(
        "  ".join(
            text.rjust(width) if place else text.ljust(width)
            for place, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def short(path: str) -> str:
    """Return a matrix's path as tables have it: ``3.self_attn.q_proj`` of layer 3."""
    return path.removeprefix(LAYER_PREFIX)


def percentage(share: float) -> str:
    """Return a share with the digits that mean something: ``99.97%``, ``12%``."""
    if 0.995 <= share < 1.0:
        return f"{min(100 * share, 99.9999):.4g}%"
    return f"{100 * share:.3g}%"
