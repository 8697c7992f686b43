"""The tokens of a model as llguidance needs them: bytes by their ids, built once a model."""

# V vocabulary

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Set
from functools import cached_property
from typing import Any, Protocol
from weakref import WeakKeyDictionary, ref

from edgellm.errors import ConfigError
from edgellm.structured.grammar import Grammar
from edgellm.structured.library import from_lark, limits, llguidance

KEPT_GRAMMARS = 64
"""Compiled grammars of a model that are kept, least recently used first."""

_BEFORE = "\x02"
"""A text in front of another, so that this one goes on; no blank is merged with it."""


class Tokens(Protocol):
    """A tokenizer, as far as it is needed here."""

    vocab_size: int
    special_ids: frozenset[int]
    drops_first_blank: bool

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes of a token; none where there is no such token."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Return the ids of a text."""


class TokenTrie:
    """The tokens of a model, and the grammars that were compiled for them; for any thread.

    Args:
        tokenizer: the model's.
        end_tokens: tokens that end an answer.
    """

    def __init__(self, tokenizer: Tokens, end_tokens: Set[int]) -> None:
        size = max(tokenizer.vocab_size, *(token + 1 for token in end_tokens), 1)
        tokens = [tokenizer.token_bytes(token) for token in range(size)]
        ends = sorted(end_tokens)
        if not ends:
            # llguidance has no tokenizer without one; this id is no model's
            ends = [len(tokens)]
            tokens.append(b"")
        library = llguidance()
        encoder = library.TokenizerWrapper(_Encoder(tokenizer, tokens, ends))
        self._tokenizer = library.LLTokenizer(encoder, eos_token=ends)
        self._blank = [token for token, data in enumerate(tokens) if data == b" "][:1]
        self._drops_blank = tokenizer.drops_first_blank
        self._compiled: OrderedDict[str, Any] = OrderedDict()
        self._compiling = threading.Lock()

    def matcher(self, grammar: Grammar, *, begins: bool = False) -> Any:
        """Return a new matcher of a grammar, at its beginning.

        Args:
            grammar: the form of the answer.
            begins: whether the answer begins a text, which SentencePiece begins with a blank that
                is not shown: the grammar then has none, and the model's tokens may have one.

        Raises:
            ConfigError: the grammar names a special token that this model has not.
        """
        compiled = grammar.compiled
        after_blank = begins and self._drops_blank
        if after_blank:
            compiled = from_lark('start: " "? @answer', {"answer": compiled})
        with self._compiling:
            found = self._compiled.get(compiled)
            if found is None:
                found = self._compile(compiled, limits(grammar.step_items), after_blank=after_blank)
                self._compiled[compiled] = found
                if len(self._compiled) > KEPT_GRAMMARS:
                    self._compiled.popitem(last=False)
            self._compiled.move_to_end(compiled)
            return found.deep_copy()

    def _compile(self, compiled: str, limited: Any, *, after_blank: bool) -> Any:
        """Return a matcher; ``after_blank``: a blank may come before what it is a grammar of."""
        matcher = llguidance().LLMatcher(self._tokenizer, compiled, log_level=0, limits=limited)
        if matcher.is_error():
            raise ConfigError(
                f"the grammar does not fit this model: {matcher.get_error().strip()}",
                hint="it may name special tokens of another model",
            )
        first = matcher.deep_copy()
        _require_text(first)
        if after_blank:
            for token in self._blank:
                first.consume_token(token)
            _require_text(first)
        return matcher


def _require_text(matcher: Any) -> None:
    """Raise ConfigError where no token may come at the beginning of a grammar."""
    matcher.compute_bitmask()
    if matcher.is_stopped():
        raise ConfigError(
            f"the grammar allows no text: {matcher.get_error().strip() or matcher.stop_reason()}",
            hint="let it begin with something",
        )


class _Encoder:
    """Tokens for llguidance's ``TokenizerWrapper``, and texts as tokens of the same bytes.

    It does not keep the tokenizer alive, which would keep this one.
    """

    bos_token_id: int | None = None

    def __init__(self, tokenizer: Tokens, tokens: list[bytes], ends: list[int]) -> None:
        self._tokenizer = ref(tokenizer)
        self.tokens = tokens
        self.special_token_ids = sorted({*tokenizer.special_ids, *ends})
        self.eos_token_id = ends[0]
        self._is_special = set(self.special_token_ids)

    def __call__(self, text: str) -> list[int]:
        """Return the tokens that a text is written with when it goes on from another.

        SentencePiece begins each text with a blank, and some tokenizers change letters: the mask of
        forced bytes would then have a token of other bytes alone.
        """
        tokenizer = self._tokenizer()
        if tokenizer is None or not isinstance(text, str):
            raise TypeError("llguidance encodes texts of a model that is there")
        ids = tokenizer.encode(_BEFORE + text, add_special_tokens=False)
        data = text.encode("utf-8")
        for place in range(len(ids)):
            if self._written(ids[:place]).strip() == _BEFORE.encode():
                found = ids[place:]
                if self._written(found) == data:
                    return found
        return self._longest_first(data)

    def _written(self, ids: list[int]) -> bytes:
        return b"".join(self.tokens[token] for token in ids)

    def _longest_first(self, data: bytes) -> list[int]:
        """Return tokens of these bytes, each as long as can be; fewer where bytes have none."""
        ids = []
        place = 0
        while place < len(data):
            for end in range(min(len(data), place + self._longest), place, -1):
                token = self._by_bytes.get(data[place:end])
                if token is not None:
                    ids.append(token)
                    place = end
                    break
            else:
                return ids
        return ids

    @cached_property
    def _by_bytes(self) -> dict[bytes, int]:
        return {
            data: token
            for token, data in enumerate(self.tokens)
            if data and token not in self._is_special
        }

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self._by_bytes), default=0)


def token_trie(tokenizer: Tokens, end_tokens: frozenset[int]) -> TokenTrie:
    """Return the tokens of a model: the same object for the same tokenizer and end tokens.

    The first call takes a second with a vocabulary of 128,000, where others for the same model
    wait for it.
    """
    with _building:
        tries = _tries.setdefault(tokenizer, {})
        if end_tokens not in tries:
            tries[end_tokens] = TokenTrie(tokenizer, end_tokens)
        return tries[end_tokens]


_tries: WeakKeyDictionary[Tokens, dict[frozenset[int], TokenTrie]] = WeakKeyDictionary()
_building = threading.Lock()
