"""Counts requests by their paths, and clients that left."""

from __future__ import annotations

from collections.abc import Collection

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgellm.server.answering.metrics import Metrics

LEFT = 499
"""The status of a request whose client has left, as nginx notes it."""


class CountsRequests:
    """Counts what the application inside it answers.

    Args:
        app: the application.
        metrics: where it is counted.
        paths: counted by themselves; all others together.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: Collection[str]) -> None:
        self._app = app
        self._metrics = metrics
        self._paths = frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500
        is_whole = False

        async def watch(message: Message) -> None:
            nonlocal status, is_whole
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                is_whole = not message.get("more_body", False)
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            if status == LEFT or (status == 200 and not is_whole):
                status = LEFT
                self._metrics.disconnects += 1
            path = scope["path"]
            if path not in self._paths:
                path = "other"
            self._metrics.requests[path, status] += 1
