"""Settings from an object and from keywords on top of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from edgellm.errors import ConfigError
from edgellm.setting_values import shown
from edgellm.settings.load import LoadSettings
from edgellm.settings.sampling import Sampling

Settings = TypeVar("Settings", Sampling, LoadSettings)


def merged(
    name: str, given: Settings | None, default: Settings, keywords: Mapping[str, Any]
) -> Settings:
    """Return settings with fields that keywords give, which come on top.

    Args:
        name: the name of the argument that ``given`` came in.
        given: the settings; None for ``default``.
        default: of the class that ``given`` must have.
        keywords: fields.

    Raises:
        ConfigError: a field does not exist, a value is out of range, or ``given`` is something
            else.
    """
    kind = type(default).__name__
    if given is None:
        given = default
    if not isinstance(given, type(default)):
        raise ConfigError(
            f"{name} is {shown(given)}; it must be an edgellm.{kind}",
            hint=f"or leave it out, and give fields of {kind} as keywords",
        )
    return replace(given, **keywords)
