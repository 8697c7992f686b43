"""A constraint: what holds the tokens of one sequence to a grammar."""

# V vocabulary

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from edgellm.errors import ConfigError
from edgellm.structured.grammar import Grammar
from edgellm.structured.token_trie import Tokens, token_trie

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@cache
def _ceilings_of_bytes() -> npt.NDArray[np.float32]:
    """Return the ceilings (256, 8) of the eight tokens that each byte of a mask is about."""
    import numpy as np

    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    return np.where(bits, np.inf, -np.inf).astype(np.float32)


class Constraint:
    """Says which tokens may come next in one sequence.

    Args:
        matcher: llguidance's, at the beginning of the grammar.
        vocab_size: logits of a position; the tokenizer may have fewer tokens.

    Attributes:
        has_ended: whether the grammar is complete, and nothing may follow.
    """

    def __init__(self, matcher: Any, vocab_size: int) -> None:
        self._matcher = matcher
        self._start = matcher.deep_copy()
        self._vocab_size = vocab_size
        self.has_ended: bool = False

    def go_on(self, tokens: Sequence[int]) -> None:
        """Go on after these tokens, the first of which began the answer."""
        self._matcher = self._start.deep_copy()
        self.has_ended = False
        for token in tokens:
            self.add(token)

    def ceiling(self) -> npt.NDArray[np.float32]:
        """Return the most that logits (V,) may be: infinite for tokens that may come next.

        It is minus infinite for all others. End tokens may come where the answer may be over.

        Raises:
            ConfigError: the grammar needs more work for a token than llguidance's limits allow.
        """
        import numpy as np

        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._require_no_error()
        # eight tokens at once: to work on each of 128,000 takes three times as long
        ceiling = np.take(_ceilings_of_bytes(), bits, axis=0).reshape(-1)
        if len(ceiling) >= self._vocab_size:
            return ceiling[: self._vocab_size]
        beyond = np.full(self._vocab_size - len(ceiling), -np.inf, np.float32)
        return np.concatenate((ceiling, beyond))

    def add(self, token: int) -> None:
        """Take the next token of the sequence. Raises ConfigError where it may not come."""
        self._matcher.consume_token(token)
        self._require_no_error()
        self.has_ended = self._matcher.is_stopped()

    def _require_no_error(self) -> None:
        if self._matcher.is_error():
            raise ConfigError(
                f"the answer cannot be held to its grammar: {self._matcher.get_error().strip()}",
                hint="use a simpler grammar or schema",
            )


def constraint_for(
    grammar: Grammar | None,
    tokenizer: Tokens,
    end_tokens: frozenset[int],
    vocab_size: int,
    *,
    continues: bool = True,
) -> Constraint | None:
    """Return what holds a new sequence to a grammar; None without one.

    The first grammar of a model takes a second with a vocabulary of 128,000.

    Args:
        grammar: the form of the answer.
        tokenizer: the model's.
        end_tokens: tokens that end the answer.
        vocab_size: logits of a position.
        continues: whether the answer goes on in the middle of a text, as decoders have it.

    Raises:
        ConfigError: the grammar names a special token that this model has not.
        BackendError: llguidance is not installed.
    """
    if grammar is None:
        return None
    matcher = token_trie(tokenizer, end_tokens).matcher(grammar, begins=not continues)
    return Constraint(matcher, vocab_size)
