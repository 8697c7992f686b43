"""An answer as it was streamed: when each piece came, how it ended, and what went wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from edgellm.bench.backends.openai_endpoint import text_of, token_count

NO_END = "cut: no finish_reason"
NO_TEXT = "no text"
NO_JSON = "not JSON"
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
    """Reads server-sent events into an answer, from bytes that are cut anywhere."""

    def __init__(self, answer: Answer, clock: Callable[[], float]) -> None:
        self._answer, self._clock = answer, clock
        self._rest = b""
        self.done = False
        """Whether the stream has said that it ends, or what went wrong."""

    def feed(self, data: bytes) -> None:
        """Read what has just come."""
        now = self._clock()
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"data:") and not self.done:
                self._read(line[5:].strip(), now)

    def finish(self) -> None:
        """Say what is missing in an answer whose stream has ended."""
        answer = self._answer
        answer.ended = self._clock()
        if answer.failure is None and answer.finish_reason is None:
            answer.failure = NO_END
        if answer.failure is None and not answer.arrivals:
            answer.failure = NO_TEXT

    def _read(self, data: bytes, now: float) -> None:
        if data == b"[DONE]":
            self.done = True
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
        self.done = True
        self._answer.failure = kind
