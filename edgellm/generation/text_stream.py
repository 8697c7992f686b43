"""The text of a completion, token by token, until something ends it."""

from __future__ import annotations

from collections.abc import Sequence, Set
from copy import copy

from edgellm.generation.output import FinishReason
from edgellm.generation.stop_text import StopFilter
from edgellm.tokenizer import StreamDecoder


class TextStream:
    """The tokens of a completion so far, and their text.

    Args:
        decoder: turns tokens into text, of a text that begins here.
        stop: texts that end the completion and are left out of it; in them special tokens are
            written out.
        end_tokens: tokens that end it.
        limit: tokens at the most.

    Attributes:
        tokens: the tokens so far.
    """

    def __init__(
        self, decoder: StreamDecoder, *, stop: Sequence[str], end_tokens: Set[int], limit: int
    ) -> None:
        self._decoder = decoder
        self._stop_filter = StopFilter(stop)
        self._has_stops = bool(stop)
        self._end_tokens = end_tokens
        self._limit = limit
        self.tokens: list[int] = []

    def copy(self) -> TextStream:
        """Return a stream that goes on from here with tokens of its own."""
        other = copy(self)
        other.tokens = self.tokens.copy()
        other._decoder = self._decoder.copy()
        other._stop_filter = self._stop_filter.copy()
        return other

    def add(self, token: int) -> tuple[str, FinishReason | None]:
        """Return the text that a token completes, and the finish reason; None where it goes on."""
        self.tokens.append(token)
        is_end = token in self._end_tokens
        text = ""
        if not is_end:
            text = self._stop_filter.add(self._decoder.add(token))
        if self._has_stops:
            text += self._stop_filter.add(self._decoder.control_text(token), shown=False)
        if not (is_end or self._stop_filter.stopped or len(self.tokens) == self._limit):
            return text, None
        text += self.flush()
        # flushing may complete a stop text, so the reason is known only now
        reason: FinishReason = "length"
        if is_end or self._stop_filter.stopped:
            reason = "stop"
        return text, reason

    def flush(self) -> str:
        """Return what was held back of a completion that ends here."""
        return self._stop_filter.add(self._decoder.finish()) + self._stop_filter.finish()


class BranchingText:
    """Texts that share their beginnings, as beams' do: each goes on from its parent's.

    Args:
        start: the stream of the empty text.
    """

    def __init__(self, start: TextStream) -> None:
        self._length = 0
        self._parents: dict[tuple[int, ...], TextStream] = {}
        self._streams: dict[tuple[int, ...], TextStream] = {(): start}

    def is_finished(self, tokens: tuple[int, ...]) -> bool:
        """Return whether the last token ends a text.

        Each text is asked for after the one that is a token shorter.
        """
        if len(tokens) > self._length:
            self._length = len(tokens)
            self._parents, self._streams = self._streams, {}
        stream = self._parents[tokens[:-1]].copy()
        self._streams[tokens] = stream
        _, finish_reason = stream.add(tokens[-1])
        return finish_reason is not None
