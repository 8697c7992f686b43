"""Conversations and tools for chat templates, and a call that renders one."""

import json

from edgellm.chat.tool_use.tool_calls import ToolCallFilter, find_call_form
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


def calls_in(template, text, sizes=(), *, tokens=(), tools=(), whole=True):
    """Return the text and the calls of a reply that comes in pieces of some sizes."""
    parted = ToolCallFilter(find_call_form(template, tokens.__contains__, tools), tokens)
    shown = ""
    for size in sizes:
        shown += parted.add(text[:size])
        text = text[size:]
    shown += parted.add(text)
    rest, calls = parted.finish(whole=whole)
    functions = [call["function"] for call in calls]
    return shown + rest, [(one["name"], json.loads(one["arguments"])) for one in functions]


def require_same_alone_and_in_turn(llm, turns=3):
    """Let conversations of one model take turns, and require what each says by itself.

    Nor may they compute more.
    """

    def say(chat, number, turn):
        *_, last = chat.stream(f"{number} and {turn}, once upon a time there was a house")
        return last.stats.cached_tokens, chat.messages[-1]["content"]

    chats = [[llm.chat("Be kind. " * 3, temperature=0, max_tokens=4) for _ in "ab"] for _ in "12"]
    alone = []
    for number, chat in enumerate(chats[0]):
        alone.append([say(chat, number, turn) for turn in range(turns)])
        llm.prefix_cache.clear()
    in_turn = [
        [say(chat, number, turn) for number, chat in enumerate(chats[1])] for turn in range(turns)
    ]
    for number, said in enumerate(alone):
        for turn, (cached, text) in enumerate(said):
            assert in_turn[turn][number][1] == text
            assert in_turn[turn][number][0] >= cached
    assert min(cached for cached, _ in in_turn[-1]) > 0
