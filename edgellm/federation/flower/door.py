"""The part of Flower's SuperLink that answers clients, behind a guard."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterable
from typing import Any

from edgellm.federation.flower.places import App, OneProcess, Places, Receive, Scope, Send

MAX_BODY = 16 << 20
"""Bytes of a request; Flower cuts arrays into parts of 5 MB."""

PATHS = "/v1/fleet/"
"""Where a client asks for messages, and brings answers."""


class Guard:
    """Refuses a request before its body is read: of a stranger, too large, or to another path.

    Args:
        app: who answers the others.
        keys: public keys of clients, in PEM.
    """

    def __init__(self, app: App, keys: Iterable[str]) -> None:
        self._app = app
        self._keys = frozenset(key.encode() for key in keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return
        refused = self._refused(scope)
        if refused is None:
            await self._app(scope, receive, send)
            return
        headers = [(b"content-length", b"0"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": refused, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    def _refused(self, scope: Scope) -> int | None:
        """Return the status of a refusal; None: let it through."""
        from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER

        if not scope["path"].startswith(PATHS):
            return 404
        headers = {name.lower(): value for name, value in scope["headers"]}
        try:
            key = b64decode(headers[FLEET_HTTP_PUBLIC_KEY_HEADER.lower().encode()], validate=True)
        except (KeyError, ValueError):
            return 401
        if key not in self._keys:
            return 401
        length = headers.get(b"content-length", b"")
        if not length.isdigit() or len(length) > len(str(MAX_BODY)):
            return 411
        return 413 if int(length) > MAX_BODY else None


def guarded_app(factory: Any, keys: Iterable[str], places: Places) -> App:
    """Return the application that answers clients.

    Args:
        factory: has the state of Flower's SuperLink.
        keys: public keys of clients, in PEM.
        places: which process has each client's.
    """
    from fastapi import FastAPI
    from flwr.supercore.error import http_error_translator
    from flwr.supercore.protobuf.translation import ProtobufTranslationMiddleware
    from flwr.superlink.routers.fleet.node_auth import NodeAuthMiddleware
    from flwr.superlink.routers.fleet.router import router
    from starlette.middleware import Middleware
    from starlette.middleware.base import BaseHTTPMiddleware

    app = FastAPI(
        openapi_url=None,
        middleware=[  # in the order in which a request goes through them
            Middleware(BaseHTTPMiddleware, dispatch=http_error_translator),
            Middleware(ProtobufTranslationMiddleware),
            Middleware(NodeAuthMiddleware),
            Middleware(OneProcess, places=places, state=factory.state()),
        ],
    )
    app.state.linkstate_factory = factory
    app.state.enable_supernode_auth = True  # nobody registers by himself
    app.include_router(router)
    return Guard(app, keys)
