"""``edgellm doctor``: what this machine is, how fast, and whether models run right on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

from typer import Argument, Option

from edgellm.cli import headings
from edgellm.cli.common import options
from edgellm.console import terminal
from edgellm.errors import ConfigError
from edgellm.files.given_path import given_path

if TYPE_CHECKING:
    from edgellm.diagnostics.peers import MeasuredPeer


def doctor(
    folder: Annotated[
        Path | None,
        Argument(metavar="FOLDER", help="A folder on the disk to measure; default: this one."),
    ] = None,
    *,
    peers: Annotated[
        str | None,
        Option(
            metavar="HOSTS",
            help="Also measure the machines of this file, and the links to them.",
            rich_help_panel=headings.SERVER,
        ),
    ] = None,
    json: options.Json = False,
) -> int:
    """Show what this machine is and how fast it is, and check that models run correctly on it."""
    # No require_backend: that MLX does not load is something to be found here.
    from edgellm.console.diagnosis_view import show_diagnosis
    from edgellm.console.progress import show_doing
    from edgellm.diagnostics.doctor import examine

    folder = given_path(folder or Path())
    if not folder.is_dir():
        raise ConfigError(
            f"there is no folder {folder}", hint="name a folder on the disk to measure"
        )
    measured: list[MeasuredPeer] = []
    with show_doing() as show:
        diagnosis = examine(folder, show)
        if peers is not None:
            from edgellm.diagnostics.peers import examine_peers

            disk = diagnosis.disk.get("bytes_per_second")
            measured = examine_peers(given_path(peers), disk, show)
    if json:
        more = {"peers": [peer.as_dict() for peer in measured]} if measured else {}
        terminal.write_json(diagnosis.as_dict() | more)
    else:
        show_diagnosis(diagnosis)
        if measured:
            from edgellm.console.diagnosis_view import show_peers

            show_peers(measured)
    if peers is not None and (missed := [peer.number for peer in measured if peer.error]):
        _raise_missed(peers, missed)
    return int(not diagnosis.passed)


def _raise_missed(hosts: str, numbers: list[int]) -> NoReturn:
    """Raise MachineError, which names the machines that were not measured."""
    from edgellm.distributed.links.machines import read_machines
    from edgellm.errors import MachineError

    machines = read_machines(given_path(hosts))
    names = ", ".join(f"{number} ({machines[number - 1].name})" for number in numbers)
    raise MachineError(
        f"machines that could not be measured: {names}",
        hint="edgellm cluster status HOSTS says which are there; edgellm cluster start MODEL HOSTS "
        "starts them",
    )
