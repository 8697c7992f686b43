"""The output of a generation: tokens with their text, and completions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from edgellm.errors import EdgeLLMError
from edgellm.generation.stats import Stats

FinishReason = Literal["stop", "length", "cancelled", "timeout", "error"]
"""Why a completion ended: ``stop`` (an end token or a stop text), ``length`` (max_tokens, or the
context is full), ``cancelled``, ``timeout``, or ``error``, where the token has the error."""


@dataclass(frozen=True, slots=True)
class Token:
    """A new token and the text that it completes.

    Attributes:
        id: the token; None where the token only closes the completion.
        text: what it completes; empty while a character is not whole.
        logprob: its natural log-probability, where that was asked for.
        finish_reason: why the completion ended (``FinishReason``), of the last token; else None.
        stats: the cost, of the last token.
        error: why there is no completion, where ``finish_reason`` is ``error``.
        thinking: in a conversation, what it completes of the model's thinking, which is no part of
            ``text``.
    """

    id: int | None
    text: str
    logprob: float | None = None
    finish_reason: FinishReason | None = None
    stats: Stats | None = None
    error: EdgeLLMError | None = None
    thinking: str = ""


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole completion; ``error`` says why there is none where ``finish_reason`` is ``error``."""

    text: str
    tokens: tuple[Token, ...]
    finish_reason: FinishReason
    stats: Stats
    error: EdgeLLMError | None = None


def completion_of(tokens: Sequence[Token]) -> Completion:
    """Return the completion that some tokens make, the last of which closes it."""
    last = tokens[-1]
    assert last.finish_reason is not None, "the last token closes the completion"
    assert last.stats is not None, "and says what it cost"
    return Completion(
        text="".join(token.text for token in tokens),
        tokens=tuple(tokens),
        finish_reason=last.finish_reason,
        stats=last.stats,
        error=last.error,
    )
