"""Requests that nobody means: each is refused by its field, none fails."""

import pytest

CHAT = "/v1/chat/completions"
USER = [{"role": "user", "content": "Hi"}]
SCHEMA = {"type": "object", "properties": {}}


def properties(count, **more):
    return {"type": "object", "properties": {f"p{n}": {} for n in range(count)}, **more}


def form(schema):
    return {"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"logit_bias": {"9" * 5000: 1}}, "logit_bias"),
        ({"logit_bias": {str(token): 1 for token in range(20_000)}}, "20000 tokens"),
        ({"messages": [{"role": "x", "content": "Hi"}]}, "assistant, tool"),
        ({"grammar": "root ::= root"}, "allows no text"),
        ({"grammar": 'start: start "a"'}, "allows no text"),
        (form({"$ref": "#"}), "allows no text"),
        (form({"type": "array", "items": properties(481)}), "#/items/properties: 481"),
        (form(properties(2001, required=[f"p{n}" for n in range(2001)])), "2001 properties"),
    ],
)
def test_it_is_refused(client, fields, said):
    status, value = client.post(CHAT, **{"messages": USER, "max_tokens": 4, **fields})
    assert status == 400, value
    assert said in value["error"]["message"]
    assert "None" not in value["error"]["message"]


@pytest.mark.parametrize(
    ("function", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "weather"}, "name"),
        ({"name": "other", "parameters": "x"}, "parameters"),
        ({"name": "other", "parameters": []}, "parameters"),
        ({"name": "other", "strict": "yes"}, "strict"),
        ({"name": "other", "description": 5}, "description"),
    ],
)
def test_a_tool_is_refused(caller, function, field):
    tools = [{"type": "function", "function": one} for one in ({"name": "weather"}, function)]
    status, value = caller.post(CHAT, messages=USER, tools=tools, max_tokens=4)
    assert status == 400, value
    assert value["error"]["param"] == f"tools[1].function.{field}"


def test_a_grammar_is_not_ignored_for_a_required_call(caller):
    tools = [{"type": "function", "function": {"name": "weather"}}]
    asked = {"messages": USER, "tools": tools, "max_tokens": 4, "grammar": 'start: "a"'}
    status, value = caller.post(CHAT, **asked, tool_choice="required")
    assert status == 400
    assert value["error"]["param"] == "grammar"


def test_true_is_not_one(client):
    status, value = client.post("/v1/completions", prompt="Hi", max_tokens=1, best_of=True)
    assert status == 400
    assert value["error"]["param"] == "best_of"
    assert client.post("/v1/completions", prompt="Hi", max_tokens=1, best_of=1.0)[0] == 200


def test_no_tool_has_the_name_of_a_choice(caller):
    status, value = caller.post(
        "/v1/messages",
        messages=USER,
        max_tokens=4,
        tools=[{"name": "weather", "input_schema": SCHEMA}],
        tool_choice={"type": "tool", "name": "required"},
    )
    assert status == 400, value


@pytest.mark.parametrize("tokens", [None, [4096], [-1], [10**30]])
def test_no_token_is_left_out(client, tokens):
    status, value = client.post("/detokenize", tokens=tokens)
    assert status == 400
    assert value["error"]["param"] == "tokens"


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/messages", "response_format"),
        ("/v1/messages", "stop"),
        ("/v1/messages", "logit_bias"),
        (CHAT, "stop_sequences"),
        (CHAT, "thinking"),
        (CHAT, "max_output_tokens"),
        ("/v1/completions", "input"),
    ],
)
def test_a_field_of_another_api_is_refused(client, path, field):
    body = {"messages": USER, "max_tokens": 4}
    if path == "/v1/completions":
        body = {"prompt": "Hi", "max_tokens": 4}
    status, value = client.post(path, **body, **{field: ["x"]})
    assert status == 400
    assert field in value["error"]["message"]


def test_tokens_of_a_conversation_beyond_the_context_are_counted(client):
    messages = [{"role": "user", "content": "hello " * 3000}]
    status, value = client.post("/v1/messages/count_tokens", messages=messages)
    assert status == 200
    assert value["input_tokens"] > 3000
    status, value = client.post(CHAT, messages=messages)
    assert status == 400
    assert value["error"]["code"] == "context_length_exceeded"
    assert "/clear" not in value["error"]["message"]


def test_methods_of_a_path_are_told(client):
    status, headers, _ = client.request("GET", CHAT)
    assert (status, headers["Allow"]) == (405, "POST")
