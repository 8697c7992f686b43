"""A limit of thinking: after so many tokens the model is made to end it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgellm.chat_template.thinking import find_markers
from edgellm.tokenizer import Tokenizer

NEAR_END = 16
"""Tokens at the end of a prompt in which it may have opened the thinking."""


class ThinkingBudget:
    """A logits processor that ends thinking with its marker; it leaves all else as it is.

    Args:
        start: tokens that begin thinking.
        end: tokens that end it.
        prompt: the prompt.
        budget: tokens that a reply may have when its thinking ends.
    """

    def __init__(
        self, start: Sequence[int], end: Sequence[int], prompt: Sequence[int], budget: int
    ) -> None:
        self._start = list(start)
        self._end = list(end)
        self._budget = budget
        self._prompt_tokens = len(prompt)
        near_end = list(prompt[-NEAR_END:])
        self._is_opened = _find(near_end, self._start) > _find(near_end, self._end)

    def __call__(
        self, tokens: npt.NDArray[np.intc], logits: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """Return logits that leave the next token of the marker alone, where it is due."""
        due = len(tokens) - self._prompt_tokens - self._budget
        if not 0 <= due < len(self._end):
            return logits
        reply = tokens[self._prompt_tokens :].tolist()
        is_open = self._is_opened or _find(reply, self._start) >= 0
        if not is_open or _find(reply, self._end) >= 0 or reply[self._budget :] != self._end[:due]:
            return logits
        forced = np.full_like(logits, -np.inf)
        forced[self._end[due]] = 0
        return forced


def thinking_budget(
    tokenizer: Tokenizer, prompt: Sequence[int], budget: int
) -> ThinkingBudget | None:
    """Return what limits the thinking of a reply; None where the model does not think."""
    markers = find_markers(
        tokenizer.chat_template or "", lambda text: tokenizer.token_to_id(text) is not None
    )
    if markers is None:
        return None
    start, end = (_tokens(text, tokenizer) for text in (markers.start, markers.end))
    return ThinkingBudget(start, end, prompt, budget)


def _tokens(text: str, tokenizer: Tokenizer) -> list[int]:
    token = tokenizer.token_to_id(text)
    if token is not None:
        return [token]
    return tokenizer.encode(text, add_special_tokens=False)


def _find(tokens: Sequence[int], sought: Sequence[int]) -> int:
    """Return where some tokens come last within others; -1 where they do not."""
    for place in range(len(tokens) - len(sought), -1, -1):
        if tokens[place : place + len(sought)] == sought:
            return place
    return -1
