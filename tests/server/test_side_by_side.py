"""Streamed and whole, alone and side by side, resident and paged: texts are those of generate."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from support.counting import paged_settings
from support.served import served

TEXTS = [
    f"{beginning} {thing}."
    for beginning in ("Once upon a time there was a", "Tom wanted a", "The girl saw a", "I like my")
    for thing in ("boat", "dog that could sing", "big red ball in the garden", "cake", "bird")
]
TOKENS = 6


@pytest.fixture(scope="module", params=["resident", "paged"])
def model(request, stories, tmp_path_factory):
    """The bundled model, in memory or with layers that stream from disk."""
    if request.param == "resident":
        yield stories
        return
    import edgellm

    with edgellm.load("stories", **paged_settings(stories.path, context=256)) as llm:
        assert not llm.plan.resident
        yield llm


def ask(client, text, *, streamed):
    body = {"prompt": text, "max_tokens": TOKENS}
    if not streamed:
        return client.post("/v1/completions", **body)[1]["choices"][0]["text"]
    events = client.events("/v1/completions", **body)
    return "".join(value["choices"][0]["text"] for _, value in events[:-1])


@pytest.mark.parametrize("at_once", [1, 8, 32])
def test_texts_are_those_of_generate(model, at_once):
    asked = (TEXTS * 2)[:at_once]
    alone = {text: model.generate(text, max_tokens=TOKENS).text for text in set(asked)}
    with served(model) as client, ThreadPoolExecutor(at_once) as clients:
        for streamed in (False, True):
            texts = clients.map(lambda text, how=streamed: ask(client, text, streamed=how), asked)
            assert list(texts) == [alone[text] for text in asked]
