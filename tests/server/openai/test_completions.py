"""Completions of texts, whole and streamed, beside the Python API."""

import pytest

PATH = "/v1/completions"
TEXT = "Once upon a time"


def test_the_text_is_that_of_the_python_api_whole_and_streamed(stories, client):
    expected = stories.generate(TEXT, max_tokens=12).text
    ids = stories.tokenizer.encode(TEXT)
    status, whole = client.post(PATH, prompt=TEXT, max_tokens=12)
    assert (status, whole["object"]) == (200, "text_completion")
    (choice,) = whole["choices"]
    assert choice == {"index": 0, "text": expected, "logprobs": None, "finish_reason": "length"}
    details = {"cached_tokens": whole["usage"]["prompt_tokens_details"]["cached_tokens"]}
    assert whole["usage"] == {
        "prompt_tokens": len(ids),
        "completion_tokens": 12,
        "total_tokens": len(ids) + 12,
        "prompt_tokens_details": details,
    }
    events = client.events(PATH, prompt=TEXT, max_tokens=12)
    assert events.pop()[1] == "[DONE]"
    assert "".join(value["choices"][0]["text"] for _, value in events) == expected
    assert [value["choices"][0]["finish_reason"] for _, value in events[-2:]] == [None, "length"]


def test_several_prompts_have_several_choices_each(stories, client):
    prompts = [TEXT, "The cat"]
    settings = {"max_tokens": 4, "temperature": 1, "seed": 3}
    _, alone = client.post(PATH, prompt=prompts[1], **settings)
    _, value = client.post(PATH, prompt=prompts, n=2, **settings)
    assert [choice["index"] for choice in value["choices"]] == [0, 1, 2, 3]
    assert value["choices"][2]["text"] == alone["choices"][0]["text"]
    encoded = [stories.tokenizer.encode(prompt) for prompt in prompts]
    assert value["usage"]["prompt_tokens"] == sum(map(len, encoded))
    assert value["usage"]["completion_tokens"] == 16
    _, of_ids = client.post(PATH, prompt=encoded, max_tokens=3)
    for choice, ids in zip(of_ids["choices"], encoded, strict=True):
        assert choice["text"] == stories.generate(ids, max_tokens=3).text


def test_logprobs_are_in_the_old_form_also_of_the_prompt(stories, client):
    expected = stories.generate(TEXT, max_tokens=3, top_logprobs=2, prompt_logprobs=2)
    body = {"prompt": TEXT, "max_tokens": 3, "logprobs": 2, "echo": True}
    _, value = client.post(PATH, **body)
    (choice,) = value["choices"]
    assert choice["text"] == TEXT + expected.text
    found = choice["logprobs"]
    of_prompt, of_tokens = expected.prompt_logprobs, expected.tokens
    logprobs = [*(one.logprob for one in of_prompt), *(one.logprob for one in of_tokens)]
    assert found["token_logprobs"][0] is None
    assert found["token_logprobs"][1:] == pytest.approx(logprobs[1:], abs=1e-4)
    assert found["top_logprobs"][0] is None
    assert all(len(tops) == 2 for tops in found["top_logprobs"][1:])
    ends = [*found["text_offset"][1:], len(choice["text"])]
    pieces = [
        choice["text"][begin:end] for begin, end in zip(found["text_offset"], ends, strict=True)
    ]
    assert [piece.strip() for piece in pieces[1:]] == [text.strip() for text in found["tokens"][1:]]
    events = client.events(PATH, **body)[:-1]
    streamed = [value["choices"][0] for _, value in events]
    assert "".join(one["text"] for one in streamed) == choice["text"]
    offsets = [offset for one in streamed for offset in one["logprobs"]["text_offset"]]
    assert offsets == found["text_offset"]
    _, plain = client.post(PATH, prompt=TEXT, max_tokens=3, logprobs=0)
    assert plain["choices"][0]["logprobs"]["top_logprobs"] == [None] * 3


@pytest.mark.parametrize("grammar", ['root ::= "yes" | "no"', 'start: "yes" | "no"'])
def test_a_grammar_holds(client, grammar):
    _, value = client.post(PATH, prompt=TEXT, grammar=grammar)
    (choice,) = value["choices"]
    assert choice["text"].strip() in {"yes", "no"}
    assert choice["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": ["a"] * 300}, "prompt"),
        ({"prompt": ["a"] * 9, "n": 64}, "n"),
        ({"suffix": "b"}, "suffix"),
        ({"best_of": 2}, "best_of"),
        ({"logprobs": 6}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"echo": 1}, "echo"),
        ({"guided_json": {}}, "guided_json"),
        ({"grammar": "root ::= ("}, "grammar"),
    ],
)
def test_what_is_wrong_is_refused_by_its_name(client, fields, param):
    status, value = client.post(PATH, **{"prompt": TEXT, **fields})
    assert (status, value["error"]["param"]) == (400, param)


def test_a_token_outside_the_vocabulary_is_refused(client):
    status, value = client.post(PATH, prompt=[10**9])
    assert status == 400
    assert "vocabulary" in value["error"]["message"]
