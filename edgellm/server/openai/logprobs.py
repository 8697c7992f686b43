"""Log-probabilities of tokens, in the form of OpenAI's chat completions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from edgellm.generation.output import Token, token_text
from edgellm.tokenizer import Tokenizer


def chat_logprobs(tokens: Iterable[Token], tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the log-probabilities of tokens with their texts and bytes."""
    content = []
    for token in tokens:
        if token.id is None or token.logprob is None:
            continue
        entry = _entry(token_text(token.id, tokenizer), token.logprob)
        entry["top_logprobs"] = [_entry(top.text, top.logprob) for top in token.top_logprobs]
        content.append(entry)
    return {"content": content, "refusal": None}


def _entry(text: str, logprob: float) -> dict[str, Any]:
    return {"token": text, "logprob": logprob, "bytes": list(text.encode())}
