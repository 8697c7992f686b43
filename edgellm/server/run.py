"""Serves an application until a signal ends it."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn
from starlette.applications import Starlette

from edgellm.errors import ConfigError

DRAIN_SECONDS = 5
"""Time that answers under way get when the server is told to stop."""


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        ConfigError: the address cannot be taken.
    """
    try:
        return socket.create_server((host, port), family=_family(host), backlog=1024)
    except OSError as error:
        raise ConfigError(
            f"{host}:{port} cannot be listened on: {error.strerror or error}",
            hint="choose another --port, or stop the program that has it",
        ) from error


def serve_app(app: Starlette, listening: socket.socket, on_ready: Callable[[str], None]) -> None:
    """Serve an application on a socket until SIGINT or SIGTERM.

    Args:
        app: the application.
        listening: where.
        on_ready: called with the server's URL when it answers.
    """
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan="on",
        http="h11",
        ws="none",
        timeout_graceful_shutdown=DRAIN_SECONDS,
        server_header=False,
    )
    host, port = listening.getsockname()[:2]
    if ":" in host:
        host = f"[{host}]"
    server = uvicorn.Server(config)
    on_ready(f"http://{host}:{port}")
    server.run(sockets=[listening])


def _family(host: str) -> socket.AddressFamily:
    if ":" in host:
        return socket.AF_INET6
    return socket.AF_INET
