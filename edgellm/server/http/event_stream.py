"""Answers of HTTP that end when their client leaves: as events, or as one object."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from json.encoder import encode_basestring_ascii
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from edgellm.server.http.api_error import ApiError, api_error

KEEP_ALIVE_SECONDS = 30.0
"""After so long without an event comes a comment, so that nobody on the way gives up."""

COMMENT = b": keep-alive\n\n"

DONE = b"data: [DONE]\n\n"

_encode = json.JSONEncoder(separators=(",", ":")).encode
"""Made once: ``json.dumps`` would make an encoder for each event, which takes as long again."""

Result = TypeVar("Result")


class ClientLeft(Exception):  # noqa: N818 - it is no error
    """The client has closed its connection: nobody waits for the answer."""


def event(value: Mapping[str, Any], name: str = "") -> bytes:
    """Return an event of server-sent events; ASCII, which no reader breaks at other line ends."""
    data = _encode(value)
    if name:
        return f"event: {name}\ndata: {data}\n\n".encode()
    return f"data: {data}\n\n".encode()


class TextEvents:
    """Events that are alike but for one text: encoding the rest of each costs most of the time.

    Args:
        like: returns such an event with a text in it.
    """

    def __init__(self, like: Callable[[str], bytes]) -> None:
        mark = f"\x00{__name__}"  # no model's name has a zero byte
        self._before, self._after = like(mark).split(encode_basestring_ascii(mark).encode())

    def __call__(self, text: str) -> bytes:
        """Return the event with a text."""
        return b"%b%b%b" % (self._before, encode_basestring_ascii(text).encode(), self._after)


class EventStream(Response):
    """Sends events as they come; where the client leaves, their source is closed at once.

    Args:
        events: what is sent; it is closed where the client leaves.
        describe: makes an event of an error in mid-answer.
        keep_alive: seconds without an event after which something is sent all the same.
        while_silent: that; by default a comment, which clients skip.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncGenerator[bytes],
        describe: Callable[[ApiError], bytes],
        *,
        keep_alive: float = KEEP_ALIVE_SECONDS,
        while_silent: bytes = COMMENT,
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events = events
        self._describe = describe
        self._keep_alive = keep_alive
        self._while_silent = while_silent
        self._sent_at = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all events, or as many as the client stays for."""
        sending = asyncio.create_task(self._send_all(send))
        leaving = asyncio.create_task(_left(receive))
        keeping = asyncio.create_task(self._keep(send))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            for task in (sending, leaving, keeping):
                task.cancel()
            await asyncio.gather(sending, leaving, keeping, return_exceptions=True)

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            async with aclosing(self._events) as events:
                async for some in events:
                    await self._send(send, some)
        except Exception as error:
            await self._send(send, self._describe(api_error(error)))
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, send: Send, body: bytes) -> None:
        self._sent_at = asyncio.get_running_loop().time()
        await send({"type": "http.response.body", "body": body, "more_body": True})

    async def _keep(self, send: Send) -> None:
        """Send a comment whenever nothing else was sent for long."""
        clock = asyncio.get_running_loop().time
        self._sent_at = clock()
        while True:
            await asyncio.sleep(self._sent_at + self._keep_alive - clock())
            if clock() - self._sent_at >= self._keep_alive:
                await self._send(send, self._while_silent)


async def while_connected(request: Request, work: Awaitable[Result]) -> Result:
    """Return what a computation returns; it is cancelled where the client leaves.

    Raises:
        ClientLeft: the client has left.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.create_task(_left(request.receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientLeft
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(receive: Receive) -> None:
    """Return when the client has left."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
