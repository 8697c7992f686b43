"""``edgellm list``: the models on this machine."""

from __future__ import annotations

from typing import Annotated

from typer import Argument

from edgellm.cli.common import options
from edgellm.console import terminal
from edgellm.device.require_mlx import require_backend
from edgellm.files.given_path import given_path


def list_models(
    folders: Annotated[
        list[str] | None,
        Argument(
            metavar="[FOLDER ...]",
            help="Model folders, or folders of them; default: bundled models and those in caches.",
        ),
    ] = None,
    *,
    json: options.Json = False,
) -> None:
    """List the models on this machine: size, bits, and whether they fit into memory now.

    Models are bundled, in the cache of the Hub, or converted from a GGUF file of the Hub and kept.
    A model that does not fit runs paged: layers that are not in memory are read for each token.
    """
    require_backend()
    from edgellm.cli.model_commands.model_table import show_models
    from edgellm.local_models.survey import local_models

    found = local_models([given_path(folder) for folder in folders or ()])
    if json:
        terminal.write_json([model.as_dict() for model in found])
        return
    show_models(found)
