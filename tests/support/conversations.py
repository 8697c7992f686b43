"""Conversations and tools for chat templates, and a call that renders one."""

from edgellm.chat_template.render_process import RenderLimits
from edgellm.chat_template.template import ChatTemplate

NAMES = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "tools": None,
    "documents": None,
    "add_generation_prompt": True,
}
HELLO = [{"role": "user", "content": "Hello"}]
TALK = [
    {"role": "system", "content": "Be brief. "},
    {"role": "user", "content": "  What is <b>1 & 1</b>?\n"},
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\nTwo, 'of course' é"},
    {"role": "user", "content": "Sure?"},
]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Say <how> the weather is & 'was' é",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
]
CALL = [
    *HELLO,
    {
        "role": "assistant",
        "tool_calls": [
            {"function": {"name": "weather", "arguments": {"city": "Zürich", "days": [1, 2]}}}
        ],
    },
    {"role": "tool", "content": "sunny"},
]

LIMITS = RenderLimits()


def render(source, messages=HELLO, *, limits=LIMITS, **variables):
    """Return the text that the template ``source`` makes of a conversation."""
    return ChatTemplate(source, limits).render(messages, NAMES | variables)
