"""The text of one answer, token by token, until something ends it."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Protocol

from edgellm.generation.stop_text import StopFilter


class Decoder(Protocol):
    """Turns tokens into text; what is not whole yet is held back."""

    def add(self, token: int) -> str:
        """Return the text that a token completes."""
        ...

    def finish(self) -> str:
        """Return what was held back."""
        ...


class TextStream:
    """An answer's tokens so far, and their text.

    Args:
        decoder: of a text that begins here.
        stop: texts that end the answer and are left out of it.
        end_tokens: tokens that end it.
        limit: tokens at the most.
    """

    def __init__(
        self, decoder: Decoder, *, stop: Sequence[str], end_tokens: Set[int], limit: int
    ) -> None:
        self._decoder, self._stops, self._end_tokens, self._limit = (
            decoder,
            StopFilter(stop),
            end_tokens,
            limit,
        )
        self.tokens: list[int] = []

    def add(self, token: int) -> tuple[str, str | None]:
        """Return the text that a token completes, and why the answer ends with it; None where it goes on."""
        self.tokens.append(token)
        ended = token in self._end_tokens
        text = self._stops.add("" if ended else self._decoder.add(token))
        if not (ended or self._stops.stopped or len(self.tokens) == self._limit):
            return text, None
        text += self._stops.add(self._decoder.finish())
        reason = "stop" if ended or self._stops.stopped else "length"
        return text + self._stops.finish(), reason

    def broken_off(self) -> str:
        """Return what was held back, of an answer that ends here."""
        return self._stops.add(self._decoder.finish()) + self._stops.finish()
