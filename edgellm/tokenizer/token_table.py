"""Tokens by their ids and ids by their tokens, as every vocabulary has them."""

from __future__ import annotations

import gc
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from edgellm.errors import TokenizerError
from edgellm.files.strict_json import quoted
from edgellm.tokenizer.added_tokens import AddedToken
from edgellm.tokenizer.detokenizer import Decoding


@contextmanager
def collector_paused() -> Iterator[None]:
    """Keep Python's collector from looking at half a million new values again and again.

    That took half as long as all the rest for 128,000 tokens and 28,000 added ones.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class TokenTable(ABC):
    """Tokens and ids, each found by the other, and the rules between them and text.

    Args:
        tokens: by their ids; of two equal ones the last is found by its text.
    """

    begin: list[int]
    end: list[int]
    named: dict[str, str | None]
    special_ids: frozenset[int]
    split_token_ids: frozenset[int]
    size: int
    decoding: Decoding

    def __init__(self, tokens: dict[int, str]) -> None:
        self._tokens = tokens
        self._ids = {token: token_id for token_id, token in tokens.items()}

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text``, without the tokens that begin and end every text."""

    @abstractmethod
    def encode_marked(self, text: str, mark: str, control: frozenset[int]) -> list[int]:
        """Return the ids of ``text``, where control tokens are such behind a mark alone.

        Args:
            text: any; what spells a control token without a mark before it is text.
            mark: a character that stands before those that are meant.
            control: ids of the tokens that need it.

        Raises:
            TokenizerError: the vocabulary makes a control token of the text all the same.
        """

    def token_of(self, token_id: int) -> str | None:
        """Return the token of an id, ``None`` where there is none."""
        return self._tokens.get(token_id)

    def id_of(self, token: str) -> int | None:
        """Return the id of a token, ``None`` where there is none."""
        return self._ids.get(token)

    def reserve_ids(self, added: Mapping[int, AddedToken]) -> None:
        """Give added tokens the ids that the files say: free ones, or their own.

        Raises:
            TokenizerError: an id belongs to another token, or a token has another id.
        """
        for token_id, token in added.items():
            text = token.content
            token_there = self._tokens.setdefault(token_id, text)
            id_there = self._ids.setdefault(text, token_id)
            if token_there != text or id_there != token_id:
                raise TokenizerError(
                    f"added token {quoted(text)} has the id {token_id}, "
                    "which belongs to another token"
                )

    def refuse_control(self, text: str, ids: Iterable[int], control: frozenset[int]) -> None:
        """Raise TokenizerError where ids of a text hold a control token that it spells.

        One for unknown characters may be there.
        """
        if any((self.token_of(own) or "") in text for own in control.intersection(ids)):
            raise TokenizerError(
                "the vocabulary has no other tokens for a text that spells a control token",
                hint="take it out of the text",
            )
