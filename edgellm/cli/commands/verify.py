"""``edgellm verify``: whether a model folder is whole, and computes."""

from __future__ import annotations

from edgellm.cli.common import options
from edgellm.console import terminal
from edgellm.device.require_mlx import require_backend


def verify(model: options.Model, *, json: options.Json = False) -> int:
    """Check a model: files, index, shapes, checksums, values, tokenizer, and one forward pass."""
    require_backend()
    from edgellm.console.diagnosis_view import show_verification
    from edgellm.console.progress import show_verifying
    from edgellm.diagnostics.verify import verify as verify_folder
    from edgellm.hub.resolve import locate

    folder = locate(model)
    with show_verifying() as progress:
        verification = verify_folder(folder, progress)
    if json:
        terminal.write_json({"model": model, **verification.as_dict()})
    else:
        show_verification(verification)
    return int(not verification.passed)
