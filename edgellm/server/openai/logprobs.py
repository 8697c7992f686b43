"""Log-probabilities of tokens, in the forms of OpenAI's chat completions and completions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from edgellm.generation.output import PromptToken, Token, TopLogprob, token_text
from edgellm.tokenizer import Tokenizer


def chat_logprobs(tokens: Iterable[Token], tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the log-probabilities of tokens with their texts and bytes."""
    content = []
    for token in tokens:
        if token.id is None or token.logprob is None:
            continue
        entry = _entry(token.id, token.logprob, tokenizer)
        entry["top_logprobs"] = [
            _entry(top.id, top.logprob, tokenizer) for top in token.top_logprobs
        ]
        content.append(entry)
    return {"content": content, "refusal": None}


class TextLogprobs:
    """The log-probabilities of one completion, as they come.

    Args:
        tokenizer: of the model.
        echo: the prompt's text, if the completion begins with it.
    """

    def __init__(self, tokenizer: Tokenizer, echo: str) -> None:
        self._tokenizer = tokenizer
        self._decoder = tokenizer.decoder(continues=not echo)
        self._offset = 0

    def of(self, tokens: Sequence[Token]) -> dict[str, Any] | None:
        """Return those of the next tokens, the prompt's with the first; None where none has any."""
        found: dict[str, list[Any]] = {
            name: [] for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset")
        }
        for token in tokens:
            for one in token.prompt_logprobs:
                self._add(found, one.text, one)
            if token.id is not None and token.logprob is not None:
                self._add(found, token_text(token.id, self._tokenizer), token)
        if not found["tokens"]:
            return None
        return found

    def _add(self, found: dict[str, list[Any]], text: str, token: PromptToken | Token) -> None:
        found["tokens"].append(text)
        found["token_logprobs"].append(token.logprob)
        found["top_logprobs"].append(_by_text(token.top_logprobs))
        found["text_offset"].append(self._offset)
        if token.id is not None:
            self._offset += len(self._decoder.add(token.id))


def _by_text(tops: Sequence[TopLogprob]) -> dict[str, float] | None:
    """Return the most likely tokens by their texts; of those with equal texts the likeliest."""
    if not tops:
        return None
    return {top.text: top.logprob for top in reversed(tops)}


def _entry(token: int, logprob: float, tokenizer: Tokenizer) -> dict[str, Any]:
    """Return a token with its bytes, which may be a part of a character."""
    text = token_text(token, tokenizer)
    return {"token": text, "logprob": logprob, "bytes": list(tokenizer.token_bytes(token))}
