"""The body of a request: JSON, bounded and strict, since strangers write it."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request

from edgellm.files.strict_json import loads_strict
from edgellm.server.http.api_error import ApiError

MAX_BODY = 32 << 20
"""Bytes of a request: some millions of tokens."""

MAX_SECONDS = 60.0
"""Time in which a body has to come."""

MAX_DEPTH = 100
"""Lists and objects inside one another."""

MAX_BRACKETS = 500_000
"""Brackets that may open in a body, in its texts, too: each may be a list, and lists take long."""

SMALL = 1 << 16
"""Bytes of a body that is parsed at once; a larger one would hold up other requests."""


async def read_json(request: Request) -> dict[str, Any]:
    """Return a request's body, a JSON object.

    Raises:
        ApiError: it is too large (413), or not such an object (400).
    """
    body = bytearray()
    try:
        async with asyncio.timeout(MAX_SECONDS):
            async for piece in request.stream():
                body += piece
                if len(body) > MAX_BODY:
                    raise ApiError(413, f"the body has more than {MAX_BODY >> 20} MiB; send less")
    except TimeoutError:
        raise ApiError(408, f"the body did not come within {MAX_SECONDS:g} s") from None
    if len(body) > SMALL:
        value = await asyncio.to_thread(_parsed, bytes(body))
    else:
        value = _parsed(bytes(body))
    if not isinstance(value, dict):
        raise ApiError(400, "the body is not a JSON object")
    return value


def _parsed(body: bytes) -> Any:
    if body.count(b"[") + body.count(b"{") > MAX_BRACKETS:
        raise ApiError(400, f"the body has more than {MAX_BRACKETS} lists and objects; send fewer")
    try:
        value = loads_strict(body.decode("utf-8-sig"))
        _check(value, MAX_DEPTH)
    except RecursionError:
        raise ApiError(400, f"the body is nested deeper than {MAX_DEPTH} levels") from None
    except UnicodeEncodeError:
        raise ApiError(400, "a text has half of a surrogate pair, which is no character") from None
    except ValueError as error:  # not UTF-8, not JSON, a number of too many digits
        raise ApiError(400, f"the body is not JSON: {error}") from None
    return value


def _check(value: Any, depth: int) -> None:
    """Refuse what is nested too deeply (RecursionError), or no text (UnicodeEncodeError)."""
    if depth == 0:
        raise RecursionError
    if isinstance(value, str):
        if not value.isascii():
            value.encode()
    elif isinstance(value, list):
        for item in value:
            if type(item) is not int:  # lists of token ids are long
                _check(item, depth - 1)
    elif isinstance(value, dict):
        for name, item in value.items():
            _check(name, depth)
            _check(item, depth - 1)
