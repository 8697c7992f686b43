"""Tool calls that are required, named or limited, beside jsonschema."""

import json

import jsonschema
import pytest
from support import tiny
from tokenizers import AddedToken
from tokenizers import Tokenizer as Tokenizers

import edgellm
from edgellm import ConfigError, Grammar

HEAD = (
    "{% for tool in tools or [] %}{{ tool | tojson }}{% endfor %}"
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}"
)
TAIL = "{% endfor %}<|assistant|>"
ARGUMENTS = "{{ call.function.arguments | tojson }}"
EACH = "{% for call in message.tool_calls or [] %}"
OBJECT = '{"name": "{{ call.function.name }}", "arguments": ' + ARGUMENTS + "}"
LIST = "{% if message.tool_calls %}[TOOL_CALLS][" + EACH + OBJECT + "{% endfor %}]{% endif %}"
NAMED = "[TOOL_CALLS]{{ call.function.name }}[ARGS]" + ARGUMENTS
LLAMA = OBJECT.replace('"arguments"', '"parameters"')
TEMPLATES = {
    "hermes": HEAD + EACH + f"<tool_call>\n{OBJECT}\n</tool_call>" + "{% endfor %}" + TAIL,
    "mistral": HEAD + LIST + TAIL,
    "mistral-11": HEAD + EACH + NAMED + "{% endfor %}" + TAIL,
    "llama-3": HEAD + EACH + LLAMA + "{% endfor %}" + TAIL,
}
SPECIAL = {"mistral": ["[TOOL_CALLS]"], "mistral-11": ["[TOOL_CALLS]", "[ARGS]"]}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "maxLength": 5},
                "days": {"$ref": "#/$defs/days"},
            },
            "required": ["city", "days"],
            "additionalProperties": False,
            "$defs": {"days": {"type": "integer", "minimum": 1, "maximum": 9}},
        },
    },
}
TOOLS = [WEATHER, {"type": "function", "function": {"name": "stop_now"}}]
UNENFORCED = {
    "type": "function",
    "function": {"name": "f", "parameters": {"properties": {"a": {"not": {}}}}},
}


def write_model(folder, template, special=(), added=()):
    """Write a random model with a chat template and further tokens."""
    tiny.write_model(folder, tiny.LLAMA | {"max_position_embeddings": 2048})
    file = str(folder / "tokenizer.json")
    tokenizer = Tokenizers.from_file(file)
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in special])
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in added])
    tokenizer.save(file)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | {"chat_template": template}), encoding="utf-8")
    return folder


@pytest.fixture(scope="module", params=TEMPLATES)
def llm(request, tmp_path_factory):
    name = request.param
    folder = tmp_path_factory.mktemp("tools") / name
    write_model(folder, TEMPLATES[name], special=SPECIAL.get(name, ()))
    with edgellm.load(folder, memory="500MB", threads=1) as opened:
        yield opened


def answered(llm, **settings):
    """The finish reason, text and calls of a reply of a model that draws at random."""
    chat = llm.chat(temperature=1.0, max_tokens=250, **settings)
    *_, last = chat.stream("Hi")
    message = chat.messages[-1]
    return last.finish_reason, message["content"], message.get("tool_calls", [])


def require_valid(calls):
    for call in calls:
        [schema] = [
            tool["function"].get("parameters", {"type": "object"})
            for tool in TOOLS
            if tool["function"]["name"] == call["function"]["name"]
        ]
        jsonschema.validate(json.loads(call["function"]["arguments"]), schema)


@pytest.mark.parametrize("choice", ["required", {"function": {"name": "weather"}}])
def test_a_required_call_is_valid(llm, choice):
    finished = 0
    for seed, parallel in ((1, True), (2, False)):
        reason, text, calls = answered(
            llm, tools=TOOLS, tool_choice=choice, parallel_tool_calls=parallel, seed=seed
        )
        if reason != "stop":
            continue
        finished += 1
        assert (text, bool(calls)) == ("", True)
        require_valid(calls)
        assert parallel or len(calls) == 1
        if choice != "required":
            assert {call["function"]["name"] for call in calls} == {"weather"}
    assert finished


def test_a_reply_that_may_call_is_free_until_it_does(llm):
    start = llm.tokenizer.token_to_id("[TOOL_CALLS]")
    if llm.path.name == "llama-3":
        with pytest.raises(ConfigError, match="marks no tool calls"):
            answered(llm, tools=TOOLS)
        return
    bias = None if start is None else {start: 3.0}
    seen = set()
    for seed in range(3):
        reason, text, calls = answered(llm, tools=TOOLS, logit_bias=bias, seed=seed)
        seen.add(bool(text))
        if reason == "stop":
            require_valid(calls)
            assert bool(calls) == bool(start and "[TOOL_CALLS]" not in text)
    assert True in seen


def test_without_tools_or_calls(llm):
    _, _, calls = answered(llm, tools=TOOLS, tool_choice="none", seed=1)
    assert calls == []
    assert llm.chat(tools=TOOLS, tool_choice="none").tools == []


def test_what_cannot_be_kept_is_refused(llm):
    with pytest.raises(ConfigError, match="tool_choice is 'forecast'"):
        llm.chat(tools=TOOLS, tool_choice="forecast")
    with pytest.raises(ConfigError, match="there are no tools"):
        llm.chat(tool_choice="required")
    chat = llm.chat(tools=[UNENFORCED], tool_choice="required")
    place = r"tools\[0\]\.function\.parameters: .* at #/properties/a/not"
    with pytest.raises(ConfigError, match=place):
        chat.send("Hi")
    assert chat.messages == []
    llm.chat(tools=[UNENFORCED], max_tokens=1).send("Hi")


THINKING = "{% for message in messages %}{{ message.content }}{% endfor %}<|assistant|>"


@pytest.mark.parametrize("opened", [True, False])
@pytest.mark.parametrize("special", [True, False])
def test_a_form_begins_after_thinking(tmp_path, opened, special):
    marks = ["<think>", "</think>"]
    template = THINKING + ("<think>\n" if opened else "{# <think> #}")
    kind = "special" if special else "added"
    folder = write_model(tmp_path / "model", template, **{kind: marks})
    with edgellm.load(folder, memory="500MB", threads=1) as llm:
        start, end = map(llm.tokenizer.token_to_id, marks)
        bias = {start: 3.0, end: 3.0}
        thought = set()
        for seed in range(3):
            chat = llm.chat(temperature=1.0, max_tokens=300, seed=seed, logit_bias=bias)
            *_, last = chat.stream("Hi", grammar=Grammar.choices(["yes", "no"]))
            if last.finish_reason == "stop":
                assert chat.messages[-1]["content"] in {"yes", "no"}
                thought.add("reasoning_content" in chat.messages[-1])
        assert thought
        if opened:
            assert True in thought
