"""One user's connection: sends a request, and reads its stream as cheaply as Python can."""

from __future__ import annotations

import http.client
import re
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from urllib.parse import urlsplit

from edgellm.bench.serving.answer import Answer, EventReader

READ_BYTES = 1 << 16
TAIL_SECONDS = 0.25
"""Time for a stream to end that has said so; else its connection is not used again."""

MAX_BYTES = 1 << 22
TOKEN_BYTES = 1 << 16
"""Bytes of an answer, at most: 4 MiB, and 64 KiB for each token."""

DONE = b"data: [DONE]"
LAST_CHUNK = b"\r\n0\r\n\r\n"
TAIL_BYTES = 64
"""Bytes at the end of what has come, in which its end is looked for."""

EVENTS = "text/event-stream"
TIMED_OUT = "timed out"
NO_CONNECTION = "no connection"
CUT = "cut: the connection ended"
TOO_LONG = "too long"
NO_CHUNKS = "not HTTP: broken chunks"

_UNPRINTED = re.compile(r"[^\w./+-]+", re.ASCII)


class Client:
    """A connection to a route of a server, kept between requests.

    Args:
        url: the route's.
        headers: of every request.
        timeout: seconds that a request may take, and the longest silence in it.
        max_tokens: of an answer; a longer one is somebody else's.
    """

    def __init__(
        self, url: str, headers: Mapping[str, str], *, timeout: float, max_tokens: int
    ) -> None:
        parts = urlsplit(url)
        self._path = parts.path
        self._headers = dict(headers) | {"Accept": EVENTS, "Content-Type": "application/json"}
        self._timeout, self._most = timeout, MAX_BYTES + max_tokens * TOKEN_BYTES
        host, port = parts.hostname or "", parts.port
        self._connection: http.client.HTTPConnection
        if parts.scheme == "https":
            context = ssl.create_default_context()
            self._connection = http.client.HTTPSConnection(
                host, port, timeout=timeout, context=context
            )
        else:
            self._connection = http.client.HTTPConnection(host, port, timeout=timeout)

    def ask(
        self, body: bytes, clock: Callable[[], float] = time.perf_counter, due: float | None = None
    ) -> Answer:
        """Send a request, and return its answer, whatever becomes of it; never raises.

        Args:
            body: the JSON document.
            clock: tells the times.
            due: when it should have been sent, from which its times count; None: now.
        """
        answer = Answer(asked=clock() if due is None else due)
        try:
            self._ask(body, answer, clock)
        except TimeoutError:
            answer.failure = answer.failure or TIMED_OUT
        except (OSError, http.client.HTTPException):
            answer.failure = answer.failure or CUT
        except ValueError:
            answer.failure = NO_CHUNKS
        if answer.failure is not None:
            answer.ended = clock()
            self.close()
        return answer

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        self._connection.close()

    def _ask(self, body: bytes, answer: Answer, clock: Callable[[], float]) -> None:
        with self._send(body, answer) as response:
            if response.status != http.client.OK:
                answer.failure = f"HTTP {response.status}"
                return
            kind = response.headers.get_content_type()
            if kind != EVENTS:
                answer.failure = f"content type {_UNPRINTED.sub('', kind)[:40]}"
                return
            pieces: list[tuple[float, bytes]] = []
            reader = EventReader(answer, is_chunked=bool(response.chunked))
            try:
                self._receive(response, pieces, clock)
            finally:
                for moment, data in pieces:
                    reader.feed(data, moment)
            reader.finish(pieces[-1][0])

    def _receive(
        self,
        response: http.client.HTTPResponse,
        pieces: list[tuple[float, bytes]],
        clock: Callable[[], float],
    ) -> None:
        """Put each piece of a stream into a list as it comes, with its moment, until the end.

        What the pieces say is read afterwards: on a machine that the server shares, all that the
        client does between two tokens is time that the server lacks.

        Raises:
            TimeoutError: it lasts for too long.
            OSError, http.client.HTTPException: it is cut, or too long.
        """
        ends, left = clock() + self._timeout, self._most
        read, tail = response.fp.read1, b""
        while True:
            data = read(READ_BYTES)
            now = clock()
            pieces.append((now, data))
            if not data:
                if response.chunked:
                    raise http.client.IncompleteRead(b"")
                return
            tail = (tail + data)[-TAIL_BYTES:]
            if tail.endswith(LAST_CHUNK) and response.chunked:
                return
            if DONE in tail:
                self._receive_tail(read, tail)
                return
            left -= len(data)
            if left < 0:
                raise http.client.HTTPException(TOO_LONG)
            if now > ends:
                raise TimeoutError

    def _send(self, body: bytes, answer: Answer) -> http.client.HTTPResponse:
        """Send the request, a second time where the server had closed the kept connection."""
        was_open = self._connection.sock is not None
        try:
            return self._exchange(body, answer)
        except (ConnectionError, http.client.RemoteDisconnected):
            self.close()
            if not was_open:
                raise
        answer.failure = None
        return self._exchange(body, answer)

    def _exchange(self, body: bytes, answer: Answer) -> http.client.HTTPResponse:
        if self._connection.sock is None:
            answer.failure = NO_CONNECTION  # until there is one
            self._connection.connect()
            answer.failure = None
        self._connection.request("POST", self._path, body, self._headers)
        return self._connection.getresponse()

    def _receive_tail(self, read: Callable[[int], bytes], tail: bytes) -> None:
        """Read to the end of a stream that has said so, that its connection can be used again."""
        socket = self._connection.sock
        if socket is None:  # the server closes it after this
            return
        socket.settimeout(TAIL_SECONDS)
        with suppress(OSError):
            while data := read(READ_BYTES):
                tail = (tail + data)[-TAIL_BYTES:]
                if tail.endswith(LAST_CHUNK):
                    socket.settimeout(self._timeout)
                    return
        self.close()
