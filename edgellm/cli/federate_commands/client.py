"""``edgellm federate client``: this machine's records are learned, and stay here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from edgellm.cli import headings
from edgellm.cli.common import options
from edgellm.cli.common.settings_options import expand_settings
from edgellm.device.require_mlx import require_backend
from edgellm.settings import LoadSettings

LOAD = options.LOAD_OPTIONS.only("memory", "threads", "activations")


@expand_settings
def client(
    model: options.Model,
    data: Annotated[
        Path,
        Argument(
            metavar="DATA",
            help="A json or jsonl file of chats, instructions, completions or texts; or a text "
            "file.",
            rich_help_panel=headings.MODEL,
        ),
    ],
    *,
    invitation: Annotated[
        Path,
        Option(
            metavar="FILE",
            help="The invitation that the server has written for this client.",
            rich_help_panel=headings.SERVER,
        ),
    ],
    server: Annotated[
        str | None,
        Option(
            metavar="ADDRESS",
            help="Private address of the server, or of a tunnel to it; default: as the invitation "
            "has it.",
            rich_help_panel=headings.SERVER,
        ),
    ] = None,
    wait: Annotated[
        float,
        Option(
            metavar="SECONDS",
            min=0,
            help="How long the server may be away.",
            rich_help_panel=headings.SERVER,
        ),
    ] = 60.0,
    valid: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="Records that are not learned, whose loss is told each round.",
            rich_help_panel=headings.TRAINING,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        Option(
            metavar="ADAPTER",
            help="Folder for the adapter at the end; default: the server has it.",
            rich_help_panel=headings.OUTPUT,
        ),
    ] = None,
    clip_update: Annotated[
        float | None,
        Option(
            metavar="X",
            min=0,
            help="Largest norm of an update that is sent (differential privacy).",
            rich_help_panel=headings.TRAINING,
        ),
    ] = None,
    noise: Annotated[
        float,
        Option(
            metavar="X",
            min=0,
            help="Normal noise on it, as a multiple of that norm.",
            rich_help_panel=headings.TRAINING,
        ),
    ] = 0.0,
    delta: Annotated[
        float,
        Option(
            metavar="X",
            min=0,
            help="Chance that the epsilon that is told does not hold.",
            rich_help_panel=headings.TRAINING,
        ),
    ] = 1e-5,
    load: Annotated[LoadSettings, LOAD],
) -> None:
    """Learn from this machine's records, as often as a federation's server asks, until its end.

    Records stay here; factors of an adapter are sent, and losses unless --clip-update is given.
    """
    require_backend()
    from contextlib import closing

    from edgellm.console import terminal
    from edgellm.distributed.links.addresses import parse_address
    from edgellm.errors import ConfigError
    from edgellm.federation.flower.library import require_flower
    from edgellm.federation.flower.supernode import SuperNode
    from edgellm.federation.invitations import read_invitation
    from edgellm.federation.local_learning import LocalLearning
    from edgellm.federation.privacy import Privacy
    from edgellm.files.given_path import given_path

    require_flower()
    if noise and clip_update is None:
        raise ConfigError(
            "noise is a multiple of the norm that updates are clipped to",
            hint="give --clip-update, such as 0.1, beside --noise",
        )
    privacy = None
    if clip_update is not None:
        privacy = Privacy(clip=clip_update, noise=noise, delta=delta)
    invited = read_invitation(given_path(str(invitation)))
    place = str(parse_address(server or invited.server))
    learning = LocalLearning(
        model=model,
        data=data,
        load=load,
        folder=out,
        valid=valid,
        privacy=privacy,
        say=terminal.note,
    )
    with closing(learning):
        SuperNode(invited, server=place, wait=wait, say=terminal.note).work(learning.answer)
    if out is not None:
        terminal.say(f"next: edgellm chat {model} --adapter {out}")
