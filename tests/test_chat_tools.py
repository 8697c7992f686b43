"""Tools: what a model is told of them, and the calls in its replies."""

import json

import numpy as np
import pytest
from support.conversations import TOOLS, calls_in
from support.scripted import write_scripted

import edgellm
from edgellm.errors import ConfigError, TemplateError

TEMPLATE = (
    "{% for tool in tools or [] %}<|tool|>{{ tool | tojson }}<|end|>{% endfor %}"
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}"
    "{% for call in message.tool_calls or [] %}"
    '<tool_call>{"name": "{{ call.function.name }}", '
    '"arguments": {{ call.function.arguments | tojson }}}</tool_call>'
    "{% endfor %}<|end|>{% endfor %}<|assistant|>"
)
CALL = (
    '<tool_call>{"name": "weather", ',
    '"arguments": {"city": "Oslo", "days": 3}}',
    "</tool_call>",
)
REPLY = "Hm.\n" + "".join(CALL)


def weather(city: str, days: int = 1) -> str:
    """Say how the weather will be.

    Args:
        city: the city's name.
        days: from today on.
    """
    raise AssertionError("nobody calls it")


WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Say how the weather will be.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "the city's name."},
                "days": {"type": "integer", "description": "from today on."},
            },
            "required": ["city"],
        },
        "return": {"type": "string"},
    },
}


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scripted") / "model"
    write_scripted(folder, REPLY, TEMPLATE, added=CALL)
    with edgellm.load(folder, memory="500MB", threads=1) as model:
        yield model


def test_a_call_is_taken_out_of_the_reply(llm):
    chat = llm.chat(tools=[WEATHER])
    shown = [token.text for token in chat.stream("How is it in Oslo?")]
    assert "".join(shown) == "Hm.\n"
    assert "tool_call" not in "".join(shown)
    [call] = chat.messages[-1]["tool_calls"]
    assert chat.messages[-1]["content"] == "Hm."
    assert (call["type"], call["function"]["name"]) == ("function", "weather")
    assert json.loads(call["function"]["arguments"]) == {"city": "Oslo", "days": 3}
    assert call["id"].isalnum()
    assert len(call["id"]) == 9
    chat.send({"role": "tool", "content": "sunny", "tool_call_id": call["id"]})
    assert [one["role"] for one in chat.messages] == ["user", "assistant", "tool", "assistant"]


def test_a_call_that_was_cut_off_is_text(llm):
    chat = llm.chat(tools=TOOLS)
    half = chat.send("How is it in Oslo?", max_tokens=len(llm.tokenizer.encode(REPLY)) - 2)
    assert half.startswith('Hm.\n<tool_call>{"name"')
    assert chat.messages[-1] == {"role": "assistant", "content": half}


def test_without_tools_nothing_is_a_call(llm):
    chat = llm.chat()
    assert chat.send("How is it in Oslo?") == REPLY
    assert "tool_calls" not in chat.messages[-1]


def test_the_template_is_given_what_transformers_gives(llm):
    transformers = pytest.importorskip("transformers", reason="the reference is not installed")
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(llm.path / "tokenizer.json"))
    call = {"function": {"name": "weather", "arguments": {"city": "Zürich", "days": [1]}}}
    messages = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "sunny"},
    ]
    expected = theirs.apply_chat_template(
        messages, tools=[weather], chat_template=TEMPLATE, tokenize=False
    )
    chat = llm.chat(tools=[weather])
    assert chat.tools == [WEATHER]
    chat.messages = messages[:-1]
    *_, last = chat.stream(messages[-1], max_tokens=1)
    ids = llm.tokenizer.encode(expected, add_special_tokens=False)
    assert last.stats.prompt_tokens == len(ids)
    assert chat._template.render(chat.messages[:-1]) == expected


def unclear(city):
    """Say how the weather will be."""


@pytest.mark.parametrize(
    ("tools", "said"),
    [
        ([unclear], "a function cannot be a tool: .*city"),
        ([3], "a tool is 3, which has no name"),
        ([{"type": "function"}], "which has no name"),
        ("weather", "tools is 'weather'; it must be a list"),
        ([dict], "a function cannot be a tool"),
    ],
)
def test_what_is_no_tool_is_told(llm, tools, said):
    with pytest.raises(ConfigError, match=said):
        llm.chat(tools=tools)


