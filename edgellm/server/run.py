"""Serves an application until a signal ends it, and lets answers under way come to an end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import uvicorn
from starlette.applications import Starlette

from edgellm.errors import ConfigError
from edgellm.runtime.loader import LoadProgress
from edgellm.server.answering.models import Models
from edgellm.server.answering.settings import ServerSettings
from edgellm.server.app import make_app

DRAIN_SECONDS = 4
"""Time that answers under way get when the server is told to stop; then they end with an error."""

END_SECONDS = 1
"""Time after that in which connections have to be closed."""

BACKLOG = 1024


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        ConfigError: the address cannot be taken.
    """
    family = socket.AF_INET
    if ":" in host:
        family = socket.AF_INET6
    # asyncio lets only sockets send each piece at once that say TCP; create_server's do not
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # with the number of the network, where an address of IPv6 names one
        (found, *_) = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
        listening.bind(found[4])
        listening.listen(BACKLOG)
        return listening
    except (OSError, OverflowError) as error:
        listening.close()
        raise ConfigError(
            f"{host}:{port} cannot be listened on: {getattr(error, 'strerror', None) or error}",
            hint="choose another --port, or stop the program that has it",
        ) from error


def url_of(listening: socket.socket) -> str:
    """Return the URL of a server that listens on a socket."""
    host, port = listening.getsockname()[:2]
    if ":" in host:
        host = f"[{host}]"
    return f"http://{host}:{port}"


class Server(uvicorn.Server):
    """A web server whose answers end with an error where they outlast its patience.

    Args:
        app: the application.
        models: that compute its answers.
        on_ready: called when it answers.
    """

    def __init__(
        self, app: Starlette, models: Models, on_ready: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,
                lifespan="on",
                http="h11",
                ws="none",
                timeout_graceful_shutdown=DRAIN_SECONDS + END_SECONDS,
                server_header=False,
            )
        )
        self._models = models
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer."""
        await super().startup(sockets)
        self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more requests, and wait for those under way."""
        ending = asyncio.create_task(self._end_answers())
        try:
            await super().shutdown(sockets)
            if self.force_exit:  # after a second Ctrl-C uvicorn leaves its lifespan waiting
                await self.lifespan.shutdown()
        finally:
            ending.cancel()

    async def _end_answers(self) -> None:
        """End answers that take too long: their readers are told so."""
        await asyncio.sleep(DRAIN_SECONDS)
        await self._models.aclose()


def serve_models(
    models: Models,
    settings: ServerSettings,
    listening: socket.socket,
    *,
    progress: LoadProgress,
    on_ready: Callable[[], None],
) -> None:
    """Serve models on a socket until SIGINT or SIGTERM. One model alone is loaded at once.

    Args:
        models: the models.
        settings: how they are served.
        listening: where.
        progress: called with bytes read and bytes in all, while the model is loaded.
        on_ready: called when the server answers.

    Raises:
        EdgeLLMError: the model cannot be loaded, as ``edgellm.load`` says.
    """

    async def run() -> None:
        names = [entry.name for entry in models]
        try:
            if len(names) == 1:
                await models.preload(names[0], progress)
            await Server(make_app(models, settings), models, on_ready).serve([listening])
        finally:
            await models.aclose()

    asyncio.run(run())
