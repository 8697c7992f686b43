"""A conversation as the model has computed it: its text, and the tokens that were used."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from edgellm.chat.reply import Reply
from edgellm.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class CachedTurn:
    """A conversation up to the end of a reply, as the model has computed it.

    Attributes:
        text: the rendered conversation, reply included.
        ids: the tokens that were read and made for it: not always those of the text, since a reply
            may be made of other tokens than the tokenizer would cut its text into.
        is_shared: whether another conversation goes on from it, too.
    """

    text: str
    ids: list[int]
    is_shared: bool = False

    def common(self, ids: Sequence[int]) -> int:
        """Return how many tokens it has in common with the beginning of a prompt."""
        pairs = zip(self.ids, ids, strict=False)
        return next((place for place, (a, b) in enumerate(pairs) if a != b), len(self.ids))


def encode(prompt: str, cached: CachedTurn | None, tokenizer: Tokenizer) -> list[int]:
    """Return the ids of a conversation, and for what was computed the ids that were used."""
    if cached and prompt.startswith(cached.text):
        rest = prompt[len(cached.text) :]
        new = tokenizer.encode(rest, add_special_tokens=False)
        # No token spans such a border, so both halves are encoded as the whole would be.
        if new and new[0] in tokenizer.split_token_ids:
            return [*cached.ids, *new]
    return tokenizer.encode(prompt, add_special_tokens=False)


def cached_turn(
    prompt: str, ids: list[int], reply: Reply, end_tokens: Collection[int]
) -> CachedTurn | None:
    """Return the turn that a reply has ended; None where its text and tokens differ."""
    text = prompt + reply.written
    ids = ids + reply.ids
    if reply.finish_reason != "stop":
        return CachedTurn(text, ids)
    # An end token is not part of the text: the template writes it, or another.
    if ids[-1] in end_tokens:
        return CachedTurn(text, ids[:-1])
    # A stop text ended the reply, and may have begun inside a token.
    return None
