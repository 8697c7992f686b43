"""The secret that machines share for one run; it never goes over the network."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from edgellm.errors import ConfigError
from edgellm.files.atomic import write_unhashed

LETTERS = 43
"""Of a secret: 32 random bytes in base64."""

_MAX_BYTES = 1024


def new_secret() -> str:
    """Return a secret that nobody can guess."""
    return secrets.token_urlsafe(32)


def check_secret(text: str) -> bytes:
    """Return a secret as it is used. Raises ConfigError where it is too short to be one of ours."""
    text = text.strip()
    if len(text) < LETTERS or not text.isascii():
        raise ConfigError(
            f"the secret has {len(text)} characters, and those of edgellm have {LETTERS}",
            hint="take the one that edgellm cluster start has written",
        )
    return text.encode()


def write_secret(path: Path, secret: str) -> None:
    """Write a secret for the owner alone. Raises ConversionError."""
    write_unhashed(path, [f"{secret}\n".encode()], private=True)


def read_secret(path: Path) -> bytes:
    """Read a secret. Raises ConfigError where there is none, or where others can read it."""
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            text = file.read(_MAX_BYTES)
    except OSError as error:
        raise ConfigError(
            f"the secret cannot be read: {path}: {error.strerror or error}",
            hint="edgellm cluster start makes one; copy it to each machine",
        ) from error
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise ConfigError(f"others can read the secret {path}", hint=f"chmod 600 {path}")
    return check_secret(text.decode("ascii", "replace"))
