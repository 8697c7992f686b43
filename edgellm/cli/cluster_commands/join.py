"""``edgellm cluster join``: this machine computes for another one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from typer import Option

from edgellm.cli import headings
from edgellm.cli.common import options
from edgellm.cli.common.settings_options import expand_settings
from edgellm.device.require_mlx import require_backend
from edgellm.distributed.links.addresses import DEFAULT_PORT
from edgellm.settings import LoadSettings

if TYPE_CHECKING:
    from edgellm.checkpoint.checkpoint import Checkpoint
    from edgellm.distributed.supply.part_folder import PartFolder

LOAD = options.LOAD_OPTIONS.only("memory", "threads")

INPUT_SECONDS = 120.0
"""Lines of ``edgellm cluster start`` come every second; a laptop may sleep for so long."""


@expand_settings
def join(
    model: options.Model,
    *,
    address: options.PrivateAddress = "127.0.0.1",
    port: options.Port = DEFAULT_PORT,
    secret: Annotated[
        str,
        Option(
            metavar="FILE",
            help="The secret's file; - reads a line of standard input, and ends when that does; "
            "default: ask for it.",
            rich_help_panel=headings.SERVER,
        ),
    ] = "",
    settings: Annotated[LoadSettings, LOAD],
) -> None:
    """Let this machine compute for another one, until Ctrl-C: layers, or shares of training.

    The other one asks with --machines, and sends what is not here of its part. MODEL may also be
    a folder that edgellm cluster part has made. Nobody gets in who does not know the secret, which
    edgellm cluster start makes; it never goes over the network.
    """
    require_backend()
    import sys
    import threading

    from edgellm.console import terminal
    from edgellm.distributed.links.addresses import Address, require_private
    from edgellm.distributed.links.secret import check_secret, read_secret
    from edgellm.distributed.members.member import Member
    from edgellm.files.given_path import given_path
    from edgellm.memory_plan.plan_checkpoint import warn_of_large_budget
    from edgellm.setting_values import whole_number
    from edgellm.training.together.session import TrainingSession

    place = Address(require_private(address), whole_number("--port", port, 0, 65535))
    warn_of_large_budget(settings)
    end_mark = mark_here(settings)
    if secret == "-":
        key = check_secret(sys.stdin.readline())
    elif secret:
        key = read_secret(given_path(secret))
    else:
        key = check_secret(_asked_secret())
    member = Member(
        _held(model), settings, place, key, say=terminal.note, make_session=TrainingSession
    )
    try:
        terminal.note(f"{model}: waiting at {place._replace(port=member.port)}; Ctrl-C ends it")
        if secret == "-":
            threading.Thread(target=_end_with_input, daemon=True).start()
        member.serve()
    finally:
        member.close()
        end_mark()


def mark_here(settings: LoadSettings) -> Callable[[], None]:
    """Let others on this machine know of this one, or warn of them; return what ends that."""
    import warnings

    from edgellm.files.locations import cache_folder, make_private_folder
    from edgellm.files.try_lock import is_in_use, mark_in_use

    folder = cache_folder() / "members"
    try:
        make_private_folder(folder)
    except OSError:
        return lambda: None
    if settings.memory in (None, "auto") and is_in_use(folder):
        warnings.warn(
            "edgellm cluster join runs on this machine already, and each takes the memory that is "
            "free when it starts: give each a --memory of its own",
            stacklevel=2,
        )
    return mark_in_use(folder)


def _asked_secret() -> str:
    """Ask for the secret. Raises ConfigError where nobody can be asked."""
    import getpass
    import sys

    from edgellm.errors import ConfigError

    try:
        if sys.stdin.isatty():
            return getpass.getpass("secret: ")
    except EOFError:
        pass  # Ctrl-D
    raise ConfigError(
        "the secret is missing",
        hint="--secret hosts.json.secret, a copy of what edgellm cluster start has written; or "
        "--secret -, which reads it from standard input",
    )


def _end_with_input() -> None:
    import os
    import signal
    import sys

    wait_for_end(sys.stdin.fileno(), INPUT_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


def wait_for_end(descriptor: int, seconds: float) -> None:
    """Wait until an input ends, or something has come and then nothing more for so long."""
    import os
    import select

    patience: float | None = None
    while select.select([descriptor], [], [], patience)[0] and os.read(descriptor, 4096):
        patience = seconds


def _held(model: str) -> Checkpoint | PartFolder:
    """Return what is here of a model. Raises EdgeLLMError."""
    from edgellm.checkpoint.checkpoint import Checkpoint
    from edgellm.checkpoint.folder import PART
    from edgellm.cli.common.load_with_progress import read_model
    from edgellm.console import terminal
    from edgellm.distributed.supply.part_folder import PartFolder
    from edgellm.errors import UnsupportedModelError
    from edgellm.files.given_path import given_path
    from edgellm.hub.resolve import is_here

    folder = given_path(model)
    if (folder / PART).exists():
        return PartFolder(folder, say=terminal.note)
    if not is_here(model):
        terminal.note(f"{model} is not on this machine: the first one sends it its part")
        return PartFolder(say=terminal.note)
    checkpoint, _ = read_model(model)
    if not isinstance(checkpoint, Checkpoint):
        raise UnsupportedModelError("models that mlx-lm computes run on one machine")
    return checkpoint
