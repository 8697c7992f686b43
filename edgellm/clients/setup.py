"""A server as a program is told of it, and what the program needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KEY_VARIABLE = "EDGELLM_API_KEY"
NO_KEY = "none"
"""Given as the key of a server that asks for none: most programs insist on one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A model of a server.

    Attributes:
        url: of the server, without ``/v1``.
        model: the model's name there.
        context: tokens that prompt and answer may have together; None where that is not known.
        has_keys: whether requests need a key.
    """

    url: str
    model: str
    context: int | None = None
    has_keys: bool = False

    @property
    def v1(self) -> str:
        """Where the API begins."""
        return f"{self.url}/v1"

    @property
    def shell_key(self) -> str:
        """The key as a shell writes it."""
        if self.has_keys:
            return f'"${KEY_VARIABLE}"'
        return NO_KEY


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """The command, variables and settings by which a program talks to a server.

    Attributes:
        command: starts it.
        variables: of the environment, as a shell writes them.
        path: its settings.
        merged: what is put into them, where they are JSON.
        text: all of them, where the file is for this server alone; or, without ``is_own``, lines
            that a person puts into them.
        is_own: whether the file is for this server alone.
        needs_settings: whether the variables alone do not suffice.
    """

    command: str
    variables: Mapping[str, str] = field(default_factory=dict)
    path: Path | None = None
    merged: Mapping[str, Any] | None = None
    text: str | None = None
    is_own: bool = False
    needs_settings: bool = True

    @property
    def can_be_written(self) -> bool:
        """Whether ``--write`` can do it: nothing that a person has written is lost by it."""
        return self.merged is not None or self.is_own
