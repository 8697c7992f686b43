"""Values that a shell completes: words of a list, models, shapes.

Nothing is imported here that takes time: a person waits at the keyboard.
"""

from __future__ import annotations

from collections.abc import Callable

Values = Callable[[str], list[str]]
"""Returns what begins with what was typed; typer calls it."""


def one_of(metavar: str | None) -> Values | None:
    """Return what completes ``auto|int8|float``; words in capitals stand for values of any kind."""
    words = [word for word in (metavar or "").split("|") if word and not word.isupper()]
    if "|" not in (metavar or "") or not words:
        return None

    def complete(incomplete: str) -> list[str]:
        return [word for word in words if word.startswith(incomplete)]

    return complete


def models(incomplete: str) -> list[str]:
    """Return the models on this machine: bundled, in the Hub's cache, and folders."""
    from edgellm.local_models.names import model_folders, model_names

    named = [name for name in model_names() if name.startswith(incomplete)]
    return [*named, *model_folders(incomplete)]


def shapes(incomplete: str) -> list[str]:
    """Return the shapes that random models are made in."""
    from edgellm.models.presets import SHAPES

    return [name for name in sorted(SHAPES) if name.startswith(incomplete)]
