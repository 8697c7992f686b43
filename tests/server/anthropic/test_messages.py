"""Messages in Anthropic's form, whole and streamed, beside the Python API."""

import json

import pytest

PATH = "/v1/messages"
TEXT = "Tell me a story about a small boat."
MESSAGES = [{"role": "user", "content": TEXT}]
TOOL = {
    "name": "weather",
    "description": "Say how the weather will be.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}


def read(events):
    """The message of a stream, put together as Anthropic's clients do."""
    for name, value in events:
        assert name == value["type"]
    kinds = [name for name, _ in events if name != "ping"]
    assert (kinds[0], kinds[-2], kinds[-1]) == ("message_start", "message_delta", "message_stop")
    message = events[0][1]["message"]
    partial = {}
    for kind, value in events:
        match kind:
            case "content_block_start":
                assert value["index"] == len(message["content"])
                message["content"].append(value["content_block"])
            case "content_block_delta":
                block = message["content"][value["index"]]
                match value["delta"]:
                    case {"type": "text_delta", "text": text}:
                        block["text"] += text
                    case {"type": "thinking_delta", "thinking": text}:
                        block["thinking"] += text
                    case {"type": "signature_delta", "signature": signature}:
                        block["signature"] = signature
                    case {"type": "input_json_delta", "partial_json": text}:
                        partial[value["index"]] = partial.get(value["index"], "") + text
            case "message_delta":
                message.update(value["delta"], usage=value["usage"])
    for index, text in partial.items():
        message["content"][index]["input"] = json.loads(text)
    return message


def without_ids(message):
    return {
        **message,
        "id": "",
        "content": [{**block, "id": ""} for block in message["content"]],
        "usage": message["usage"]["output_tokens"],
    }


def test_the_reply_is_that_of_the_python_api_whole_and_streamed(stories, client):
    text = stories.chat(temperature=0).send(TEXT, max_tokens=16)
    status, whole = client.post(PATH, messages=MESSAGES, max_tokens=16)
    assert status == 200
    assert (whole["type"], whole["role"], whole["model"]) == ("message", "assistant", "stories")
    assert whole["content"] == [{"type": "text", "text": text}]
    assert (whole["stop_reason"], whole["stop_sequence"]) == ("max_tokens", None)
    usage = whole["usage"]
    counted = client.post("/v1/messages/count_tokens", messages=MESSAGES)[1]["input_tokens"]
    assert usage["input_tokens"] + usage["cache_read_input_tokens"] == counted
    assert usage["output_tokens"] == 16
    events = client.events(PATH, messages=MESSAGES, max_tokens=16)
    assert without_ids(read(events)) == without_ids(whole)
    assert events[0][1]["message"]["usage"]["input_tokens"] == counted


def test_the_stop_sequence_that_has_come_is_named(client):
    body = {"messages": MESSAGES, "max_tokens": 60, "stop_sequences": ["never this", "."]}
    _, whole = client.post(PATH, **body)
    assert (whole["stop_reason"], whole["stop_sequence"]) == ("stop_sequence", ".")
    assert "." not in whole["content"][0]["text"]
    assert read(client.events(PATH, **body))["stop_sequence"] == "."


def test_thinking_text_and_calls_are_blocks(caller):
    body = {"messages": MESSAGES, "max_tokens": 99, "tools": [TOOL]}
    _, whole = caller.post(PATH, **body)
    thinking, text, call = whole["content"]
    assert (thinking["type"], thinking["thinking"]) == ("thinking", "Is wet?")
    assert text == {"type": "text", "text": "Hm.\n"}
    assert call.pop("id").startswith("toolu_")
    assert call == {
        "type": "tool_use",
        "name": "weather",
        "input": {"city": "Oslo", "days": 3},
    }
    assert whole["stop_reason"] == "tool_use"
    streamed = read(caller.events(PATH, **body))
    streamed["content"][2].pop("id")
    assert streamed["content"] == whole["content"]
    body["thinking"] = {"type": "disabled"}
    _, unthought = caller.post(PATH, **body)
    assert [block["type"] for block in unthought["content"]] == ["text", "tool_use"]
    body["thinking"] = {"type": "adaptive", "display": "omitted"}
    _, hidden = caller.post(PATH, **body)
    assert hidden["content"][0] == {**thinking, "thinking": ""}
    assert "Is wet" not in str(caller.events(PATH, **body))


@pytest.mark.parametrize("budget", [1, 2, 4])
def test_thinking_ends_with_its_budget(caller, budget):
    body = {"messages": MESSAGES, "max_tokens": 99, "tools": [TOOL]}
    _, free = caller.post(PATH, **body)
    thinking = {"type": "enabled", "budget_tokens": budget}
    _, value = caller.post(PATH, **body, thinking=thinking)
    kinds = [block["type"] for block in value["content"]]
    assert kinds[-2:] == ["text", "tool_use"]
    thought = "".join(block.get("thinking", "") for block in value["content"])
    assert free["content"][0]["thinking"].startswith(thought)
    assert len(thought) < len(free["content"][0]["thinking"])
    assert value["content"][-2:][0] == free["content"][1]
    _, ample = caller.post(PATH, **body, thinking={"type": "enabled", "budget_tokens": 50})
    assert [one["type"] for one in ample["content"]] == ["thinking", "text", "tool_use"]


def test_a_conversation_in_blocks_is_the_one_in_openais_form(caller):
    asked = [
        {"role": "user", "content": [{"type": "text", "text": "Oslo?"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Wet?", "signature": "x"},
                {"type": "text", "text": "Hm."},
                {"type": "tool_use", "id": "a", "name": "weather", "input": {"city": "Oslo"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": "sunny"},
                {"type": "text", "text": "And "},
                {"type": "text", "text": "now?"},
            ],
        },
        {"role": "user", "content": "Say!"},
    ]
    system = [{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}]
    body = {"messages": asked, "system": system, "tools": [TOOL]}
    _, counted = caller.post("/v1/messages/count_tokens", **body)
    function = {"name": "weather", "arguments": '{"city": "Oslo"}'}
    reply = {
        "role": "assistant",
        "content": "Hm.",
        "reasoning_content": "Wet?",
        "tool_calls": [{"id": "a", "type": "function", "function": function}],
    }
    schema = {"name": TOOL["name"], "description": TOOL["description"]}
    schema["parameters"] = TOOL["input_schema"]
    openai = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Oslo?"},
        reply,
        {"role": "tool", "tool_call_id": "a", "content": "sunny"},
        {"role": "user", "content": "And now?\n\nSay!"},
    ]
    value = {"messages": openai, "tools": [{"type": "function", "function": schema}]}
    _, answer = caller.post("/v1/chat/completions", max_tokens=1, **value)
    assert counted["input_tokens"] == answer["usage"]["prompt_tokens"]


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "weather"}])
def test_a_call_can_be_asked_for(caller, choice):
    choice["disable_parallel_tool_use"] = True
    body = {"messages": MESSAGES, "max_tokens": 200, "tools": [TOOL], "tool_choice": choice}
    strict = {**TOOL["input_schema"], "additionalProperties": False}
    strict["properties"] = {"city": {"type": "string", "maxLength": 5}}
    body["tools"] = [{**TOOL, "input_schema": strict}]
    body |= {"temperature": 1, "seed": 2, "thinking": {"type": "disabled"}}
    _, value = caller.post(PATH, **body)
    assert value["stop_reason"] == "tool_use"
    (call,) = value["content"]
    assert (call["type"], call["name"]) == ("tool_use", "weather")
    assert set(call["input"]) <= {"city"}
    body["tool_choice"] = {"type": "none"}
    _, value = caller.post(PATH, **body)
    assert [block["type"] for block in value["content"]] == ["text"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [*MESSAGES, {"role": "assistant", "content": "It"}]}, "prefill"),
        ({"messages": [{"role": "robot", "content": "a"}]}, "messages[0].role"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
            "messages[0].content[0].type",
        ),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"name": "a"}]}, "tools[0].input_schema"),
        ({"container": "c"}, "container"),
        (
            {"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}},
            "context_management.edits[0].type",
        ),
        ({"tool_choice": {"type": "tool", "name": "f"}}, "tool_choice"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"output_config": {"format": {"type": "xml"}}}, "output_config.format.type"),
        ({"thinking": {"type": "enabled", "budget_tokens": 0}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "enabled", "budget_tokens": 9}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
        ({"system": [{"type": "image"}]}, "system[0].type"),
    ],
)
def test_what_is_wrong_is_refused_in_anthropics_form(client, fields, said):
    status, value = client.post(PATH, **{"messages": MESSAGES, "max_tokens": 9, **fields})
    assert (status, value["type"]) == (400, "error")
    assert value["error"]["type"] == "invalid_request_error"
    assert said in value["error"]["message"]
