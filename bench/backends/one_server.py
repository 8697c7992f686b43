"""HTTP with one server: no redirect leads to another, and replies are bounded."""

from __future__ import annotations

import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

from edgellm.errors import BackendError, ConfigError
from edgellm.files.strict_json import quoted

MAX_SILENCE = 600.0
"""Seconds that a server may say nothing."""

MAX_BYTES = 1 << 22
"""Bytes of a reply without tokens."""

READ_BYTES = 1 << 16

PORTS = {"http": 80, "https": 443}
REDIRECTS = frozenset({301, 302, 303, 307, 308})
MAX_REDIRECTS = 5

HIDDEN = "***"
"""Stands where a server has repeated the key that it was sent."""

MIN_KEY = 8
"""Characters of the shortest key that is hidden: shorter ones are words, such as EMPTY."""


def server_parts(url: str) -> SplitResult:
    """Split a server's URL into its parts.

    Raises:
        ConfigError: it is the URL of no server, or holds what is not to be seen.
    """
    parts = _split(url)
    if "@" in url or parts.query or parts.fragment:
        raise ConfigError(
            "a server's URL must hold no name, password or query, which others could see",
            hint="put a key into a variable of the environment: --key-variable NAME",
        )
    if parts.scheme not in PORTS or not parts.hostname or not url.isprintable() or " " in url:
        raise ConfigError(
            f"{quoted(url)} is not the URL of a server", hint="write it as http://localhost:8080/v1"
        )
    return parts


def key_in(variable: str | None) -> str | None:
    """Return the key in a variable of the environment; None where no variable is named.

    Raises:
        ConfigError: it is not set, or cannot be a key.
    """
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ConfigError(
            f"there is no variable {variable} in the environment", hint=f"export {variable}=..."
        )
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(
            f"the variable {variable} holds no key: a key has plain letters, in one line",
            hint=f"export {variable}=...",
        )
    return key


def same_server(url: str, other: str) -> bool:
    """Return whether two URLs have the same scheme, host and port."""
    return _origin(url) == _origin(other)


def _split(url: str) -> SplitResult:
    """Return the parts of a URL; they are empty where it is none."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises where it is not a number
    except ValueError:
        return SplitResult("", "", "", "", "")
    return parts


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = _split(url)
    return parts.scheme, parts.hostname, parts.port or PORTS.get(parts.scheme)


def _opener() -> urllib.request.OpenerDirector:
    """Return urllib's opener with the proxies of the environment, and without its redirects."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.HTTPDefaultErrorHandler,
    ):
        opener.add_handler(handler())
    return opener


def open_reply(url: str, data: bytes | None, headers: Mapping[str, str]) -> Any:
    """Send a request to a server, and return its reply as a stream.

    Raises:
        OSError, http.client.HTTPException: as urllib does.
        BackendError: it redirects to another server, or without an end.
    """
    target = url
    for _ in range(MAX_REDIRECTS):
        request = urllib.request.Request(target, data=data, headers=dict(headers))
        try:
            return _opener().open(request, timeout=MAX_SILENCE)
        except urllib.error.HTTPError as error:
            location = error.headers.get("Location")
            if error.code not in REDIRECTS or location is None:
                raise
            error.close()
            target = _redirect_target(target, location)
    raise BackendError(f"{request.host} redirects without an end", hint="is the URL right?")


def _redirect_target(url: str, location: str) -> str:
    """Return the URL that a server redirects to; what it was sent is for nobody else.

    Raises:
        BackendError: it is another server's.
    """
    try:
        target = urljoin(url, location)
    except ValueError:  # no URL
        target = ""
    if same_server(url, target):
        return target
    there = _split(target)
    place = f"{there.scheme}://{there.netloc.rpartition('@')[2]}"
    raise BackendError(
        f"{_split(url).netloc} redirects to {quoted(place)}, which is not followed",
        hint="name that server's URL if you trust it with the key and the prompts",
    )


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long a reply may be, in bytes and in seconds."""

    nbytes: int
    seconds: float

    @classmethod
    def of_tokens(cls, max_tokens: int) -> Bounds:
        """Return what a reply of this many tokens needs at most: 64 KiB and a minute for each."""
        return cls(MAX_BYTES + (max_tokens << 16), MAX_SILENCE + 60.0 * max_tokens)


def read_pieces(stream: Any, bounds: Bounds) -> Iterator[bytes]:
    """Yield the bytes of a reply as they come. Raises BackendError where it has no end."""
    ends, left = time.monotonic() + bounds.seconds, bounds.nbytes
    while piece := stream.read1(READ_BYTES):
        left -= len(piece)
        if left < 0:
            raise BackendError(
                f"the server has answered with more than {bounds.nbytes:,} bytes",
                hint="see what answers at that URL",
            )
        if time.monotonic() > ends:
            raise BackendError(
                f"the server's answer has lasted for more than {bounds.seconds:,.0f} seconds",
                hint="see what answers at that URL",
            )
        yield piece


def read_lines(stream: Any, bounds: Bounds) -> Iterator[bytes]:
    """Yield the lines of a reply as they come. Raises BackendError where it has no end."""
    begun: list[bytes] = []  # parts of a line whose end has not come yet
    for piece in read_pieces(stream, bounds):
        *lines, rest = piece.split(b"\n")
        for line in lines:
            yield b"".join([*begun, line])
            begun.clear()
        begun.append(rest)
    yield b"".join(begun)


def without_key(text: str, key: str | None) -> str:
    """Return a server's text without the key that it was sent."""
    if key is None or len(key) < MIN_KEY:
        return text
    return text.replace(key, HIDDEN)
