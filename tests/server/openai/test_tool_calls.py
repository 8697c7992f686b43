"""Tool calls of chat completions: free, required, named, none, and held to their schemas."""

import json

import jsonschema
import pytest

PATH = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "How is it in Oslo?"}]
PARAMETERS = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 6},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}
OTHER = {"type": "function", "function": {"name": "stop", "parameters": {"type": "object"}}}


def put_together(events):
    """The message of a stream, as strict clients do: what is said twice is there twice."""
    message = {"role": "", "content": "", "reasoning_content": "", "tool_calls": {}}
    reason = None
    for _, value in events[:-1]:
        (choice,) = value["choices"]
        reason = choice["finish_reason"] or reason
        for name in ("role", "content", "reasoning_content"):
            message[name] += choice["delta"].get(name) or ""
        for call in choice["delta"].get("tool_calls", []):
            found = message["tool_calls"].setdefault(call["index"], {})
            for name in ("id", "type"):
                found[name] = found.get(name, "") + call.get(name, "")
            for name, text in call["function"].items():
                found[name] = found.get(name, "") + text
    return message, reason


def test_a_free_call_comes_whole_and_streamed(caller):
    body = {"messages": MESSAGES, "tools": [WEATHER]}
    _, value = caller.post(PATH, **body)
    (choice,) = value["choices"]
    message = choice["message"]
    assert choice["finish_reason"] == "tool_calls"
    assert (message["content"], message["reasoning_content"]) == ("Hm.", "Is wet?")
    assert value["usage"]["completion_tokens_details"]["reasoning_tokens"] > 3
    (call,) = message["tool_calls"]
    assert (call["type"], call["function"]["name"]) == ("function", "weather")
    assert json.loads(call["function"]["arguments"]) == {"city": "Oslo", "days": 3}
    streamed, reason = put_together(caller.events(PATH, **body))
    assert (reason, streamed["role"], streamed["content"]) == ("tool_calls", "assistant", "Hm.\n")
    assert streamed["reasoning_content"] == "Is wet?"
    (found,) = streamed["tool_calls"].values()
    assert (found["type"], found["name"]) == ("function", "weather")
    assert found["arguments"] == call["function"]["arguments"]
    assert len(found["id"]) == len(call["id"])


def test_several_calls_have_places_and_ids_of_their_own(twice):
    body = {"messages": MESSAGES, "tools": [WEATHER]}
    streamed, reason = put_together(twice.events(PATH, **body))
    assert reason == "tool_calls"
    assert list(streamed["tool_calls"]) == [0, 1]
    first, second = streamed["tool_calls"].values()
    assert first["id"] != second["id"]
    cities = [json.loads(call["arguments"])["city"] for call in (first, second)]
    assert cities == ["Oslo", "Rome"]
    schema = {"name": "weather", "input_schema": PARAMETERS}
    content = twice.post("/v1/messages", messages=MESSAGES, max_tokens=99, tools=[schema])[1][
        "content"
    ]
    assert [block["input"]["city"] for block in content if block["type"] == "tool_use"] == cities
    tool = {"type": "function", **WEATHER["function"]}
    output = twice.post("/v1/responses", input="Oslo?", tools=[tool])[1]["output"]
    calls = [item for item in output if item["type"] == "function_call"]
    assert [json.loads(call["arguments"])["city"] for call in calls] == cities


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "stop"}}])
def test_a_call_can_be_required_or_named(caller, choice):
    body = {"messages": MESSAGES, "tools": [WEATHER, OTHER], "tool_choice": choice}
    _, value = caller.post(
        PATH, **body, parallel_tool_calls=False, reasoning_effort="none", temperature=1, seed=1
    )
    (found,) = value["choices"]
    assert found["finish_reason"] == "tool_calls"
    (call,) = found["message"]["tool_calls"]
    arguments = json.loads(call["function"]["arguments"])
    if choice == "required" and call["function"]["name"] == "weather":
        jsonschema.validate(arguments, PARAMETERS)
    else:
        assert (call["function"]["name"], type(arguments)) == ("stop", dict)


def test_without_tools_there_are_no_calls(caller):
    (choice,) = caller.chat("Oslo?", tools=[WEATHER], tool_choice="none")["choices"]
    assert choice["finish_reason"] == "stop"
    assert "tool_calls" not in choice["message"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tool_choice": "any"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
        ({"tools": [], "tool_choice": "required"}, "tool_choice"),
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools[0].type"),
        (
            {
                "tools": [
                    {
                        "type": "function",
                        "function": {"name": "f", "parameters": {"properties": {"a": {"not": {}}}}},
                    }
                ],
                "tool_choice": "required",
            },
            "tools[0].function.parameters",
        ),
        ({"parallel_tool_calls": "no"}, "parallel_tool_calls"),
    ],
)
def test_what_is_wrong_is_refused_by_its_name(caller, fields, param):
    status, value = caller.post(PATH, **{"messages": MESSAGES, "tools": [WEATHER], **fields})
    assert (status, value["error"]["param"]) == (400, param)
