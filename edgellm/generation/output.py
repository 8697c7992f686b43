"""The output of a generation: tokens with their text, and completions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from edgellm.errors import EdgeLLMError
from edgellm.generation.stats import Stats
from edgellm.sampling.logprobs import TokenLogprob
from edgellm.sampling.token_scorer import TokenScorer
from edgellm.setting_values import shown
from edgellm.tokenizer import Tokenizer

FinishReason = Literal["stop", "length", "cancelled", "timeout", "error"]
"""Why a completion ended: ``stop`` (an end token or a stop text), ``length`` (max_tokens, or the
context is full), ``cancelled``, ``timeout``, or ``error``, where the token has the error."""


class TopLogprob(NamedTuple):
    """A token that could have come: its id, its text (specials as written), its log-probability."""

    id: int
    text: str
    logprob: float


@dataclass(frozen=True, slots=True)
class PromptToken:
    """A token of a prompt, with the log-probability that the model gave it.

    Attributes:
        id: the token.
        text: what it adds to the prompt; of a special token, how it is written.
        logprob: its natural log-probability; None for the first one, which nothing comes before.
        top_logprobs: the most likely tokens in its place, most likely first.
    """

    id: int
    text: str
    logprob: float | None
    top_logprobs: tuple[TopLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Beam:
    """One of the continuations that a beam search kept.

    Attributes:
        text: the continuation.
        ids: its tokens.
        score: ranks beams: the mean log-probability of its tokens, an end token
            included, after logits processors and the repetition penalty.
        finish_reason: why it ended.
    """

    text: str
    ids: tuple[int, ...]
    score: float
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True)
class Token:
    """A new token and the text that it completes.

    Attributes:
        id: the token; None where the token only closes the completion.
        text: what it completes; empty while a character is not whole.
        logprob: its natural log-probability, where that was asked for.
        finish_reason: why the completion ended (``FinishReason``), of the last token; else None.
        stats: the cost, of the last token.
        error: why there is no completion, if ``finish_reason`` is ``error``.
        thinking: in a conversation, what it completes of the model's thinking, which is not part of
            ``text``.
        top_logprobs: the most likely tokens in its place, most likely first, where that was asked
            for; by the model's own logits, as ``logprob`` is.
        beams: of a beam search, what the last token closes: all that it kept, the best first.
        prompt_logprobs: of the first token: the prompt's tokens, where that was asked for.
        stop_text: of the last token: the stop text that ended the completion, if one did.
    """

    id: int | None
    text: str
    logprob: float | None = None
    finish_reason: FinishReason | None = None
    stats: Stats | None = None
    error: EdgeLLMError | None = None
    thinking: str = ""
    top_logprobs: tuple[TopLogprob, ...] = ()
    beams: tuple[Beam, ...] = ()
    prompt_logprobs: tuple[PromptToken, ...] = ()
    stop_text: str | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Completion:
    """A whole completion.

    Attributes:
        text: the text that continues the prompt.
        tokens: its tokens, as they came.
        finish_reason: why it ended.
        stats: its cost: tokens, times and memory.
        error: why there is no completion, if ``finish_reason`` is ``error``.
        beams: of a beam search, all continuations that it kept, the best (this one) first.
        prompt_logprobs: the prompt's tokens with their log-probabilities, where that was asked for.
    """

    text: str
    tokens: tuple[Token, ...]
    finish_reason: FinishReason
    stats: Stats
    error: EdgeLLMError | None = None
    beams: tuple[Beam, ...] = ()
    prompt_logprobs: tuple[PromptToken, ...] = ()

    def __repr__(self) -> str:
        count = len(self.tokens)
        return f"<Completion {self.finish_reason}, {count} tokens: {shown(self.text)}>"

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids of its tokens, an end token included."""
        return tuple(token.id for token in self.tokens if token.id is not None)


def completion_of(tokens: Sequence[Token]) -> Completion:
    """Return the completion of these tokens; the last one closes it."""
    last = tokens[-1]
    assert last.finish_reason is not None, "the last token closes the completion"
    assert last.stats is not None, "and says what it cost"
    return Completion(
        text="".join(token.text for token in tokens),
        tokens=tuple(tokens),
        finish_reason=last.finish_reason,
        stats=last.stats,
        error=last.error,
        beams=last.beams,
        prompt_logprobs=tokens[0].prompt_logprobs,
    )


def top_logprobs(logprob: TokenLogprob, tokenizer: Tokenizer) -> tuple[TopLogprob, ...]:
    """Return the most likely tokens of a position with their texts."""
    return tuple(
        TopLogprob(token, token_text(token, tokenizer), value) for token, value in logprob.top
    )


def prompt_tokens(
    ids: Sequence[int], scorer: TokenScorer, tokenizer: Tokenizer
) -> tuple[PromptToken, ...]:
    """Return a prompt's tokens as they were scored. Raises NotFiniteError."""
    scorer.require_finite()
    first = PromptToken(ids[0], token_text(ids[0], tokenizer), None)
    return (
        first,
        *(
            PromptToken(
                token,
                token_text(token, tokenizer),
                found.logprob,
                top_logprobs(found, tokenizer),
            )
            for token, found in zip(ids[1:], scorer.logprobs, strict=True)
        ),
    )


def token_text(token: int, tokenizer: Tokenizer) -> str:
    """Return what a token adds to a text; of a special token, how it is written."""
    decoder = tokenizer.decoder(skip_special_tokens=False, continues=True)
    return decoder.add(token) + decoder.finish()
