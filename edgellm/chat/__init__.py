"""Conversations: messages in, a reply out; only new tokens are computed.

``chat.py`` is the conversation; ``messages.py`` checks what they say, ``reply.py`` takes a reply
token by token, ``overflow.py`` knows what leaves a full context, ``saved.py`` is the file of a
conversation, ``cached_turn.py`` what the model has computed of it. ``tools.py`` makes schemas of
functions, ``tool_calls.py`` finds the calls in a reply.
It stands on ``chat_template``; ``llm.py`` makes conversations.
"""

from __future__ import annotations

from edgellm.chat.chat import Chat, require_chat_template
from edgellm.chat.messages import Message
from edgellm.chat.overflow import Overflow
from edgellm.chat.saved import read_saved_chat
from edgellm.chat.tools import Tool

__all__ = ["Chat", "Message", "Overflow", "Tool", "read_saved_chat", "require_chat_template"]
