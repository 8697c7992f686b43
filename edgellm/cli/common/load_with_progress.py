"""From the name of a model to a model that runs, with its loading shown."""

from __future__ import annotations

from edgellm.console.progress import converting_shown, show_loading, show_sending
from edgellm.hub.resolve import locate
from edgellm.llm import LLM
from edgellm.models.through_mlx_lm.checkpoint import AnyCheckpoint, read_any_checkpoint
from edgellm.open_llm import open_llm
from edgellm.settings import LoadSettings
from edgellm.tokenizer import Tokenizer


def read_model(model: str) -> tuple[AnyCheckpoint, Tokenizer]:
    """Read a model but for its weights. Raises EdgeLLMError, as ``edgellm.load`` does."""
    with converting_shown() as converting:
        folder = locate(model, converting=converting)
    checkpoint = read_any_checkpoint(folder)
    vocab_size = checkpoint.config.vocab_size
    return checkpoint, Tokenizer.from_folder(checkpoint.folder.path, vocab_size=vocab_size)


def open_with_progress(
    name: str, checkpoint: AnyCheckpoint, tokenizer: Tokenizer, settings: LoadSettings
) -> LLM:
    """Load a model behind a progress bar. Raises EdgeLLMError, as ``edgellm.load`` does."""
    with show_loading(name) as progress, show_sending() as sending:
        return open_llm(checkpoint, tokenizer, settings, progress=progress, sending=sending)