def test_a_template_without_tools_is_told(open_llm):
    with pytest.raises(TemplateError, match="no place for tools"):
        open_llm("llama-2").chat(tools=TOOLS)
    assert open_llm("llama-2").chat(tools=[]).tools == []


HERMES = "... <tool_call> ... tool_call.name ..."
MISTRAL = "[TOOL_CALLS]"
LLAMA = '{"name": function name, "parameters": dictionary}'
ONE = ("f", {"x": 1})
TWICE = [ONE, ("g", {})]
REPLIES = [
    (HERMES, 'A <tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>', "A ", [ONE]),
    (
        HERMES,
        '<tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>\n'
        '<tool_call>{"name": "g", "arguments": {}}</tool_call>',
        "",
        TWICE,
    ),
    # the end token came before the end
    (HERMES, '<tool_call>\n{"name": "f", "arguments": {"x": 1}}', "", [ONE]),
    (HERMES, '<tool_call>{"name": "f", "arguments": "{\\"x\\": 1}"}</tool_call>', "", [ONE]),
    (LLAMA, '{"name": "f", "parameters": {"x": 1}}', "", [ONE]),
    (LLAMA, '\n{"name": "f", "parameters": {"x": 1}}; {"name": "g", "parameters": {}}', "", TWICE),
    (LLAMA, '<|python_tag|>{"type": "function", "name": "f", "parameters": {"x": 1}}', "", [ONE]),
    (LLAMA, '[{"name": "f", "arguments": {"x": 1}}, {"name": "g"}]', "", TWICE),
    (MISTRAL, '[TOOL_CALLS] [{"name": "f", "arguments": {"x": 1}, "id": "abc"}]', "", [ONE]),
    (MISTRAL, '[TOOL_CALLS]f[ARGS]{"x": 1}[TOOL_CALLS]g[CALL_ID]123456789[ARGS]{}', "", TWICE),
    ("<|tool_call|>", '<|tool_call|>[{"name": "f", "arguments": {"x": 1}}]', "", [ONE]),
]


@pytest.mark.parametrize(("template", "text", "shown", "calls"), REPLIES)
def test_calls_are_read_as_models_write_them(template, text, shown, calls):
    assert calls_in(template, text) == (shown, calls)
    assert calls_in(template, text, [1] * len(text)) == (shown, calls)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        (HERMES, "No call, but 1 <tool> and <tool_cal"),
        (HERMES, '<tool_call>{"name": "f", "argum'),
        (HERMES, '<tool_call>{"name": "f", "arguments": [1]}</tool_call>'),
        (HERMES, '<tool_call>{"name": "f"}</tool_call> and more'),
        (HERMES, '<tool_call>{"nam": "f"}</tool_call>'),
        (HERMES, "<tool_call>3</tool_call>"),
        (LLAMA, '{"answer": 42}'),
        (LLAMA, "[1] is a reference."),
        (LLAMA, 'The JSON is {"name": "f", "parameters": {}}'),
        (LLAMA, " \n "),
        (MISTRAL, "[TOOL_CALLS]f[ARGS]{"),
        (HERMES, "<tool_call>" + "[" * 100_000),
    ],
)
def test_what_does_not_parse_is_text(template, text):
    assert calls_in(template, text) == (text, [])


@pytest.mark.parametrize("seed", range(5))
def test_however_a_reply_is_cut(seed):
    sizes = np.random.default_rng(seed).integers(0, 12, 20).tolist()
    for template, text, shown, calls in REPLIES:
        assert calls_in(template, text, sizes) == (shown, calls)


def test_special_tokens_are_read_and_never_shown():
    tokens = ("[TOOL_CALLS]", "[ARGS]")
    assert calls_in("", '[TOOL_CALLS]f[ARGS]{"x": 1}', tokens=tokens) == ("", [ONE])
    assert calls_in("", "[TOOL_CALLS]f[ARGS]{", tokens=tokens) == ("f{", [])
