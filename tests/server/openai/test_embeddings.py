"""Embeddings as numbers and as base64, beside the Python API."""

import base64
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest

PATH = "/v1/embeddings"
TEXTS = ["A small boat.", "A cat sleeps in the sun."]


def test_vectors_are_those_of_the_python_api(stories, client):
    expected = stories.embed(TEXTS)
    status, value = client.post(PATH, input=TEXTS)
    assert (status, value["object"], value["model"]) == (200, "list", "stories")
    found = [one["embedding"] for one in value["data"]]
    assert np.array_equal(np.array(found, np.float32), expected)
    assert [one["index"] for one in value["data"]] == [0, 1]
    tokens = sum(len(stories.tokenizer.encode(text)) for text in TEXTS)
    assert value["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    ids = stories.tokenizer.encode(TEXTS[1])
    _, coded = client.post(PATH, input=[ids], encoding_format="base64")
    (one,) = coded["data"]
    vector = np.frombuffer(base64.b64decode(one["embedding"]), "<f4")
    assert np.array_equal(vector, stories.embed([ids])[0])


def test_many_inputs_are_those_alone(stories, client):
    inputs = [f"The {number} boats are small. " * 60 for number in range(12)]
    assert sum(len(stories.tokenizer.encode(text)) for text in inputs) > 4096
    _, value = client.post(PATH, input=inputs)
    found = np.array([one["embedding"] for one in value["data"]], np.float32)
    assert np.array_equal(found[[0, 11]], stories.embed([inputs[0], inputs[11]]))


def disconnects(client):
    metrics = client.request("GET", "/metrics")[2].decode()
    return int(re.search(r"disconnects_total (\d+)", metrics)[1])


def test_who_leaves_is_not_waited_for(client):
    long = {"prompt": "Once upon a time", "max_tokens": 400, "stop": ["never this"]}
    before, has_left = disconnects(client), threading.Event()

    def answer():
        while not has_left.is_set():
            client.post("/v1/completions", **long)

    def leave():
        while not has_left.is_set():  # one may come when no answer is under way
            with suppress(TimeoutError):
                client.request("POST", PATH, {"model": "stories", "input": TEXTS}, timeout=0.01)
                continue
            has_left.set()

    with ThreadPoolExecutor(3) as clients:
        for ended in [clients.submit(work) for work in (answer, answer, leave)]:
            ended.result()
    while disconnects(client) == before:  # else the test ends in its timeout
        time.sleep(0.01)
    assert client.post(PATH, input="And on.")[0] == 200


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"input": None}, "input"),
        ({"input": [["a"]]}, "input"),
        ({"dimensions": 8}, "dimensions"),
        ({"encoding_format": "int8"}, "encoding_format"),
    ],
)
def test_what_is_wrong_is_refused_by_its_name(client, fields, param):
    status, value = client.post(PATH, **{"input": TEXTS, **fields})
    assert (status, value["error"]["param"]) == (400, param)
