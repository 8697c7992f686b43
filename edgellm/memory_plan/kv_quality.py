"""The measured cost of a model's KV cache in 8 bits, kept beside its checksums.

Nobody can tell it from the config: some models have keys so large that few bits ruin them. So the
planner takes 8 bits by itself only where a measurement allows it.
"""

from __future__ import annotations

from pathlib import Path

from edgellm.checkpoint.folder import CHECKSUMS, read_checksums
from edgellm.errors import EdgeLLMError
from edgellm.files.strict_json import read_json, write_json

MOST_LOSS = 0.001
"""Relative growth of perplexity that the planner accepts for more pinned layers."""

_KEY = "kv_loss"


def record_kv_loss(folder: Path, loss: float, *, tokens: int) -> None:
    """Record by how much perplexity grows with a KV cache of 8 bits instead of 16.

    Args:
        folder: a model folder that edgellm has made.
        loss: the relative growth; negative where it shrinks.
        tokens: that it was measured over.

    Raises:
        FormatError: others have made the folder, or its record is damaged.
    """
    read_checksums(folder)
    document = read_json(folder / CHECKSUMS)
    write_json(folder / CHECKSUMS, {**document, _KEY: {"8": loss, "tokens": tokens}})


def eight_bits_do(folder: Path) -> bool:
    """Return whether it was measured that a KV cache of 8 bits costs next to nothing."""
    try:
        measured = read_json(folder / CHECKSUMS).get(_KEY)
    except (EdgeLLMError, OSError):
        return False
    if not isinstance(measured, dict):
        return False
    loss = measured.get("8")
    if isinstance(loss, bool):  # an int to Python
        return False
    return isinstance(loss, int | float) and abs(loss) <= MOST_LOSS
