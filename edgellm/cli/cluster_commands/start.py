"""``edgellm cluster start``: a secret is made, and the other machines are started by ssh."""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Option

from edgellm.cli import headings
from edgellm.cli.common import options

Hosts = Annotated[
    str,
    Argument(
        metavar="HOSTS",
        help="A file that names the machines, this one first, as mlx.launch has them.",
        rich_help_panel=headings.SERVER,
    ),
]

WAIT_SECONDS = 60.0
"""What machines that are started by ssh may take, their imports from a cold disk included."""

MAX_WAIT_SECONDS = 1e6


def start(
    model: options.Model,
    hosts: Hosts,
    *,
    edgellm: Annotated[
        str,
        Option(
            metavar="COMMAND",
            help="What edgellm is called on the other machines.",
            rich_help_panel=headings.SERVER,
        ),
    ] = "edgellm",
    wait: Annotated[
        float | None,
        Option(
            metavar="SECONDS",
            help="How long the machines may take to be there; default: 60, or as long as it takes "
            "where one is started by hand.",
            rich_help_panel=headings.SERVER,
        ),
    ] = None,
) -> None:
    """Make a new secret, and start the other machines of a file by ssh, until Ctrl-C.

    MODEL is called the same on all of them. Machines without ssh in the file are started by hand;
    the secret lies beside the file.
    """
    import shlex

    from edgellm.console import terminal
    from edgellm.distributed.links.machines import read_machines, secret_file
    from edgellm.distributed.links.secret import new_secret, write_secret
    from edgellm.distributed.start import StartedMachines, join_words
    from edgellm.files.given_path import given_path
    from edgellm.setting_values import number

    if wait is not None:
        number("--wait", wait, 0, MAX_WAIT_SECONDS)
    path = given_path(hosts)
    machines, secret = read_machines(path)[1:], new_secret()
    write_secret(secret_file(path), secret)
    by_hand = [machine for machine in machines if machine.ssh is None]
    for machine in by_hand:
        words = shlex.join(join_words(machine, model, secret_file(path).name))
        terminal.note(
            f"on the machine at {machine.address.host}, beside a copy of {secret_file(path)}: "
            f"{edgellm} {words}"
        )
    if wait is None and not by_hand:
        wait = WAIT_SECONDS
    with StartedMachines(machines, model, secret, edgellm=edgellm, say=terminal.note) as started:
        started.wait_until_ready(wait)
        terminal.note(f"all are there: edgellm chat {model} --machines {hosts}; Ctrl-C ends them")
        started.watch()
