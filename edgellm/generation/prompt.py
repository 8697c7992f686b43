"""The check of a prompt, before anything is computed of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgellm.checkpoint.model_config import CommonConfig
from edgellm.errors import ConfigError, ContextError
from edgellm.setting_values import listed_integers
from edgellm.tokenizer import Tokenizer

Prompt = str | Sequence[int]
"""A text, which is begun as the tokenizer begins one, or token ids."""


def token_ids(prompt: str | Iterable[int], tokenizer: Tokenizer) -> list[int]:
    """Return the token ids of a prompt: a text (``Tokenizer.encode_prompt``), or token ids.

    Raises:
        ConfigError: it is neither.
    """
    if isinstance(prompt, str):
        return tokenizer.encode_prompt(prompt)
    return listed_integers("the prompt", prompt, "a text, or token ids")


def check_prompt(tokens: Sequence[int], config: CommonConfig, *, context: int) -> None:
    """Raise what is wrong with a prompt.

    Args:
        tokens: its token ids.
        config: the model's config.
        context: tokens that the prompt may have.

    Raises:
        ConfigError: it is empty, or a token is outside the vocabulary.
        ContextError: it is longer than the context.
    """
    if not tokens:
        raise ConfigError("the prompt is empty", hint="give at least one token")
    if not 0 <= min(tokens) <= max(tokens) < config.vocab_size:
        raise ConfigError(
            f"a token id is outside the vocabulary of {config.vocab_size}",
            hint="encode texts with the tokenizer of this model",
        )
    if len(tokens) > context:
        raise ContextError(
            f"the prompt has {len(tokens)} tokens and the context {context}",
            hint="use a larger --context;"
            f" the model's own limit is {config.max_position_embeddings}",
        )
