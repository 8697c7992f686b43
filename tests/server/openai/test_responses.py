"""Responses, whole and streamed, beside the Python API."""

import json

import jsonschema
import pytest

PATH = "/v1/responses"
TEXT = "Tell me a story about a small boat."
TOOL = {
    "type": "function",
    "name": "weather",
    "description": "Say how the weather will be.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}


def read(events):
    """The response of a stream, checked against the deltas of its items."""
    for number, (name, value) in enumerate(events):
        assert name == value["type"]
        assert value["sequence_number"] == number
    kinds = [name for name, _ in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    response = events[-1][1]["response"]
    assert kinds[-1] == f"response.{response['status']}"
    texts = {}
    done = []
    for kind, value in events:
        if kind == "response.output_item.added":
            assert value["output_index"] == len(done)
            assert value["item"]["status"] == "in_progress"
            texts[value["item"]["id"]] = ""
        elif kind.endswith(".delta"):
            texts[value["item_id"]] += value["delta"]
        elif kind == "response.output_item.done":
            done.append(value["item"])
        elif kind in {"response.output_text.done", "response.reasoning_text.done"}:
            assert texts[value["item_id"]] == value["text"]
        elif kind == "response.function_call_arguments.done":
            assert texts[value["item_id"]] == value["arguments"]
    assert done == response["output"]
    return response


def without_ids(response):
    hidden = {"id": "", "created_at": 0, "usage": response["usage"]["output_tokens"]}
    output = [{**item, "id": "", "call_id": ""} for item in response["output"]]
    return {**response, **hidden, "output": output}


def test_the_response_is_that_of_the_python_api_whole_and_streamed(stories, client):
    text = stories.chat("Be kind.", temperature=0).send(TEXT, max_tokens=16)
    body = {"input": TEXT, "instructions": "Be kind.", "max_output_tokens": 16}
    status, whole = client.post(PATH, **body)
    assert (status, whole["object"], whole["status"]) == (200, "response", "incomplete")
    assert whole["incomplete_details"] == {"reason": "max_output_tokens"}
    (message,) = whole["output"]
    assert (message["type"], message["role"]) == ("message", "assistant")
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    assert message["content"] == [part]
    usage = whole["usage"]
    assert usage["output_tokens"] == 16
    assert usage["total_tokens"] == usage["input_tokens"] + 16
    assert without_ids(read(client.events(PATH, **body))) == without_ids(whole)
    items = [{"role": "developer", "content": "Be kind."}, {"role": "user", "content": TEXT}]
    parts = [{"type": "input_text", "text": TEXT}]
    as_parts = [items[0], {"type": "message", "role": "user", "content": parts}]
    for form in (items, as_parts):
        _, value = client.post(PATH, input=form, max_output_tokens=16)
        assert value["output"][0]["content"] == [part]


def test_thinking_text_and_calls_are_items(caller):
    body = {"input": "How is it in Oslo?", "tools": [TOOL]}
    _, whole = caller.post(PATH, **body)
    thinking, message, call = whole["output"]
    assert thinking["content"] == [{"type": "reasoning_text", "text": "Is wet?"}]
    assert (thinking["type"], thinking["summary"]) == ("reasoning", [])
    assert message["content"][0]["text"] == "Hm.\n"
    assert (call["type"], call["name"]) == ("function_call", "weather")
    assert json.loads(call["arguments"]) == {"city": "Oslo", "days": 3}
    assert whole["status"] == "completed"
    assert whole["usage"]["output_tokens_details"]["reasoning_tokens"] > 0
    assert without_ids(read(caller.events(PATH, **body))) == without_ids(whole)
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "sunny"}
    user = {"role": "user", "content": "How is it in Oslo?"}
    status, value = caller.post(PATH, input=[user, *whole["output"], output], tools=[TOOL])
    assert status == 200, value
    _, unthought = caller.post(PATH, **body, reasoning={"effort": "none"})
    assert [item["type"] for item in unthought["output"]] == ["message", "function_call"]


def test_a_schema_holds_and_logprobs_are_there(client):
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 8}, "old": {"type": "boolean"}},
        "required": ["name", "old"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "name": "boat", "schema": schema, "strict": True}
    include = ["message.output_text.logprobs"]
    body = {"input": TEXT, "text": {"format": form}, "include": include, "top_logprobs": 1}
    _, value = client.post(PATH, **body)
    (part,) = value["output"][0]["content"]
    assert value["status"] == "completed"
    jsonschema.validate(json.loads(part["text"]), schema)
    assert "".join(bytes(one["bytes"]).decode() for one in part["logprobs"]).strip() == part["text"]
    assert all(len(one["top_logprobs"]) == 1 for one in part["logprobs"])


def test_logprobs_have_all_bytes_whole_and_streamed(client):
    text = "\U0001f600 caf\u00e9"
    form = {"type": "json_schema", "name": "a", "schema": {"const": text}}
    include = ["message.output_text.logprobs"]
    body = {"input": TEXT, "text": {"format": form}, "include": include}
    events = client.events(PATH, **body)
    (part,) = read(events)["output"][0]["content"]
    assert json.loads(part["text"]) == text
    entries = [
        one
        for kind, value in events
        if kind == "response.output_text.delta"
        for one in value["logprobs"]
    ]
    assert entries == part["logprobs"]
    written = b"".join(bytes(one["bytes"]) for one in entries)
    assert written.decode().strip() == part["text"].strip()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": [{"type": "item_reference", "id": "a"}]}, "input[0].type"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            "input[0].content[0].type",
        ),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"store": True}, "store"),
        ({"background": True}, "background"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "c"}, "conversation"),
        ({"truncation": "auto"}, "truncation"),
        ({"top_logprobs": 2}, "top_logprobs"),
        (
            {"text": {"format": {"type": "json_schema", "schema": {"not": {}}}}},
            "text.format.schema",
        ),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format.schema"),
    ],
)
def test_what_is_wrong_is_refused_by_its_name(client, fields, param):
    status, value = client.post(PATH, **{"input": TEXT, **fields})
    assert (status, value["error"]["param"]) == (400, param)
