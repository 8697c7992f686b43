"""Chat completions, whole and streamed, beside the Python API."""

import json

import jsonschema
import pytest

PATH = "/v1/chat/completions"
TEXT = "Tell me a story about a small boat."
MESSAGES = [{"role": "user", "content": TEXT}]


def expected(stories, **settings):
    return stories.chat(temperature=0).send(TEXT, **settings)


def test_the_reply_is_that_of_the_python_api_whole_and_streamed(stories, client):
    text = expected(stories, max_tokens=24)
    whole = client.chat(TEXT, max_tokens=24)
    (choice,) = whole["choices"]
    assert choice["message"] == {"role": "assistant", "content": text, "refusal": None}
    assert choice["finish_reason"] == "length"
    assert whole["usage"]["completion_tokens"] == 24
    events = client.events(PATH, messages=MESSAGES, max_tokens=24)
    assert events.pop()[1] == "[DONE]"
    deltas = [value["choices"][0]["delta"] for _, value in events]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(delta.get("content", "") for delta in deltas) == text
    assert all("usage" not in value for _, value in events)


def test_usage_comes_once_where_it_is_asked_for(client):
    options = {"include_usage": True}
    events = client.events(PATH, messages=MESSAGES, max_tokens=3, stream_options=options)
    *chunks, (_, last), (_, done) = events
    assert done == "[DONE]"
    assert [value["usage"] for _, value in chunks] == [None] * len(chunks)
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 3


def test_the_first_of_several_choices_is_the_one_alone(client):
    settings = {"max_tokens": 8, "temperature": 1, "seed": 7}
    alone = client.chat(TEXT, **settings)["choices"][0]
    choices = client.chat(TEXT, n=3, **settings)["choices"]
    assert choices[0] == alone
    assert [choice["index"] for choice in choices] == [0, 1, 2]
    assert len({choice["message"]["content"] for choice in choices}) > 1
    streamed = {0: "", 1: "", 2: ""}
    for _, value in client.events(PATH, messages=MESSAGES, n=3, **settings)[:-1]:
        choice = value["choices"][0]
        streamed[choice["index"]] += choice["delta"].get("content", "")
    assert list(streamed.values()) == [one["message"]["content"] for one in choices]


def test_what_is_left_out_of_max_tokens_is_the_rest_of_the_context(client, stories):
    usage = client.chat(TEXT, stop=["."])["usage"]
    assert usage["completion_tokens"] < stories.context
    usage = client.chat(TEXT, max_completion_tokens=5, max_tokens=9)["usage"]
    assert usage["completion_tokens"] == 5


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": -1}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"stop": [1]}, "stop"),
        ({"audio": {"voice": "a"}}, "audio"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": [{"role": "assistant", "function_call": {}}]}, "messages[0].function_call"),
        ({"stream": "yes"}, "stream"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"not": {}}}}},
            "response_format.json_schema.schema",
        ),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"logit_bias": {"a": 1}}, "logit_bias"),
    ],
)
def test_what_is_wrong_is_refused_by_its_name(client, fields, param):
    status, value = client.post(PATH, **{"messages": MESSAGES, **fields})
    assert (status, value["error"]["param"]) == (400, param)
    assert value["error"]["type"] == "invalid_request_error"


def test_another_model_is_not_here(client):
    status, value = client.post(PATH, messages=MESSAGES, model="gpt-5")
    assert (status, value["error"]["code"]) == (404, "model_not_found")
    assert "stories" in value["error"]["message"]


def test_a_prompt_longer_than_the_context_is_refused(client):
    messages = [{"role": "user", "content": "boat " * 3000}]
    status, value = client.post(PATH, messages=messages)
    assert (status, value["error"]["code"]) == (400, "context_length_exceeded")


def test_a_schema_holds_whole_and_streamed(client):
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "boat", "schema": schema}}
    (choice,) = client.chat(TEXT, response_format=form, max_tokens=60)["choices"]
    assert choice["finish_reason"] == "stop"
    jsonschema.validate(json.loads(choice["message"]["content"]), schema)
    events = client.events(PATH, messages=MESSAGES, response_format=form, max_tokens=60)
    texts = [value["choices"][0]["delta"].get("content", "") for _, value in events[:-1]]
    assert "".join(texts) == choice["message"]["content"]
    (short,) = client.chat(TEXT, response_format=form, max_tokens=2)["choices"]
    assert short["finish_reason"] == "length"
    drawn = client.chat(TEXT, response_format=form, n=2, temperature=1, seed=1, max_tokens=60)
    for one in drawn["choices"]:
        jsonschema.validate(json.loads(one["message"]["content"]), schema)


def test_penalties_and_biases_change_the_answer(client, stories):
    plain = client.chat(TEXT, max_tokens=24)["choices"][0]["message"]["content"]
    for settings in ({"presence_penalty": 2.0}, {"frequency_penalty": 2.0}):
        found = client.chat(TEXT, max_tokens=24, **settings)["choices"][0]["message"]["content"]
        assert found == expected(stories, max_tokens=24, **settings)
        assert found != plain
    first = client.chat(TEXT, max_tokens=1, logprobs=True)["choices"][0]["logprobs"]["content"][0]
    written = bytes(first["bytes"])
    tokenizer = stories.tokenizer
    size = tokenizer.vocab_size
    banned = {str(one): -100 for one in range(size) if tokenizer.token_bytes(one) == written}
    other = client.chat(TEXT, max_tokens=1, logit_bias=banned, logprobs=True)
    assert other["choices"][0]["logprobs"]["content"][0]["token"] != first["token"]
