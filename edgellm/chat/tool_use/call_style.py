"""How a model's calls are written as JSON, read from what its chat template writes."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from edgellm.chat_template.conversation import ConversationTemplate
from edgellm.errors import TemplateError

PROBE = "edgellm_probe"
"""The name of a tool that no model has; where it turns up, the template has written a call."""

_CALL: dict[str, Any] = {
    "id": "abcdef123",
    "type": "function",
    "function": {"name": PROBE, "arguments": '{"edgellm_argument": 1}'},
}
_MESSAGES = (
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "", "tool_calls": [_CALL]},
    {"role": "tool", "content": "done", "tool_call_id": _CALL["id"]},
)


@dataclass(frozen=True, slots=True)
class CallStyle:
    """How a call is written.

    Attributes:
        arguments: the key of the arguments, ``arguments`` or ``parameters``.
        is_list: whether all calls are one list.
        is_named: whether the name comes before the arguments alone, as in Mistral's newer models.
        has_id: whether a call may have an ``id``.
    """

    arguments: str = "arguments"
    is_list: bool = False
    is_named: bool = False
    has_id: bool = False


def call_style(template: ConversationTemplate, start: str) -> CallStyle:
    """Return how calls are written by a template; a usual form where it does not show one.

    Args:
        template: of the conversation, with tools.
        start: what comes before calls.
    """
    with suppress(TemplateError):
        before, probe, after = template.render(_MESSAGES).partition(PROBE)
        if probe:
            key = re.search(r'"(arguments|parameters)"', after)
            return CallStyle(
                arguments="arguments" if key is None else key[1],
                is_list=re.search(r"\[\s*\{[^\[{}]*$", before) is not None,
                is_named=after.startswith(("[ARGS]", "[CALL_ID]")),
                has_id=re.search(r'"id"', after.partition("done")[0]) is not None,
            )
    return CallStyle(is_list=start in {"[TOOL_CALLS]", "<|tool_call|>"})
