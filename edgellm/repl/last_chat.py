"""The last conversation with a model, so that another process can continue it."""

from __future__ import annotations

import os
from pathlib import Path

from edgellm.chat import Chat
from edgellm.checkpoint.fingerprint import fingerprint
from edgellm.errors import (
    ContextError,
    ConversionError,
    FormatError,
    ReadError,
    TemplateError,
)
from edgellm.files.locations import cache_folder, make_private_folder
from edgellm.files.refusals import write_error
from edgellm.repl import chat_view

TRIED = "Hello"
"""A message with which a conversation is tried before a person types the next one."""


def last_chat_file(chat: Chat) -> Path:
    """Return the place of the last conversation with this model. Raises ReadError."""
    return cache_folder() / "chats" / f"{fingerprint(chat.llm.checkpoint)[:32]}.json"


def continue_last_chat(chat: Chat) -> bool:
    """Load the last conversation; return false if there is none, or it cannot go on.

    One that is damaged, or that the chat template refuses, is kept beside and told of, so that the
    next one can be kept. Of one that is longer than the context the oldest exchanges leave.

    Raises:
        ReadError: the model's files cannot be read.
        ConversionError: the disk refuses.
    """
    path = last_chat_file(chat)
    if not path.exists():
        return False
    before = chat.messages
    try:
        chat.load(path)
        chat.begin(TRIED)
    except ContextError:
        chat.overflow = "drop_oldest"
    except (FormatError, ReadError, TemplateError) as error:
        chat.messages = before
        chat_view.show_not_continued(error, _keep_beside(path))
        return False
    return True


def _keep_beside(path: Path) -> Path:
    """Give a file another name, one that is free. Raises ConversionError."""
    beside = path.with_suffix(".refused.json")
    number = 1
    while os.path.lexists(beside):
        number += 1
        beside = path.with_suffix(f".refused-{number}.json")
    try:
        path.replace(beside)
    except OSError as error:
        raise write_error(beside, error) from error
    return beside


def save_last_chat(chat: Chat) -> None:
    """Replace the last conversation by this one, if anything was said. Raises EdgeLLMError."""
    if all(message["role"] == "system" for message in chat.messages):
        return
    path = last_chat_file(chat)
    try:
        make_private_folder(path.parent)
        chat.save(path)
    except (OSError, ConversionError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConversionError(
            f"this conversation is not kept in {path.parent}: {reason}",
            hint="make room there, so that the next one can be kept",
        ) from error
