"""Prompts as token ids, with the beginning left out where the context is too small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgellm.errors import ConfigError
from edgellm.scoring.pairs import encode_pairs
from edgellm.tokenizer import Tokenizer

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class OptionPair:
    """An option after its context.

    Attributes:
        context: token ids.
        continuation: token ids.
        was_cut: whether the context's beginning was left out.
    """

    context: Ids
    continuation: Ids
    was_cut: bool


def option_pairs(prompt: Mapping[str, Any], tokenizer: Tokenizer, room: int) -> list[OptionPair]:
    """Return each option of a prompt after its context.

    Args:
        prompt: a context and continuations as texts, or messages and continuations.
        tokenizer: the model's.
        room: tokens of the context window.

    Raises:
        ConfigError: an option alone is longer than the window, or has no token.
        TemplateError, TokenizerError: the prompt cannot be written in tokens.
    """
    continuations: Sequence[str] = prompt["continuations"]
    if prompt["messages"]:
        context = tokenizer.apply_chat_template(prompt["messages"])
        answers = [tokenizer.encode(text, add_special_tokens=False) for text in continuations]
        pairs = encode_pairs([(context, answer) for answer in answers], tokenizer)
    else:
        pairs = encode_pairs([(prompt["context"], text) for text in continuations], tokenizer)
    # one token of a context at least, from which the first token of the option follows
    longest = max(len(pair.continuation) for pair in pairs)
    if longest >= room:
        raise ConfigError(
            f"an option has {longest} tokens, and the context has room for {room}",
            hint="raise --context, or leave the row out",
        )
    # all options are read after the same words
    return [
        OptionPair(
            _last(pair.context, room - longest, tokenizer),
            pair.continuation,
            len(pair.context) > room - longest,
        )
        for pair in pairs
    ]


def prompt_ids(prompt: Mapping[str, Any], tokenizer: Tokenizer, room: int) -> tuple[Ids, bool]:
    """Return a prompt that an answer follows, and whether its beginning was left out.

    Args:
        prompt: a context as a text, or messages.
        tokenizer: the model's.
        room: tokens of the context window without those of the answer, at least 1.

    Raises:
        TemplateError, TokenizerError: the prompt cannot be written in tokens.
    """
    if prompt["messages"]:
        ids = tokenizer.apply_chat_template(prompt["messages"])
    else:
        ids = tokenizer.encode_prompt(prompt["context"])
    return _last(tuple(ids), room, tokenizer), len(ids) > room


def _last(ids: Ids, room: int, tokenizer: Tokenizer) -> Ids:
    """Return the last tokens, for which there is room, after the one that begins a text."""
    if len(ids) <= room:
        return ids
    begin = tokenizer.bos_token_id
    if room > 1 and begin is not None and ids[0] == begin:
        return (begin, *ids[len(ids) - room + 1 :])
    return ids[len(ids) - room :]
