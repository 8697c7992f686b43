"""Variables of chat templates, as they are written on the command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NoReturn

from edgellm.errors import ConfigError


def parse_template_variables(options: Sequence[str] | None) -> dict[str, Any]:
    """Return variables by their names; a value is JSON, or the text that it is otherwise.

    Args:
        options: texts of the form NAME=VALUE.

    Raises:
        ConfigError: one has another form.
    """
    variables = {}
    for option in options or ():
        name, sign, value = option.partition("=")
        if not name or not sign:
            raise ConfigError(
                f"--template-variable is {option!r}, which is not NAME=VALUE",
                hint="--template-variable reasoning_effort=high",
            )
        variables[name] = _value(value)
    return variables


def _no_json(word: str) -> NoReturn:
    """Refuse NaN and Infinity, which Python's own parser takes."""
    raise ValueError(word)


def _value(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_json)
    except (ValueError, RecursionError):
        return text
