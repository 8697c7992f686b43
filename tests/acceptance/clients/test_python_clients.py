"""The libraries that people call servers with: openai, anthropic, langchain-openai, llm."""

import json
import os
import subprocess
import sys

import pytest

from .conftest import TEXT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

MESSAGES = [{"role": "user", "content": TEXT}]
SETTINGS = {"model": "stories", "temperature": 0, "max_tokens": 24}

ANTHROPIC = {"model": "stories", "max_tokens": 24, "extra_body": {"temperature": 0}}
"""Its library knows no temperature any more; the API does."""


@pytest.fixture
def openai(url):
    library = pytest.importorskip("openai")
    with library.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def anthropic(url):
    library = pytest.importorskip("anthropic")
    with library.Anthropic(base_url=url, auth_token="none", max_retries=0) as client:
        yield client


def test_openai_reads_a_chat_completion_whole_and_streamed(openai, told):
    whole = openai.chat.completions.create(messages=MESSAGES, **SETTINGS)
    assert whole.choices[0].message.content == told
    assert whole.usage.completion_tokens == 24
    text, usage = "", None
    stream = openai.chat.completions.create(
        messages=MESSAGES, stream=True, stream_options={"include_usage": True}, **SETTINGS
    )
    for chunk in stream:
        for choice in chunk.choices:
            text += choice.delta.content or ""
        usage = chunk.usage or usage
    assert text == told
    assert usage.completion_tokens == 24


def test_openais_own_accumulator_returns(openai):
    # it raises where an answer ends by its length, so that one has to end by itself
    with openai.chat.completions.stream(
        model="stories", temperature=0, stop=["."], messages=MESSAGES
    ) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    assert final.choices[0].finish_reason == "stop"
    assert "." not in final.choices[0].message.content


def test_openai_gets_logprobs_that_add_up(openai):
    answer = openai.chat.completions.create(
        messages=MESSAGES, logprobs=True, top_logprobs=3, **SETTINGS
    )
    tokens = answer.choices[0].logprobs.content
    assert len(tokens) == 24
    assert b"".join(bytes(token.bytes) for token in tokens).decode().strip() == (
        answer.choices[0].message.content.strip()
    )
    for token in tokens:
        assert token.top_logprobs[0].logprob == token.logprob  # nothing is drawn
        assert len(token.top_logprobs) == 3


def test_openai_lists_models_completes_and_embeds(openai):
    assert [model.id for model in openai.models.list()] == ["stories"]
    assert openai.models.retrieve("stories").id == "stories"
    answer = openai.completions.create(model="stories", prompt="Once upon a time", max_tokens=8)
    assert answer.usage.completion_tokens == 8
    vectors = openai.embeddings.create(model="stories", input=["a boat", "a dog"]).data
    assert len(vectors) == 2
    as_floats = openai.embeddings.create(
        model="stories", input="a boat", encoding_format="float"
    ).data[0]
    assert as_floats.embedding == pytest.approx(vectors[0].embedding, abs=1e-6)


def test_openais_errors_name_the_field(openai):
    library = pytest.importorskip("openai")
    with pytest.raises(library.BadRequestError) as failed:
        openai.chat.completions.create(model="stories", messages=MESSAGES, temperature=9)
    assert failed.value.param == "temperature"
    with pytest.raises(library.NotFoundError):
        openai.chat.completions.create(model="gpt-5", messages=MESSAGES)


def test_anthropic_reads_a_message_whole_and_streamed(anthropic, told):
    whole = anthropic.messages.create(messages=MESSAGES, **ANTHROPIC)
    assert whole.content[0].text == told
    assert whole.stop_reason == "max_tokens"
    assert whole.usage.output_tokens == 24
    with anthropic.messages.stream(messages=MESSAGES, **ANTHROPIC) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == told
    assert final.usage.output_tokens == 24
    counted = anthropic.messages.count_tokens(model="stories", messages=MESSAGES)
    assert counted.input_tokens == whole.usage.input_tokens


def test_anthropic_is_told_which_stop_text_came(anthropic):
    answer = anthropic.messages.create(
        messages=MESSAGES, stop_sequences=["."], **{**ANTHROPIC, "max_tokens": 200}
    )
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", ".")


def test_anthropics_errors_are_its_own(anthropic):
    library = pytest.importorskip("anthropic")
    with pytest.raises(library.BadRequestError):
        anthropic.messages.create(messages=[], **ANTHROPIC)
    with pytest.raises(library.NotFoundError):
        anthropic.messages.create(model="other", max_tokens=1, messages=MESSAGES)


def test_langchain_streams_and_counts(url, told):
    library = pytest.importorskip("langchain_openai")
    chat = library.ChatOpenAI(base_url=f"{url}/v1", api_key="none", **SETTINGS)
    assert chat.invoke(TEXT).content == told
    chunks = list(chat.stream(TEXT))
    assert "".join(chunk.content for chunk in chunks) == told


def test_llm_answers_on_the_command_line(url, told, tmp_path):
    pytest.importorskip("llm")
    model = {"model_id": "stories", "model_name": "stories", "api_base": f"{url}/v1"}
    (tmp_path / "extra-openai-models.yaml").write_text(json.dumps([model]))
    command = [sys.executable, "-m", "llm", "-m", "stories", TEXT]
    command += ["-o", "temperature", "0", "-o", "max_tokens", "24", "--key", "none", "--no-log"]
    done = subprocess.run(
        command,
        env={**os.environ, "LLM_USER_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.rstrip("\n") == told.rstrip("\n"), done.stderr
