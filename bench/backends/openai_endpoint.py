"""A client of an OpenAI-compatible server: streamed completions, and whole replies."""

from __future__ import annotations

import json
import time
import urllib.error
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any

from edgellm.bench.backends.one_server import (
    MAX_BYTES,
    Bounds,
    open_reply,
    read_lines,
    read_pieces,
    server_parts,
    without_key,
)
from edgellm.errors import BackendError, FormatError
from edgellm.files.strict_json import parse_json

MAX_WORDS = 200
"""Characters of a server's own text: a model's name, an error."""

MAX_COUNT = 10**9
"""Tokens that a server may say to have counted."""

COMPLETIONS, CHAT = "completions", "chat/completions"
NO_ROUTE = frozenset({404, 405, 501})
"""Statuses by which servers say that they do not know a route."""

TEXT_KEYS = ("content", "reasoning_content", "reasoning")
"""Where a chat's delta may have its text."""


WITHOUT_TOKENS = Bounds.of_tokens(0)


@dataclass(slots=True)
class StreamedCompletion:
    """A completion that was streamed.

    Attributes:
        seconds: from the request to each piece of text.
        prompt_tokens: as the server counts them; None where it does not.
        completion_tokens: the same of the completion.
    """

    seconds: list[float] = field(default_factory=list)
    prompt_tokens: int | None = None
    completion_tokens: int | None = None

    @property
    def tokens(self) -> int:
        """Tokens of the completion: as the server counts them, else one a piece."""
        return self.completion_tokens or len(self.seconds)


