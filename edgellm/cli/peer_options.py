"""Options as users of other programs type them, and values that are missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgellm.errors import ConfigError

OUR_OPTIONS: Mapping[str, str] = {
    "-n": "--max-tokens",
    "--n-predict": "--max-tokens",
    "--predict": "--max-tokens",
    "--num-predict": "--max-tokens",
    "--max-new-tokens": "--max-tokens",
    "--max-length": "--max-tokens",
    "-c": "--context",
    "--ctx-size": "--context",
    "--n-ctx": "--context",
    "--num-ctx": "--context",
    "--max-model-len": "--context",
    "--temp": "--temperature",
    "--repeat-penalty": "--repetition-penalty",
    "--num-beams": "--beams",
    "--num-threads": "--threads",
    "--draft-model": "--draft",
    "--model-draft": "--draft",
    "-md": "--draft",
    "--system-prompt": "--system",
    "-sys": "--system",
    "--reverse-prompt": "--stop",
    "-r": "--stop",
}
"""Options of other programs that mean exactly one of ours; help does not show them."""

MODEL_OPTIONS = ("-m", "--model")
"""Options that other programs have for the argument MODEL."""

PEER_HINTS: Mapping[str, str] = {
    "-t": "did you mean --threads or --temperature?",
    "-s": "did you mean --seed or --system?",
    "-o": "a setting has an option of its own: --temperature 0.8",
    "-f": "to read a prompt from a file: --prompt - < FILE",
    "--file": "to read a prompt from a file: --prompt - < FILE",
    "--max-kv-size": "did you mean --context-window?",
    "--cache-type-k": "did you mean --kv-bits?",
    "--cache-type-v": "did you mean --kv-bits?",
    "--verbose": "speeds stand below an answer on a terminal, and in --json",
    "-ngl": "leave it out; --memory says how much may be used",
    "--gpu-layers": "leave it out; --memory says how much may be used",
    "--n-gpu-layers": "leave it out; --memory says how much may be used",
}
"""Next steps after options of other programs that we have not, or that mean several of ours."""


def our_words(words: Sequence[str], parameters: Sequence[Any], command: str) -> list[str]:
    """Return a command's words with other programs' options called as ours.

    Args:
        words: what follows the command's name.
        parameters: typer's, of the command.
        command: the words that call it.

    Raises:
        ConfigError: an option's value is missing.
    """
    flags = _flags(parameters)
    takes_model = any(item.metavar == "MODEL" for item in parameters)
    found: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return [*found, word, *rest]
        flag, sign, value = word.partition("=")
        if flag in MODEL_OPTIONS and takes_model and flag not in flags:
            found.insert(0, value or _value(flag, "MODEL", rest, flags, command))
            continue
        if flag not in flags and OUR_OPTIONS.get(flag) in flags:
            flag = OUR_OPTIONS[flag]
        found.append(f"{flag}{sign}{value}")
        parameter = flags.get(flag)
        if parameter is not None and not sign and _takes_value(parameter):
            found.append(_value(word, parameter.metavar, rest, flags, command))
    return found


def _flags(parameters: Sequence[Any]) -> dict[str, Any]:
    """Return typer's options by each of their names."""
    return {
        name: item
        for item in parameters
        if item.param_type_name == "option"
        for name in (*item.opts, *item.secondary_opts)
    }


def _takes_value(parameter: Any) -> bool:
    return not parameter.is_flag and not parameter.count


def _value(
    flag: str, metavar: str | None, rest: list[str], flags: Mapping[str, Any], command: str
) -> str:
    """Take an option's value off the rest; another option is none. Raises ConfigError."""
    if rest and not _is_option(rest[0], flags):
        return rest.pop(0)
    fact = f"{flag} needs a value"
    if metavar:
        *others, last = metavar.split("|")
        choices = last
        if others:
            choices = f"{', '.join(others)} or {last}"
        fact += f": {choices}"
    raise ConfigError(fact, hint=f"see {command} --help")


def _is_option(word: str, flags: Mapping[str, Any]) -> bool:
    name = word.partition("=")[0]
    return word == "--" or name in flags or OUR_OPTIONS.get(name) in flags
