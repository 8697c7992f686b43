"""A client of an OpenAI-compatible server: streamed completions, and whole replies."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any
from urllib.parse import SplitResult, urlsplit

from edgellm.errors import BackendError, ConfigError

MAX_SILENCE = 600.0
"""Seconds that a server may say nothing."""

MAX_BYTES = 1 << 22
"""Bytes of a line of a stream, or of a whole reply."""

COMPLETIONS, CHAT = "completions", "chat/completions"
NO_ROUTE = frozenset({404, 405, 501})
"""Statuses by which servers say that they do not know a route."""

TEXT_KEYS = ("content", "reasoning_content", "reasoning")
"""Where a chat's delta may have its text."""


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


def server_parts(url: str) -> SplitResult:
    """Split a server's URL into its parts.

    Raises:
        ConfigError: it is the URL of no server.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises where it is no number
    except ValueError:
        parts = SplitResult("", "", "", "", "")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigError(
            f"{url!r} is no URL of a server", hint="write it as http://localhost:8080/v1"
        )
    return parts


class Endpoint:
    """A model on a server.

    Args:
        url: with or without the route; ``/v1`` is put behind a bare host.
        model: the server's name of it; empty asks the server for the first that it has.
        key: sent as a bearer token, where there is one.

    Raises:
        ConfigError: ``url`` is no URL of a server.
        BackendError: the server was asked for its models, and names none.
    """

    def __init__(self, url: str, model: str = "", *, key: str | None = None) -> None:
        parts = server_parts(url)
        base = url.rstrip("/")
        if not parts.path.strip("/"):
            base += "/v1"
        # the longer route first: it ends like the other one
        given = [route for route in (CHAT, COMPLETIONS) if base.endswith(f"/{route}")][:1]
        self.host = parts.netloc.rpartition("@")[2]
        self.route = given[0] if given else COMPLETIONS
        self._may_chat = not given
        self._base = base.removesuffix(f"/{self.route}")
        self._key = key
        self.model = model or self._first_model()

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
                return self._listen(stream, begun, clock)

    def reply(self, messages: Sequence[Mapping[str, str]], max_tokens: int = 64) -> str:
        """Return the text that a conversation is answered with.

        Raises:
            BackendError: the server is not there, refuses, or answers with no message.
        """
        body = self._body(max_tokens) | {"messages": list(messages)}
        with self._errors(f"{self.host} has answered with no message", "is it for conversations?"):
            return str(self._fetch(CHAT, body)["choices"][0]["message"]["content"])

    def _first_model(self) -> str:
        with self._errors(
            f"{self.host} does not say what models it has", "name one: edgellm bench NAME"
        ):
            return str(self._fetch("models")["data"][0]["id"])

    def _body(self, max_tokens: int) -> dict[str, Any]:
        return {"model": self.model, "max_tokens": max_tokens, "temperature": 0}

    def _listen(
        self, stream: IO[bytes], begun: float, clock: Callable[[], float]
    ) -> StreamedCompletion:
        completion = StreamedCompletion()
        for event in _events(stream):
            if event.get("error"):
                raise BackendError(f"{self.host} says: {_error_text(event['error'])}")
            usage = event.get("usage")
            if isinstance(usage, dict):
                completion.prompt_tokens = usage.get("prompt_tokens") or completion.prompt_tokens
                completion.completion_tokens = (
                    usage.get("completion_tokens") or completion.completion_tokens
                )
            if any(_text(choice) for choice in event.get("choices") or ()):
                completion.seconds.append(clock() - begun)
        if not completion.seconds:
            raise BackendError(
                f"{self.host} has streamed no token",
                hint="see whether it can stream, and knows the model",
            )
        return completion

    def _fetch(self, route: str, body: Mapping[str, Any] | None = None) -> Any:
        with self._open(route, body) as stream:
            return json.loads(stream.read(MAX_BYTES))

    def _open(self, route: str, body: Mapping[str, Any] | None) -> Any:
        headers = {
            "Content-Type": "application/json",
            "Accept": "text/event-stream, application/json",
        }
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(f"{self._base}/{route}", data=data, headers=headers)
        return urllib.request.urlopen(request, timeout=MAX_SILENCE)

    @contextmanager
    def _errors(self, unreadable: str, hint: str) -> Iterator[None]:
        """Raise errors of the connection, and of a document that is not as expected, as ours."""
        try:
            yield
        except urllib.error.HTTPError as error:
            raise self._refused(error) from error
        except OSError as error:
            reason = getattr(error, "reason", None) or error
            raise BackendError(
                f"{self.host} cannot be reached: {reason}",
                hint="is the server running, and the URL right?",
            ) from error
        except (ValueError, LookupError, TypeError) as error:
            raise BackendError(unreadable, hint=hint) from error

    def _refused(self, error: urllib.error.HTTPError) -> BackendError:
        with error:
            text = error.read(4096).decode(errors="replace")
        try:
            text = _error_text(json.loads(text)["error"])
        except (ValueError, LookupError, TypeError):
            text = " ".join(text.split())[:200]
        hint = None
        if error.code in {401, 403}:
            hint = "name the variable that holds its key: --key-variable NAME"
        return BackendError(f"{self.host} answers {error.code}: {text or error.reason}", hint=hint)


def _events(stream: IO[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the objects of a stream of server-sent events, up to ``[DONE]``."""
    while line := stream.readline(MAX_BYTES):
        data = line.strip()
        if data == b"data: [DONE]":
            return
        if data.startswith(b"data:"):
            event = json.loads(data.removeprefix(b"data:"))
            if isinstance(event, dict):
                yield event


def _text(choice: Any) -> str:
    """Return the text of a choice, in whichever of the known places it stands."""
    if not isinstance(choice, dict):
        return ""
    delta = choice.get("delta") or {}
    texts = [choice.get("text"), *(delta.get(key) for key in TEXT_KEYS)]
    return str(next(filter(None, texts), ""))


def _error_text(error: Any) -> str:
    if isinstance(error, dict):
        error = error.get("message", error)
    return str(error)[:200]
