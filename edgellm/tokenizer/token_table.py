"""Tokens by their ids and ids by their tokens, as every vocabulary has them."""

from __future__ import annotations

from collections.abc import Mapping

from edgellm.errors import TokenizerError
from edgellm.files.strict_json import quoted
from edgellm.tokenizer.added_tokens import AddedToken


class TokenTable:
    """Tokens and ids, each found by the other.

    Args:
        tokens: by their ids; of two equal ones the last is found by its text.
    """

    def __init__(self, tokens: dict[int, str]) -> None:
        self._tokens = tokens
        self._ids = {token: token_id for token_id, token in tokens.items()}

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
