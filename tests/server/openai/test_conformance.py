"""What clients rely on, whichever way they ask."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.served import served

PATH = "/v1/chat/completions"
TEXT = "Tell me a story about a small boat."
MESSAGES = [{"role": "user", "content": TEXT}]
CHARACTERS = "na\u00efve \U0001f600\U0001f468\u200d\U0001f469 \u65e5\u672c\u2028"


def test_parts_are_one_text_and_a_developer_is_the_system(client):
    system = {"role": "system", "content": "Be kind."}
    plain = client.post(PATH, messages=[system, *MESSAGES], max_tokens=8)[1]["choices"]
    parts = [{"type": "text", "text": TEXT[:9]}, {"type": "text", "text": TEXT[9:]}]
    messages = [{"role": "developer", "content": "Be kind."}, {"role": "user", "content": parts}]
    assert client.post(PATH, messages=messages, max_tokens=8)[1]["choices"] == plain
    image = [{"type": "image_url", "image_url": {"url": "data:,"}}]
    status, value = client.post(PATH, messages=[{"role": "user", "content": image}])
    assert (status, value["error"]["param"]) == (400, "messages")
    assert "image_url" in value["error"]["message"]


def test_characters_are_never_split_and_have_their_bytes(client):
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"const": CHARACTERS}}}
    body = {"messages": MESSAGES, "response_format": form, "logprobs": True}
    events = client.events(PATH, **body)[:-1]
    deltas = [value["choices"][0]["delta"].get("content", "") for _, value in events]
    assert not any("\ufffd" in text for text in deltas)
    assert max(map(len, deltas)) < 4
    text = "".join(deltas)
    assert json.loads(text) == CHARACTERS
    logprobs = [value["choices"][0]["logprobs"] for _, value in events]
    entries = [one for some in logprobs if some for one in some["content"]]
    written = b"".join(bytes(one["bytes"]) for one in entries)
    assert written.decode().strip() == text.strip()
    (choice,) = client.post(PATH, **body)[1]["choices"]
    assert (choice["message"]["content"], choice["logprobs"]["content"]) == (text, entries)


def test_logprobs_are_those_of_the_python_api(client, stories):
    tokens = list(stories.chat(temperature=0).stream(TEXT, max_tokens=4, top_logprobs=3))
    (choice,) = client.chat(TEXT, max_tokens=4, logprobs=True, top_logprobs=3)["choices"]
    for token, entry in zip(tokens, choice["logprobs"]["content"], strict=True):
        assert entry["logprob"] == pytest.approx(token.logprob, abs=1e-3)
        assert bytes(entry["bytes"]) == stories.tokenizer.token_bytes(token.id)
        assert [top["token"] for top in entry["top_logprobs"]] == [
            top.text for top in token.top_logprobs
        ]


def test_answers_side_by_side_are_those_alone(client, stories):
    prompts = ["Once upon a time", "The dog", "Lily had a red ball. One day", "A bird"] * 4
    alone = {prompt: stories.generate(prompt, max_tokens=12).text for prompt in set(prompts)}

    def ask(place):
        body = {"prompt": prompts[place], "max_tokens": 12}
        if place % 2:
            return client.post("/v1/completions", **body)[1]["choices"][0]["text"]
        events = client.events("/v1/completions", **body)[:-1]
        return "".join(value["choices"][0]["text"] for _, value in events)

    with ThreadPoolExecutor(len(prompts)) as pool:
        assert list(pool.map(ask, range(len(prompts)))) == [alone[prompt] for prompt in prompts]


def test_a_second_turn_comes_from_the_cache(client):
    first = client.chat(TEXT * 8, max_tokens=4)
    reply = first["choices"][0]["message"]
    messages = [{"role": "user", "content": TEXT * 8}, reply, {"role": "user", "content": "On!"}]
    _, second = client.post(PATH, messages=messages, max_tokens=1)
    cached = second["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert cached >= first["usage"]["prompt_tokens"] - 4


def test_an_answer_whose_time_is_over_says_so(stories):
    body = {"messages": MESSAGES, "stop": ["never this"], "temperature": 1}
    with served(stories, name="stories", timeout=0.01) as client:
        status, headers, text = client.request("POST", PATH, {"model": "stories", **body})
        assert (status, json.loads(text)["error"]["code"]) == (504, "timeout")
        assert headers["x-should-retry"] == "false"
        last = client.events(PATH, **body)[-1][1]
        assert last["error"]["code"] == "timeout"
        name, last = client.events("/v1/messages", messages=MESSAGES, max_tokens=900)[-1]
        assert (name, last["error"]["type"]) == ("error", "timeout_error")
        name, last = client.events("/v1/responses", input=TEXT, stop=["never this"])[-1]
        assert (name, last["type"], last["code"]) == ("error", "error", "timeout")
