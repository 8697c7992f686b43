"""The file of a conversation: its messages, and the turn that was computed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgellm.chat.cached_turn import CachedTurn
from edgellm.chat.messages import Message, checked_messages
from edgellm.errors import ConfigError, FormatError
from edgellm.files.given_path import given_path
from edgellm.files.strict_json import read_json, write_json
from edgellm.setting_values import is_int, path_text

MAX_BYTES = 64 << 20
"""Bytes of a saved conversation."""

MAX_ITEMS = 2_000_000
"""Tokens and commas of a saved conversation; the longest contexts have a million tokens."""


def save_chat(path: str | Path, messages: Sequence[Message], cached: CachedTurn | None) -> None:
    """Write a conversation as JSON, for the owner alone. Raises ConfigError, ConversionError."""
    document: dict[str, Any] = {"edgellm_chat": 1, "messages": messages}
    if cached:
        document["said"] = {"text": cached.text, "ids": cached.ids}
    write_json(_file(path), document, private=True)


def load_chat(path: str | Path, *, vocab_size: int) -> tuple[list[Message], CachedTurn | None]:
    """Return what ``save_chat`` wrote. Raises ConfigError, FormatError, ReadError."""
    document = read_saved_chat(_file(path))
    messages = document.get("messages")
    try:
        if not isinstance(messages, list):
            raise ConfigError("it has no messages", hint="give some")
        checked = checked_messages(messages)
    except ConfigError as error:
        raise FormatError(
            f"{path} is not a saved conversation", hint="/save FILE writes one"
        ) from error
    return checked, _read_cached_turn(document.get("said"), vocab_size)


def read_saved_chat(path: Path) -> dict[str, Any]:
    """Return the JSON object of a saved conversation. Raises FormatError, ReadError."""
    return read_json(path, max_bytes=MAX_BYTES, max_items=MAX_ITEMS)


def _file(path: str | Path) -> Path:
    return given_path(path_text("path", path, "the path of a file"))


def _read_cached_turn(claim: Any, vocab_size: int) -> CachedTurn | None:
    """Return the turn that a file claims was computed; None where it cannot have been."""
    if not isinstance(claim, dict):
        return None
    text = claim.get("text")
    ids = claim.get("ids")
    if not isinstance(text, str) or not isinstance(ids, list):
        return None
    if not all(is_int(token) and 0 <= token < vocab_size for token in ids):
        return None
    return CachedTurn(text, ids)
