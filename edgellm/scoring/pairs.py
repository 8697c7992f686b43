"""Pairs of a context and its continuation, as tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from edgellm.errors import ConfigError
from edgellm.generation.prompt import token_ids
from edgellm.setting_values import listed, shown
from edgellm.tokenizer import Tokenizer

RECENT_CONTEXTS = 16
"""Contexts whose tokens are remembered: those of one question come one after the other."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A context, at least one token, and the continuation that is scored after it.

    Attributes:
        context: token ids.
        continuation: token ids.
        bytes: bytes of the continuation in UTF-8.
    """

    context: tuple[int, ...]
    continuation: tuple[int, ...]
    bytes: int

    @property
    def tokens(self) -> tuple[int, ...]:
        """Both."""
        return self.context + self.continuation


def encode_pairs(pairs: object, tokenizer: Tokenizer) -> list[Pair]:
    """Return pairs of texts or of token ids as tokens. Raises ConfigError, which says the place."""
    encoded = []
    encode = lru_cache(RECENT_CONTEXTS)(lambda text: tuple(tokenizer.encode_prompt(text)))
    for place, pair in enumerate(listed("pairs", pairs, "a list of pairs")):
        parts = listed(f"pairs[{place}]", pair, "a context and a continuation")
        if len(parts) != 2 or isinstance(parts[0], str) != isinstance(parts[1], str):
            raise ConfigError(
                f"pairs[{place}] is {shown(pair)}; it must be a context and a continuation",
                hint="give two texts, or two lists of token ids",
            )
        context, continuation = parts
        if isinstance(context, str):
            one = _encode_texts(context, continuation, tokenizer, encode)
        else:
            one = _encode_ids(context, continuation, tokenizer)
        if not one.continuation:
            raise ConfigError(
                f"the continuation of pairs[{place}] has no token of its own",
                hint="give both as token ids: the tokenizer joins its text with the context's",
            )
        encoded.append(one)
    return encoded


def _encode_texts(
    context: str, continuation: str, tokenizer: Tokenizer, encode: Callable[[str], tuple[int, ...]]
) -> Pair:
    """Return two texts as tokens: both are encoded as one text, which is cut after the context.

    That is the rule of lm-evaluation-harness: blanks at the end of a context belong to the
    continuation, and after no context at all comes the token that begins a text.
    """
    size = len(continuation.encode("utf-8", "replace"))
    if not context:
        begin = _begin(tokenizer)
        ids = tokenizer.encode_prompt(continuation)
        if ids[:1] == [begin]:
            ids = ids[1:]
        return Pair((begin,), tuple(ids), size)
    blanks = len(context) - len(context.rstrip())
    if blanks:
        context, continuation = context[:-blanks], context[-blanks:] + continuation
    if not context:
        return _encode_texts("", continuation, tokenizer, encode)
    whole = tuple(tokenizer.encode_prompt(context + continuation))
    alone = encode(context)
    before = whole[: len(alone)]
    if before == alone:
        before = alone  # of all its options one tuple is held
    return Pair(before, whole[len(alone) :], size)


def _encode_ids(context: Sequence[int], continuation: Sequence[int], tokenizer: Tokenizer) -> Pair:
    """Return token ids as they are; a context without any is the token that begins a text."""
    ids = tuple(token_ids(continuation, tokenizer))
    before = tuple(token_ids(context, tokenizer)) or (_begin(tokenizer),)
    return Pair(before, ids, len(tokenizer.decode(ids).encode()))


def _begin(tokenizer: Tokenizer) -> int:
    """Return the token that begins a text, or ends one where there is none. Raises ConfigError."""
    if tokenizer.bos_token_id is not None:
        return tokenizer.bos_token_id
    if tokenizer.eos_token_ids:
        return min(tokenizer.eos_token_ids)
    raise ConfigError(
        "a context is empty, and the tokenizer has no token that begins or ends a text",
        hint="give a context of at least one token",
    )
