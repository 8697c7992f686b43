"""Conversations: messages in, a reply out; only new tokens are computed.

``chat.py`` is the conversation; ``messages.py`` checks what they say, ``reply.py`` takes a reply
token by token, ``overflow.py`` knows what leaves a full context, ``saved.py`` is the file of a
conversation, ``cached_turn.py`` what the model has computed of it. ``tool_use`` has tools and their
calls; ``reply_grammar.py`` holds a reply to a form.
It stands on ``chat_template``; ``llm.py`` makes conversations.
"""

from __future__ import annotations

from edgellm.chat.chat import Chat, require_chat_template
from edgellm.chat.messages import Message
from edgellm.chat.overflow import Overflow
from edgellm.chat.saved import read_saved_chat
from edgellm.chat.tool_use.tool_grammar import ToolChoice
from edgellm.chat.tool_use.tools import Tool

__all__ = [
    "Chat",
    "Message",
    "Overflow",
    "Tool",
    "ToolChoice",
    "read_saved_chat",
    "require_chat_template",
]
