"""The name of edgellm itself among the backends of the bench, and the one that it had."""

from __future__ import annotations

OWN = "edgellm"

FORMER_NAMES = {"mlx": OWN}
"""Names that files and command lines of before still have."""


def current_name(name: str) -> str:
    """Return what a backend is called now; a name that never changed is returned as it is."""
    return FORMER_NAMES.get(name, name)
