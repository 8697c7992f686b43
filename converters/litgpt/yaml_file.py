"""YAML files of strangers: plain values alone, within bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from edgellm.errors import FormatError
from edgellm.files.bounded import read_bounded

MAX_BYTES = 64 << 10
"""LitGPT's files have 2 KB."""

MAX_DEPTH = 16


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file.

    Raises:
        FormatError: it is no YAML, too large or too deep, repeats itself by aliases, asks for
            objects, or holds no mapping.
        ReadError: it cannot be read.
    """
    try:
        text = read_bounded(path, MAX_BYTES).decode("utf-8")
        _require_plain(text, path)
        value = yaml.safe_load(text)
    # the last three are what dates and numbers of impossible digits raise
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, OverflowError, AttributeError) as error:
        place = " ".join(str(error).split())[:120]
        raise FormatError(f"{path} is not valid YAML: {place}") from error
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise FormatError(f"{path} does not hold a mapping of names to values")
    return value


def _require_plain(text: str, path: Path) -> None:
    """Refuse what could make a small text large or deep, or an object of it."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        tag = getattr(event, "tag", None)
        if isinstance(event, yaml.AliasEvent) or tag is not None or depth > MAX_DEPTH:
            raise FormatError(f"{path} holds more than plain values")
