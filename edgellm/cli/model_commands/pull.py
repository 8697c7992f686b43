"""``edgellm pull``: a model is downloaded, as it would be when it is first used."""

from __future__ import annotations

from edgellm.cli.common import options
from edgellm.console import terminal
from edgellm.console.units import size
from edgellm.device.require_mlx import require_backend


def pull(model: options.Model) -> None:
    """Download a model into the cache of the Hub's library, where other programs find it, too.

    An interrupted download continues where it stopped. A GGUF file is also converted. The model's
    folder is printed.
    """
    require_backend()
    from edgellm.cli.common.load_with_progress import read_model
    from edgellm.hub.names import parse_hub_name

    try:
        checkpoint, _ = read_model(model)
    except KeyboardInterrupt:
        if parse_hub_name(model) is not None:
            terminal.note("what has come is kept; the same command continues from there")
        raise
    terminal.write_line(str(checkpoint.folder.path))
    terminal.note(f"{model}: {size(checkpoint.nbytes)}, ready: edgellm chat {model}")
