"""Who may ask: keys, hosts and origins, checked before a request reaches a handler."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgellm.server.http.api_error import ApiError, error_object

OPEN_PATHS = ("/", "/health", "/ready")
"""That need no key: the page, which asks for one, and what a supervisor asks."""

CORS_HEADERS = {
    "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
    "Access-Control-Allow-Headers": "*, Authorization",
    "Access-Control-Max-Age": "600",
}


class Guard:
    """Refuses requests of strangers.

    Without keys, only requests to a loopback name are answered: a web page may point a name of its
    own at this machine (DNS rebinding). Requests that a web page sends are answered if the page is
    the server's own, or its origin is listed.

    Args:
        app: answers the others.
        keys: one of them is needed, if there are any.
        origins: of web pages that may ask.
    """

    def __init__(self, app: ASGIApp, *, keys: Iterable[str] = (), origins: Iterable[str] = ()):
        self._app = app
        self._digests = [_digest(key) for key in keys]
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        is_listed = origin in self._origins

        async def send_with_cors(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = {"Access-Control-Allow-Origin": origin or "", "Vary": "Origin"}
                message["headers"] = [*message["headers"], *_raw(added)]
            await send(message)

        send_: Send = send
        if is_listed:
            send_ = send_with_cors
        try:
            self._check_host(headers)
            if origin is not None and not is_listed:
                _check_origin(origin, headers.get("host", ""))
            if scope["method"] == "OPTIONS" and is_listed:
                await Response(status_code=204, headers=CORS_HEADERS)(scope, receive, send_)
                return
            if scope["path"] not in OPEN_PATHS:
                self._check_key(headers)
        except ApiError as error:
            value = error_object(error, scope["path"])
            response = JSONResponse(value, error.status, error.headers)
            await response(scope, receive, send_)
            return
        await self._app(scope, receive, send_)

    def _check_host(self, headers: Headers) -> None:
        if not self._digests and not is_loopback(host_name(headers.get("host", ""))):
            raise ApiError(
                403,
                "this host name is not served: ask localhost, or start the server with a key",
                code="host_not_allowed",
            )

    def _check_key(self, headers: Headers) -> None:
        if not self._digests:
            return
        given = headers.get("x-api-key", "")
        kind, _, token = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            given = token.strip()
        digest = _digest(given.encode("latin-1"))  # as it came
        # all are compared, whichever it is, in the same time
        if not sum(hmac.compare_digest(digest, known) for known in self._digests):
            raise ApiError(
                401,
                "the API key is missing or wrong: send it as Authorization: Bearer KEY",
                code="invalid_api_key",
            )


def host_name(host: str) -> str:
    """Return the name in a Host header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def is_loopback(name: str) -> bool:
    """Return whether a name or address is this machine's own."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def _check_origin(origin: str, host: str) -> None:
    """Refuse the request of a web page that is not the server's own."""
    try:
        is_own = urlsplit(origin).netloc == host != ""
    except ValueError:
        is_own = False
    if not is_own:
        raise ApiError(
            403,
            "web pages of this origin may not ask: start the server with --cors-origin",
            code="origin_not_allowed",
        )


def _digest(key: str | bytes) -> bytes:
    if isinstance(key, str):
        key = key.encode("utf-8", "surrogateescape")
    return hashlib.sha256(key).digest()


def _raw(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]
