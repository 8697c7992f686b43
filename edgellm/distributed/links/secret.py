"""The secret that machines share for one run; it never goes over the network."""

from __future__ import annotations

import secrets
from pathlib import Path

from edgellm.errors import ConfigError
from edgellm.files.atomic import write_unhashed
from edgellm.files.bounded import read_private

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
    made = "edgellm cluster start makes one; copy it to each machine"
    text = read_private(path, "secret", _MAX_BYTES, hint=made)
    return check_secret(text.decode("ascii", "replace"))
