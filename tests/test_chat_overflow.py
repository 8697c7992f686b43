"""A full context: who leaves it, and what is told."""

import re

import pytest

from edgellm.chat.overflow import drop_oldest
from edgellm.errors import ConfigError, ContextError

SENTENCE = "Once upon a time there was a house. "


def test_the_oldest_exchanges_leave(open_llm):
    llm = open_llm("llama-2", load={"context": 128})
    chat = llm.chat("Be kind.", overflow="drop_oldest", max_tokens=12, temperature=0)
    said = []
    dropped = []
    for number in range(8):
        said.append(f"{number} {SENTENCE}")
        *_, last = chat.stream(said[-1])
        assert last.finish_reason == "stop" or last.stats.completion_tokens == 12
        dropped += chat.dropped
    assert dropped
    assert chat.messages[0] == {"role": "system", "content": "Be kind."}
    assert [one["content"] for one in [*dropped, *chat.messages] if one["role"] == "user"] == said
    assert dropped[0]["role"] == chat.messages[1]["role"] == "user"


def test_a_message_that_is_too_long_alone_is_refused(open_llm):
    chat = open_llm("llama-2", load={"context": 128}).chat(overflow="drop_oldest", max_tokens=5)
    chat.send("Hello")
    said = list(chat.messages)
    with pytest.raises(ContextError, match="more than the context of 128"):
        chat.send(SENTENCE * 20)
    assert chat.messages == said
    chat.overflow = "error"
    assert chat.send("Hi", max_tokens=3)
    with pytest.raises(ConfigError, match="overflow is 'shift'"):
        chat.llm.chat(overflow="shift")


def test_few_leave_and_not_at_every_turn():
    messages = [{"role": "user", "content": str(place)} for place in range(20)]

    def tokens_of(some):
        return 10 * len(some)

    assert drop_oldest(messages, tokens_of, context=230, max_tokens=30) == (messages, [])
    stays, gone = drop_oldest(messages, tokens_of, context=220, max_tokens=30)
    assert gone + stays == messages
    assert len(stays) == (220 - 30 - 55) // 10
    # a reply may be longer than the context
    assert drop_oldest(messages[:3], tokens_of, context=60, max_tokens=1000)[1] == []
    # what alone is too long stays alone
    assert drop_oldest(messages, lambda some: 500, context=60, max_tokens=9)[0] == messages[-1:]
    assert drop_oldest(messages[:1], lambda some: 500, context=60, max_tokens=9)[1] == []


@pytest.mark.parametrize("load", [{"context": 64}, {"context": 64, "kv_bits": 8}, {}])
def test_the_hint_says_what_helps(load, open_llm):
    """And it does: a model that is loaded so has that context."""
    config = {"max_position_embeddings": 2048}
    llm = open_llm("llama-2", config=config, load=load)
    with pytest.raises(ContextError) as caught:
        llm.chat().send(SENTENCE * 400)
    assert "/clear" in caught.value.hint
    if not load:
        assert "2048 tokens are the model's maximum" in caught.value.hint
        return
    [context] = re.findall(r"--context (\d+) fits", caught.value.hint)
    roomy = open_llm("llama-2", config=config, load=load | {"context": int(context)})
    assert roomy.context == int(context)


def test_the_hint_counts_what_fewer_bits_hold(open_llm):
    config, exact = {"max_position_embeddings": 1 << 20}, {"kv_bits": 32}
    llm = open_llm("llama-2", config=config, load={"context": 64, "memory": "6MB"} | exact)
    with pytest.raises(ContextError) as caught:
        llm.chat().send(SENTENCE * 10)
    [plain] = re.findall(r"--context (\d+) fits", caught.value.hint)
    [fewer] = re.findall(r"with --kv-bits 8 it holds (\d+)", caught.value.hint)
    assert int(fewer) > 1.5 * int(plain)
    llm.close()
    for context, bits in ((plain, exact), (fewer, {"kv_bits": 8})):
        load = {"context": int(context), "memory": "6MB"} | bits
        assert open_llm("llama-2", config=config, load=load).plan.resident == llm.plan.resident
