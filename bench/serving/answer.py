"""An answer as it was streamed: when each piece came, how it ended, and what went wrong."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from edgellm.bench.backends.openai_endpoint import text_of, token_count

NO_END = "cut: no finish_reason"
NO_TEXT = "no text"
NO_JSON = "not JSON"
LINE_END = b"\r\n"
ERROR_EVENT = "error in the stream"


@dataclass(slots=True)
class Answer:
    """One request and its answer; times are those of one clock, in seconds.

    Attributes:
        asked: when it was due to be sent.
        arrivals: when each piece of text came.
        ended: when the last byte came, or the failure.
        prompt_tokens: as the server counts them; None where it does not.
        completion_tokens: the same of the answer.
        finish_reason: as the server says.
        failure: the kind of what went wrong; None: nothing.
    """

    asked: float
    arrivals: list[float] = field(default_factory=list)
    ended: float = 0.0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    finish_reason: str | None = None
    failure: str | None = None

    @property
    def tokens(self) -> int:
        """Tokens of the answer: as the server counts them, else one a piece."""
        return self.completion_tokens or len(self.arrivals)


class EventReader:
    """Reads server-sent events into an answer, from bytes that are cut anywhere.

    Args:
        answer: where they go.
        is_chunked: whether the bytes are those of HTTP's chunks, their sizes among them.
    """

    def __init__(self, answer: Answer, *, is_chunked: bool = False) -> None:
        self._answer = answer
        self._is_chunked = is_chunked
        self._raw = b""
        self._left = 0  # bytes of the chunk that have not come yet, its line end among them
        self._rest = b""
        self._is_over = False

    def feed(self, data: bytes, moment: float) -> None:
        """Read what came at a moment."""
        if self._is_chunked:
            data = self._without_sizes(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"data:") and not self._is_over:
                self._read(line[5:].strip(), moment)

    def finish(self, moment: float) -> None:
        """Say what is missing in an answer whose stream ended at a moment."""
        answer = self._answer
        answer.ended = moment
        if answer.failure is None and answer.finish_reason is None:
            answer.failure = NO_END
        if answer.failure is None and not answer.arrivals:
            answer.failure = NO_TEXT

    def _without_sizes(self, data: bytes) -> bytes:
        """Return what chunks hold, of bytes in which each begins with a line that has its size.

        Raises:
            ValueError: a size is none.
        """
        data = self._raw + data
        parts, place = [], 0
        while place < len(data):
            if not self._left:
                end = data.find(b"\n", place)
                if end < 0:
                    break
                size = int(data[place:end].partition(b";")[0].strip() or b"0", 16)
                if size < 0:
                    raise ValueError("a size below 0")
                place = end + 1
                if not size:
                    break  # the last one; trailers may follow
                self._left = size + len(LINE_END)
            part = data[place : place + self._left]
            self._left -= len(part)
            place += len(part)
            if self._left < len(LINE_END):
                part = part[: len(part) - (len(LINE_END) - self._left)]
            parts.append(part)
        self._raw = data[place:]
        return b"".join(parts)

    def _read(self, data: bytes, now: float) -> None:
        if data == b"[DONE]":
            self._is_over = True
            return
        try:
            self._take(json.loads(data), now)
        except (ValueError, TypeError, AttributeError, RecursionError):
            self._fail(NO_JSON)

    def _take(self, event: dict[str, Any], now: float) -> None:
        answer = self._answer
        if event.get("error"):
            self._fail(ERROR_EVENT)
        usage = event.get("usage")
        if isinstance(usage, dict):
            answer.prompt_tokens = token_count(usage.get("prompt_tokens")) or answer.prompt_tokens
            answer.completion_tokens = (
                token_count(usage.get("completion_tokens")) or answer.completion_tokens
            )
        for choice in event.get("choices") or ():
            if text_of(choice):
                answer.arrivals.append(now)
            reason = choice.get("finish_reason")
            if reason:
                answer.finish_reason = str(reason)[:40]

    def _fail(self, kind: str) -> None:
        self._is_over = True
        self._answer.failure = kind
