"""``edgellm federate server``: clients learn, and what they learned is averaged."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from edgellm.cli import headings
from edgellm.cli.common import options
from edgellm.cli.common.settings_options import expand_settings
from edgellm.cli.federate_commands.lesson_options import LESSON_OPTIONS, LessonOptions
from edgellm.device.require_mlx import require_backend

if TYPE_CHECKING:
    from edgellm.federation.fleet import RoundReport

PORT = 47120

BACKLOG = 64
"""Clients that may wait for the door to open."""


@expand_settings
def server(
    model: options.Model,
    out: Annotated[
        Path,
        Argument(metavar="OUT", help="The folder of the adapter.", rich_help_panel=headings.MODEL),
    ],
    *,
    clients: Annotated[
        int,
        Option(
            metavar="N",
            min=1,
            max=1000,
            help="Clients that are invited; the first round waits for all of them.",
            rich_help_panel=headings.SERVER,
        ),
    ],
    rounds: Annotated[
        int, Option(metavar="N", min=1, help="Rounds.", rich_help_panel=headings.SERVER)
    ],
    least: Annotated[
        int,
        Option(
            metavar="N",
            min=1,
            help="Clients without which no round counts.",
            rich_help_panel=headings.SERVER,
        ),
    ] = 1,
    address: options.PrivateAddress = "127.0.0.1",
    port: options.Port = PORT,
    wait: Annotated[
        float,
        Option(
            metavar="SECONDS",
            min=0,
            help="How long to wait for clients that are not there.",
            rich_help_panel=headings.SERVER,
        ),
    ] = 60.0,
    timeout: Annotated[
        float,
        Option(
            metavar="SECONDS",
            min=0,
            help="How long a client may take for a round.",
            rich_help_panel=headings.SERVER,
        ),
    ] = 3600.0,
    resume: Annotated[
        bool,
        Option(
            "--resume",
            help="Go on with the federation in OUT.",
            rich_help_panel=headings.OUTPUT,
        ),
    ] = False,
    lesson: Annotated[LessonOptions, LESSON_OPTIONS],
    json: options.Json = False,
) -> None:
    """Ask clients to learn a round, average what they learned, and again (federated learning).

    Records stay with the clients; factors of adapters travel, encrypted. Each client needs one of
    the invitations that lie beside OUT, and nobody else gets in.
    """
    require_backend()
    import os

    # means are of small matrices; threads that wait for each other on a busy machine took 20 times
    # as long. Read when NumPy is imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from edgellm.checkpoint.checkpoint import read_checkpoint
    from edgellm.console import terminal
    from edgellm.console.progress import converting_shown
    from edgellm.converters.destination import destination_path, make_folder_of
    from edgellm.distributed.links.addresses import Address, listening_socket, require_private
    from edgellm.federation.fleet import Rounds
    from edgellm.federation.flower.certificates import keys_in, make_keys
    from edgellm.federation.flower.library import require_flower
    from edgellm.federation.flower.superlink import SuperLink
    from edgellm.federation.rounds import Federation
    from edgellm.files.file_lock import file_lock
    from edgellm.hub.resolve import locate
    from edgellm.setting_values import whole_number

    require_flower()
    place = Address(require_private(address), whole_number("--port", port, 0, 65535))
    asked = Rounds(rounds=rounds, clients=clients, least=least, wait=wait, timeout=timeout)
    with converting_shown() as converting:
        checkpoint = read_checkpoint(locate(model, converting=converting))
    path = destination_path(out)
    make_folder_of(path)
    with file_lock(path, "edgellm federate server"):
        federation = Federation(
            checkpoint,
            path,
            lesson.lesson(),
            asked,
            base=model,
            start=lesson.start(),
            resume=resume,
            say=terminal.note,
        )
        folder = path.with_name(f"{path.name}.invitations")
        with listening_socket(place, BACKLOG) as opened:
            bound = place._replace(port=opened.getsockname()[1])
            keys = keys_in(folder, bound, clients) if resume else None
            if keys is None:
                keys = make_keys(folder, bound, clients)
            with SuperLink(opened, keys) as fleet:
                terminal.note(f"listening at {bound}; Ctrl-C ends it")
                for one in keys.invitations:
                    terminal.note(f"for a client, and for nobody else: {one}")
                for report in federation.run(fleet):
                    terminal.note(said_of(report, rounds))
        keys.remove()
    if json:
        terminal.write_json({"folder": str(out), "rounds": federation.state.history})
        return
    terminal.say(f"next: edgellm chat {model} --adapter {out}")


def said_of(report: RoundReport, rounds: int) -> str:
    """Return a round in a sentence."""
    from edgellm.console.units import plural, size

    parts = [f"round {report.round} of {rounds}: {plural(len(report.clients), 'client')}"]
    for figure, named in (("loss", "loss"), ("valid", "before it on other records")):
        mean = report.mean(figure)
        if mean is not None:
            parts.append(f"{named} {mean:.4f}")
    if report.lost:
        parts.append(
            f"the rank loses {100 * report.lost:.2g} % of the change, "
            f"{100 * report.lost_of_round:.2g} % of the round's"
        )
    memory = max(one["memory"] for one in report.clients.values())
    parts.append(
        f"{report.seconds:.1f} s, {size(report.sent)} sent, {size(report.received)} received, "
        f"memory {size(report.memory)} here and {size(int(memory))} at most there"
    )
    return "; ".join(parts)
