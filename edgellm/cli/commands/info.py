"""``edgellm info``: the shape of a model, and what its parts weigh."""

from __future__ import annotations

from edgellm.cli.common import options
from edgellm.console import terminal
from edgellm.device.require_mlx import require_backend


def info(model: options.Model, *, json: options.Json = False) -> None:
    """Show a model's architecture and sizes."""
    require_backend()
    from edgellm.console.tables.model_table import show_model
    from edgellm.diagnostics.facts import inspect_model, model_facts
    from edgellm.tokenizer import Tokenizer

    checkpoint, downloaded = inspect_model(model)
    tokenizer = None
    if downloaded:
        vocab_size = checkpoint.config.vocab_size
        tokenizer = Tokenizer.from_folder(checkpoint.folder.path, vocab_size=vocab_size)
    facts = model_facts(checkpoint, tokenizer)
    if json:
        terminal.write_json({"model": model, **facts})
    else:
        show_model(facts)
