"""The text of a completion, token by token, until something ends it.

What may still become a stop text is held back, also across the borders of tokens.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from copy import copy
from itertools import compress

from edgellm.generation.output import FinishReason
from edgellm.tokenizer import StreamDecoder


class StopFilter:
    """Lets text through up to the first stop text: the one that is complete first.

    It does so wherever tokens begin and end. Special tokens count as they are written, and are
    never shown.

    Args:
        stops: the stop texts; none of them is empty.

    Attributes:
        stopped: whether a stop text has come.
        stop_text: that one; None before.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._longest = max(map(len, stops), default=0)
        self._held = ""
        self._is_shown: list[bool] = []  # of each character held
        self.stopped: bool = False
        self.stop_text: str | None = None

    def copy(self) -> StopFilter:
        """Return a filter that goes on from here with a text of its own."""
        other = copy(self)
        other._is_shown = self._is_shown.copy()
        return other

    def add(self, text: str, *, shown: bool = True) -> str:
        """Return what is safe to show now; sets ``stopped`` when a stop text has come.

        Args:
            text: what comes next.
            shown: whether it is text, and not how a special token is written.
        """
        if self.stopped:
            return ""
        self._held += text
        self._is_shown += [shown] * len(text)
        spans = []
        for stop in self._stops:
            begin = self._held.find(stop)
            if begin >= 0:
                spans.append((begin + len(stop), begin, stop))
        if spans:
            # of those that are complete first, the longest
            _, begin, self.stop_text = min(spans)
            self.stopped = True
            before = self._release(begin)
            self._held = ""
            return before
        return self._release(len(self._held) - self._possible_start(self._held))

    def finish(self) -> str:
        """Return what was held back and became no stop text."""
        return self._release(len(self._held))

    def _release(self, count: int) -> str:
        """Let go of the first characters that are held, and return those that are shown."""
        released = "".join(compress(self._held[:count], self._is_shown))
        self._held = self._held[count:]
        self._is_shown = self._is_shown[count:]
        return released

    def _possible_start(self, text: str) -> int:
        """Return the length of the longest end of a text that a stop text begins with."""
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            end = text[len(text) - length :]
            if any(stop.startswith(end) for stop in self._stops):
                return length
        return 0


class TextStream:
    """The tokens of a completion so far, and their text.

    Args:
        decoder: turns tokens into text, of a text that begins here.
        stop: texts that end the completion and are left out of it; in them special tokens are
            written out.
        end_tokens: tokens that end it.
        limit: maximum number of tokens.

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

    @property
    def stop_text(self) -> str | None:
        """The stop text that has ended it; None where none has."""
        return self._stop_filter.stop_text

    def copy(self) -> TextStream:
        """Return a stream that goes on from here with tokens of its own."""
        other = copy(self)
        other.tokens = self.tokens.copy()
        other._decoder = self._decoder.copy()
        other._stop_filter = self._stop_filter.copy()
        return other

    def add(self, token: int, *, is_last: bool = False) -> tuple[str, FinishReason | None]:
        """Return the text that a token completes, and the finish reason; None where it goes on.

        Args:
            token: the next one.
            is_last: whether a grammar lets nothing follow it.
        """
        self.tokens.append(token)
        is_end = token in self._end_tokens
        text = ""
        if not is_end:
            text = self._stop_filter.add(self._decoder.add(token))
        if self._has_stops:
            text += self._stop_filter.add(self._decoder.control_text(token), shown=False)
        is_over = is_end or is_last or self._stop_filter.stopped
        if not is_over and len(self.tokens) < self._limit:
            return text, None
        text += self.flush()
        # flushing may complete a stop text, so the reason is known only now
        reason: FinishReason = "length"
        if is_over or self._stop_filter.stopped:
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
