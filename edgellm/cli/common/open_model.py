"""From the name of a model to a model that runs, with its loading shown."""

from __future__ import annotations

from edgellm.checkpoint.checkpoint import Checkpoint, read_checkpoint
from edgellm.console.progress import loading
from edgellm.hub.resolve import locate
from edgellm.llm import LLM
from edgellm.open_llm import open_llm
from edgellm.settings import LoadSettings
from edgellm.tokenizer import Tokenizer


def read_model(model: str) -> tuple[Checkpoint, Tokenizer]:
    """A model whose weights have not been read yet, and its tokenizer. Raises EdgeLLMError, as ``load``."""
    checkpoint = read_checkpoint(locate(model))
    return checkpoint, Tokenizer.from_folder(
        checkpoint.folder.path, vocab_size=checkpoint.config.vocab_size
    )


def watched_load(
    name: str, checkpoint: Checkpoint, tokenizer: Tokenizer, settings: LoadSettings
) -> LLM:
    """Load a model, with a progress bar where it takes its time. Raises EdgeLLMError, as ``load``."""
    with loading(name) as progress:
        return open_llm(checkpoint, tokenizer, settings, progress=progress)
