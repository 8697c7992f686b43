"""The last conversation with a model, so that another process can go on with it."""

from __future__ import annotations

from pathlib import Path

from edgellm.chat import Chat
from edgellm.checkpoint.fingerprint import fingerprint
from edgellm.errors import EdgeLLMError
from edgellm.files.locations import cache_folder


def last_chat_file(chat: Chat) -> Path:
    """Where the last conversation with this model is. Raises ReadError."""
    return cache_folder() / "chats" / f"{fingerprint(chat.llm.checkpoint)[:32]}.json"


def go_on(chat: Chat) -> bool:
    """Take up the last conversation; false where there is none. Raises FormatError, ReadError."""
    path = last_chat_file(chat)
    if not path.exists():
        return False
    chat.load(path)
    return True


def keep_chat(chat: Chat) -> None:
    """Write the conversation, if anything was said, in the place of the last one. Raises EdgeLLMError."""
    if any(message["role"] != "system" for message in chat.messages):
        path = last_chat_file(chat)
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise EdgeLLMError(
                f"the conversation cannot be kept in {path.parent}: {error.strerror}"
            ) from error
        chat.save(path)
