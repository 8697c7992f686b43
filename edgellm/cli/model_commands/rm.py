"""``edgellm rm``: a downloaded or converted model is deleted."""

from __future__ import annotations

import sys
from typing import Annotated

from typer import Option

from edgellm.cli.common import options
from edgellm.console import terminal
from edgellm.console.streams import is_terminal
from edgellm.console.units import size
from edgellm.errors import ConfigError

YES = ("y", "yes")


def rm(
    model: options.Model,
    *,
    yes: Annotated[bool, Option("--yes", "-y", help="Delete without asking.")] = False,
) -> int:
    """Delete a model from the cache of the Hub's library, and what was converted from it.

    It asks first. Nothing else is ever deleted: no folder of your own, and no bundled model.
    """
    from edgellm.local_models.removal import removals

    found = removals(model)
    for item in found:
        terminal.say(f"{item.name}: {size(item.nbytes)}, {item.place}")
    if not yes and not _agreed():
        terminal.note("nothing is deleted")
        return 1
    for item in found:
        item.run()
    terminal.note(f"deleted, {size(sum(item.nbytes for item in found))} are free")
    return 0


def _agreed() -> bool:
    """Ask on the terminal. Raises ConfigError where there is none."""
    if not is_terminal(sys.stdin):
        raise ConfigError(
            "nothing is deleted: standard input is not a terminal", hint="add --yes to delete it"
        )
    terminal.say("delete it? [y/N]", end=" ")
    return sys.stdin.readline().strip().lower() in YES
