"""The bundled model behind a server of this process, and one that thinks and calls tools."""

from contextlib import contextmanager

import pytest
from support.scripted import write_scripted
from support.served import served

import edgellm

TEMPLATE = (
    "{% for tool in tools or [] %}<|tool|>{{ tool | tojson }}<|end|>{% endfor %}"
    "{% for message in messages %}<|{{ message.role }}|>"
    "{% if message.reasoning_content %}<think>{{ message.reasoning_content }}</think>{% endif %}"
    "{{ message.content }}"
    "{% for call in message.tool_calls or [] %}"
    '<tool_call>{"name": "{{ call.function.name }}", '
    '"arguments": {{ call.function.arguments | tojson }}}</tool_call>'
    "{% endfor %}<|end|>{% endfor %}<|assistant|>"
    "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}"
)
CALL = (
    '<tool_call>{"name": "weather", ',
    '"arguments": {"city": "Oslo", "days": 3}}',
    "</tool_call>",
)
AGAIN = '<tool_call>{"name": "weather", "arguments": {"city": "Rome"}}</tool_call>'
REPLY = "<think>Is wet?</think>Hm.\n" + "".join(CALL)


@pytest.fixture(scope="package")
def stories():
    with edgellm.load("stories") as llm:
        yield llm


@pytest.fixture(scope="package")
def client(stories):
    with served(stories, name="stories") as client:
        yield client


@pytest.fixture(scope="package")
def caller(tmp_path_factory):
    """A client of a model that thinks, says "Hm." and calls ``weather``, whatever it is asked."""
    with calling(tmp_path_factory.mktemp("caller") / "model", REPLY) as client:
        yield client


@pytest.fixture(scope="package")
def twice(tmp_path_factory):
    """A client of a model that does the same, and calls it once more."""
    with calling(tmp_path_factory.mktemp("twice") / "model", REPLY + AGAIN) as client:
        yield client


@contextmanager
def calling(folder, reply):
    write_scripted(folder, reply, TEMPLATE, added=[*CALL, AGAIN, "<think>", "</think>"])
    with (
        edgellm.load(folder, memory="500MB", threads=1) as llm,
        served(llm, name="caller") as client,
    ):
        yield client