class Endpoint:
    """A model on a server.

    Args:
        url: with or without the route; ``/v1`` is put behind a bare host.
        model: the server's name of it; empty asks the server for the first that it has.
        key: sent as a bearer token, where there is one.

    Raises:
        ConfigError: ``url`` is not the URL of a server.
        BackendError: the server was asked for its models, and names none.
    """

    def __init__(self, url: str, model: str = "", *, key: str | None = None) -> None:
        parts = server_parts(url)
        base = url.rstrip("/")
        if not parts.path.strip("/"):
            base += "/v1"
        # the longer route first: it ends like the other one
        given = [route for route in (CHAT, COMPLETIONS) if base.endswith(f"/{route}")][:1]
        self.host: str = parts.netloc
        self.route: str = given[0] if given else COMPLETIONS
        self._may_chat = not given
        self.base = base.removesuffix(f"/{self.route}")
        self._key = key
        self.model: str = model or self._first_model()

    def complete(
        self, prompt: str, max_tokens: int, clock: Callable[[], float] = time.perf_counter
    ) -> StreamedCompletion:
        """Ask for a completion of ``max_tokens`` tokens, and note when its pieces come.

        A server that completes no texts is sent them as messages, from then on at once.

        Raises:
            BackendError: the server is not there, refuses, or streams no text.
        """
        route, begun = self.route, clock()
        body = self._body(max_tokens) | {"stream": True, "stream_options": {"include_usage": True}}
        if route == COMPLETIONS:
            body["prompt"] = prompt
        else:
            body["messages"] = [{"role": "user", "content": prompt}]
        with self._errors(f"{self.host} streams no JSON", "is it OpenAI-compatible?"):
            try:
                stream = self._open(route, body)
            except urllib.error.HTTPError as error:
                if error.code not in NO_ROUTE or route == CHAT or not self._may_chat:
                    raise
                error.close()
                self.route = CHAT
                return self.complete(prompt, max_tokens, clock)
            with stream:
                lines = read_lines(stream, Bounds.of_tokens(max_tokens))
                return self._listen(lines, begun, clock)

    def reply(self, messages: Sequence[Mapping[str, str]], max_tokens: int = 64) -> str:
        """Return the text that a conversation is answered with.

        Raises:
            BackendError: the server is not there, refuses, or answers with no message.
        """
        body = self._body(max_tokens) | {"messages": list(messages)}
        with self._errors(f"{self.host} answered without a message", "is it for conversations?"):
            document = self._fetch(CHAT, body, Bounds.of_tokens(max_tokens))
            text = document["choices"][0]["message"]["content"]
            return without_key(str(text), self._key)

    def _first_model(self) -> str:
        with self._errors(
            f"{self.host} does not say what models it has", "name one: edgellm bench NAME"
        ):
            name = str(self._fetch("models")["data"][0]["id"])
            if len(name) > MAX_WORDS:
                raise ValueError("no name of a model")
            return without_key(name, self._key)

    def _body(self, max_tokens: int) -> dict[str, Any]:
        return {"model": self.model, "max_tokens": max_tokens, "temperature": 0}

    def _listen(
        self, lines: Iterator[bytes], begun: float, clock: Callable[[], float]
    ) -> StreamedCompletion:
        completion = StreamedCompletion()
        for event in _events(lines):
            if event.get("error"):
                raise BackendError(
                    f"{self.host} says: {self._error_text(event['error'])}",
                    hint="what the server logs may say more",
                )
            usage = event.get("usage")
            if isinstance(usage, dict):
                completion.prompt_tokens = (
                    token_count(usage.get("prompt_tokens")) or completion.prompt_tokens
                )
                completion.completion_tokens = (
                    token_count(usage.get("completion_tokens")) or completion.completion_tokens
                )
            if any(text_of(choice) for choice in event.get("choices") or ()):
                completion.seconds.append(clock() - begun)
        if not completion.seconds:
            raise BackendError(
                f"{self.host} streamed no token",
                hint="see whether it can stream, and knows the model",
            )
        return completion

    def _fetch(
        self,
        route: str,
        body: Mapping[str, Any] | None = None,
        bounds: Bounds = WITHOUT_TOKENS,
    ) -> Any:
        with self._open(route, body) as stream:
            data = b"".join(read_pieces(stream, bounds))
        return parse_json(data, "the reply", max_bytes=bounds.nbytes)

    def _open(self, route: str, body: Mapping[str, Any] | None) -> Any:
        headers = {
            "Content-Type": "application/json",
            "Accept": "text/event-stream, application/json",
        }
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        data = json.dumps(body).encode() if body is not None else None
        return open_reply(f"{self.base}/{route}", data, headers)

    @contextmanager
    def _errors(self, unreadable: str, hint: str) -> Iterator[None]:
        """Raise errors of the connection, and of a document that is not as expected, as ours."""
        try:
            yield
        except urllib.error.HTTPError as error:
            raise self._refused(error) from error
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise BackendError(
                f"{self.host} cannot be reached: {self._words(reason)}",
                hint="is the server running, and the URL right?",
            ) from error
        except (ValueError, LookupError, TypeError, FormatError) as error:
            raise BackendError(unreadable, hint=hint) from error

    def _error_text(self, error: Any) -> str:
        if isinstance(error, dict):
            error = error.get("message", error)
        return self._words(error)

    def _words(self, text: object) -> str:
        """Return a server's text as errors quote it: short, on one line, without our key."""
        return " ".join(without_key(str(text), self._key).split())[:MAX_WORDS]

    def _refused(self, error: urllib.error.HTTPError) -> BackendError:
        data = b""
        with error, suppress(OSError, HTTPException, BackendError):
            for piece in read_pieces(error, WITHOUT_TOKENS):
                data += piece
        try:
            text = self._error_text(parse_json(data, "the reply")["error"])
        except (FormatError, LookupError):
            text = self._words(data.decode(errors="replace") or error.reason)
        hint = None
        if error.code in {401, 403}:
            hint = "name the variable that holds its key: --key-variable NAME"
        return BackendError(f"{self.host} answers {error.code}: {text}", hint=hint)


def _events(lines: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the objects of a stream of server-sent events, up to ``[DONE]``."""
    for line in lines:
        data = line.strip()
        if data == b"data: [DONE]":
            return
        if data.startswith(b"data:"):
            yield parse_json(data.removeprefix(b"data:"), "an event", max_bytes=MAX_BYTES)


def text_of(choice: Any) -> str:
    """Return the text of a choice, in whichever of the known places it stands."""
    if not isinstance(choice, dict):
        return ""
    delta = choice.get("delta")
    if not isinstance(delta, dict):
        delta = {}
    texts = [choice.get("text"), *(delta.get(key) for key in TEXT_KEYS)]
    return str(next(filter(None, texts), ""))


def token_count(value: Any) -> int | None:
    """Return a number of tokens; None for what is none."""
    if type(value) is int and 0 <= value <= MAX_COUNT:
        return value
    return None
