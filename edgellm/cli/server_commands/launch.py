"""``edgellm launch``: how a client is pointed at a server."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from edgellm.cli import headings
from edgellm.cli.common.values import one_of

if TYPE_CHECKING:
    from edgellm.clients.setup import Setup

NAMES = "claude-code|codex|opencode|aider|continue|zed|llm|openai"


def launch(
    client: Annotated[
        str,
        Argument(
            metavar=NAMES,
            help="The client; openai for programs that use OpenAI's library.",
            rich_help_panel=headings.SERVER,
            autocompletion=one_of(NAMES),
        ),
    ],
    *,
    url: Annotated[
        str,
        Option(metavar="URL", help="The server.", rich_help_panel=headings.SERVER),
    ] = "http://127.0.0.1:8080",
    model: Annotated[
        str,
        Option(
            metavar="NAME",
            help="The model's name on the server; default: its first one.",
            rich_help_panel=headings.SERVER,
            show_default=False,
        ),
    ] = "",
    api_key_file: Annotated[
        str | None,
        Option(
            metavar="FILE",
            help="The keys that the server was started with.",
            rich_help_panel=headings.SERVER,
        ),
    ] = None,
    write: Annotated[
        bool,
        Option(
            "--write",
            help="Put it into the client's settings; --undo restores them.",
            rich_help_panel=headings.OUTPUT,
        ),
    ] = False,
    undo: Annotated[
        bool,
        Option(
            "--undo",
            help="Restore the client's settings as they were before --write.",
            rich_help_panel=headings.OUTPUT,
        ),
    ] = False,
) -> None:
    """Show how a client is pointed at a running server.

    Nothing is changed unless --write is given. A key is never written: it is taken from the
    variable EDGELLM_API_KEY.
    """
    from edgellm.cli.server_commands.api_keys import read_keys
    from edgellm.clients import written
    from edgellm.clients.served import ask_server
    from edgellm.clients.setup import Target
    from edgellm.clients.table import SMALL_CONTEXT, find_client
    from edgellm.console import terminal

    found = find_client(client)
    if undo:
        path = written.undo(found.setup(Target(url=url, model=model)))
        terminal.note(f"{path} is as it was")
        return
    keys = read_keys(api_key_file)
    target = ask_server(url, model, keys[0] if keys else None)
    setup = found.setup(target)
    if found.is_agent and target.context is not None and target.context < SMALL_CONTEXT:
        terminal.note(
            f"{found.title} sends long instructions, and {target.model} has a context of"
            f" {target.context:,} tokens; --context of edgellm serve can make it longer"
        )
    if write:
        path = written.write_setup(setup)
        terminal.note(f"written to {path}; edgellm launch {client} --undo restores it")
        terminal.write_line(setup.command)
        return
    terminal.write_line(_shown(setup))


def _shown(setup: Setup) -> str:
    """Return what a person has to do, for a shell where that is enough."""
    lines = [f"export {name}={_quoted(value)}" for name, value in setup.variables.items()]
    if setup.merged is not None and setup.needs_settings:
        lines += [f"# in {setup.path}:", json.dumps(setup.merged, indent=2), ""]
    if setup.text is not None:
        lines += [f"# in {setup.path}:", setup.text]
    return "\n".join([*lines, setup.command])


def _quoted(value: str) -> str:
    """Return a value as a shell takes it; one that is a variable stays one."""
    if value.startswith('"$'):
        return value
    return shlex.quote(value)
