"""The last conversation with a model, so that another process can go on with it."""

from __future__ import annotations

from pathlib import Path

from edgellm.chat import Chat
from edgellm.checkpoint.fingerprint import fingerprint
from edgellm.errors import ConversionError
from edgellm.files.locations import cache_folder, make_private_folder


def last_chat_file(chat: Chat) -> Path:
    """Return the place of the last conversation with this model. Raises ReadError."""
    return cache_folder() / "chats" / f"{fingerprint(chat.llm.checkpoint)[:32]}.json"


def continue_last_chat(chat: Chat) -> bool:
    """Load the last conversation; return false if there is none. Raises FormatError, ReadError."""
    path = last_chat_file(chat)
    if not path.exists():
        return False
    chat.load(path)
    return True


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
