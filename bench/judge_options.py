"""Options of the commands that let a judge score texts, and the server that they name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from typer import Option

from edgellm.cli import headings

if TYPE_CHECKING:
    from edgellm.bench.backends.openai_endpoint import Endpoint

URL = Annotated[
    str | None,
    Option(
        "--judge",
        metavar="URL",
        help="Let a model behind an OpenAI-compatible URL score texts from 1 to 10.",
        rich_help_panel=headings.JUDGE,
    ),
]
Model = Annotated[
    str,
    Option(
        "--judge-model",
        metavar="NAME",
        help="The judge's name on its server; default: its first model.",
        rich_help_panel=headings.JUDGE,
    ),
]
KeyVariable = Annotated[
    str | None,
    Option(
        "--key-variable",
        metavar="NAME",
        help="The environment variable that holds the judge's key.",
        rich_help_panel=headings.JUDGE,
    ),
]


def judge_endpoint(url: str, model: str, key_variable: str | None) -> Endpoint:
    """Return the judge's server. Raises ConfigError where its key is not in the environment."""
    from edgellm.bench.backends.one_server import key_in
    from edgellm.bench.backends.openai_endpoint import Endpoint

    return Endpoint(url, model, key=key_in(key_variable))
