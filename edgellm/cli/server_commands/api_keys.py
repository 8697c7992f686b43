"""Keys of an API in a file, one per line."""

from __future__ import annotations

from edgellm.errors import ConfigError
from edgellm.files.bounded import read_given_text
from edgellm.files.given_path import given_path

MAX_LETTERS = 1 << 20


def read_keys(path: str | None) -> tuple[str, ...]:
    """Return the keys of a file, one per line; lines that are empty or begin with # are none.

    Raises:
        ConfigError: it cannot be read, or has no key.
    """
    if path is None:
        return ()
    text = read_given_text(
        given_path(path), MAX_LETTERS, hint="name a file that has a key per line"
    )
    lines = [line.strip() for line in text.removeprefix("\ufeff").splitlines()]
    keys = tuple(line for line in lines if line and not line.startswith("#"))
    if not keys:
        raise ConfigError(
            "the file of --api-key-file has no key", hint="write one key per line into it"
        )
    return keys
