"""Options of ``edgellm eval`` that say how models are loaded, and the settings they make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from typer import Option

from edgellm.bench import command_options as common
from edgellm.bench.evaluation.runs.decoding import Decoding
from edgellm.bench.evaluation.runs.settings import EvaluationSettings
from edgellm.cli import headings
from edgellm.errors import ConfigError
from edgellm.settings import LoadSettings

MAX_SHOTS = 1000

Shots = Annotated[
    str | None,
    Option(
        metavar=common.NUMBERS,
        help="Examples before each question; default: none, or as a task of --harness says.",
        rich_help_panel=headings.PROMPT,
    ),
]
Adapters = Annotated[
    list[str] | None,
    Option(
        metavar="FOLDER|none",
        help="A LoRA adapter beside the weights; may be given several times, each in turn; "
        "none asks the model alone.",
        rich_help_panel=headings.MODEL,
    ),
]
Memory = Annotated[
    str | None,
    Option(
        metavar="SIZE",
        help="Memory budget of a model; one that is larger is paged.",
        rich_help_panel=headings.MEMORY,
    ),
]
Context = Annotated[
    int | None,
    Option(
        metavar="N",
        min=2,
        help="Tokens that the KV cache has room for.",
        rich_help_panel=headings.MEMORY,
    ),
]
KVBits = Annotated[
    str,
    Option(
        metavar="16,8,4",
        help="Bits per number of the KV cache, each in turn; default: the usual ones.",
        rich_help_panel=headings.MEMORY,
    ),
]
Threads = Annotated[
    str,
    Option(
        metavar=common.NUMBERS,
        help="CPU threads, each number in turn; default: chosen for the machine.",
        rich_help_panel=headings.SPEED,
    ),
]


def distinct_numbers(option: str, text: str) -> tuple[int, ...]:
    """Return the numbers of a list, each once. Raises ConfigError."""
    return tuple(dict.fromkeys(common.split_numbers(option, text)))


def numbers_of_shots(text: str) -> tuple[int, ...]:
    """Return the numbers of examples. Raises ConfigError."""
    numbers = distinct_numbers("shots", text)
    if not numbers or max(numbers) > MAX_SHOTS:
        raise ConfigError(
            f"--shots {text} is out of range", hint=f"give numbers from 0 to {MAX_SHOTS}: 0,1,5"
        )
    return numbers


def load_fields(
    memory: str | None,
    context: int | None,
    activations: str,
    decodings: Sequence[Decoding],
    *,
    machines: str | None = None,
    split: str = "auto",
) -> dict[str, object]:
    """Return what differs from the defaults of ``LoadSettings``."""
    fields: dict[str, object] = {
        "memory": common.optional_size(memory),
        "context": context,
        "beams": max(each.beams for each in decodings),
        "machines": common.absolute_file(machines),
    }
    fields = {name: value for name, value in fields.items() if value not in {None, 1}}
    if activations != "auto":
        fields["activations"] = activations
    if split != "auto":
        fields["split"] = split
    return fields


def adapter_folders(given: Sequence[str] | None) -> tuple[str | None, ...]:
    """Return the adapters' folders, from wherever they are seen; None for the model alone."""
    if not given:
        return (None,)
    folders: dict[str | None, None] = {}
    for name in given:
        folders[None if name == "none" else common.absolute_folder(name)] = None
    return tuple(folders)


def require_loadable(settings: EvaluationSettings) -> None:
    """Raise ConfigError where a model could not be loaded so, before any is."""
    for load in settings.loads():
        LoadSettings(**load)
