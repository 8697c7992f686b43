"""Wrong usage of the command line, in our words: a fact and a next step."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from typer.core import TyperGroup

from edgellm.cli.parsing.peer_options import peer_hint
from edgellm.errors import ConfigError

NUMBER_WORDS = {
    "Input should be a valid integer": "it must be a whole number",
    "Input should be a valid number": "it must be a number",
}
"""What typer says of values that are no numbers, and what we say."""

TOO_MANY = "got unexpected extra argument"
"""The beginning of typer's message about words that no argument takes."""


def usage_error(error: Any) -> ConfigError:
    """Return typer's error of wrong usage in our words.

    Args:
        error: has the context as ``ctx``, and ``option_name`` if it is about an option.
    """
    context = error.ctx
    if context is None:
        return ConfigError(_sentence(error), hint="see edgellm --help")
    help_command = f"{context.command_path} --help"
    option = getattr(error, "option_name", "").partition("=")[0]
    known = [name for parameter in context.command.params for name in parameter.opts]
    if option and option not in known:
        return ConfigError(
            f"there is no option {option}", hint=_option_hint(option, known, context)
        )
    sentence = _sentence(error)
    takes_text = any(parameter.name == "text" for parameter in context.command.params)
    if takes_text and sentence.startswith(TOO_MANY):
        return ConfigError(
            sentence, hint=f"put a text of several words in quotes, or see {help_command}"
        )
    return ConfigError(sentence, hint=f"see {help_command}")


def _option_hint(option: str, known: Sequence[str], context: Any) -> str:
    """Return the next step after an option that a command has not."""
    help_command = f"{context.command_path} --help"
    if hint := peer_hint(option, known):
        return hint
    if get_close_matches(option, known, n=1):
        return did_you_mean(option, known, help_command)
    if isinstance(context.command, TyperGroup):
        return f"options go after the command: {context.command_path} generate {option} ..."
    return f"see {help_command}"


def did_you_mean(name: str, known: Sequence[str], help_command: str) -> str:
    """Return the next step after a name that does not exist."""
    for close in get_close_matches(name, known, n=1):
        return f"did you mean {close}?"
    return f"see {help_command}"


def _sentence(error: Any) -> str:
    """Return typer's message in one line, as our own begin and end."""
    message = " ".join(error.format_message().split()).rstrip(".")
    for begun, ours in NUMBER_WORDS.items():
        message = re.sub(f"{begun}.*", ours, message)
    return message[:1].lower() + message[1:]
