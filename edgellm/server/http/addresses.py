"""Addresses and origins as the command line gives them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from edgellm.errors import ConfigError
from edgellm.server.http.guard import is_loopback
from edgellm.setting_values import shown

ORIGIN = re.compile(r"https?://[\w.-]+(:\d+)?|https?://\[[0-9a-fA-F:]+\](:\d+)?")


def require_safe_address(host: str, keys: Iterable[str]) -> None:
    """Raise ConfigError where others could reach the server without a key."""
    if not is_loopback(host) and not list(keys):
        raise ConfigError(
            f"--host {shown(host)} can be reached by others, and there is no key",
            hint="give --api-key-file FILE, or leave out --host",
        )


def require_origins(origins: Iterable[str]) -> tuple[str, ...]:
    """Return origins of web pages. Raises ConfigError where one is none, such as ``*``."""
    found = tuple(origin.rstrip("/") for origin in origins)
    for origin in found:
        if not ORIGIN.fullmatch(origin):
            raise ConfigError(
                f"--cors-origin {shown(origin)} is not the origin of a web page",
                hint="give scheme and host, such as https://example.org; * is not allowed",
            )
    return found
