"""What a conversation holds: read, replaced, taken back, branched."""

import numpy as np
import pytest

from edgellm.errors import ConfigError, FormatError

LONG = {"max_position_embeddings": 2048}
GREEDY = {"temperature": 0, "max_tokens": 8}
HELLO = {"role": "user", "content": "Hello"}
CALL = {
    "id": "a1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Zürich"}'},
}


@pytest.fixture
def llm(open_llm):
    return open_llm("llama-2", seed=1, config=LONG)


@pytest.fixture
def chat(llm):
    return llm.chat("Be kind.", **GREEDY)


def turn(stream):
    """What a turn has computed of its prompt, and the text."""
    tokens = list(stream)
    stats = tokens[-1].stats
    return stats.prompt_tokens - stats.cached_tokens, "".join(token.text for token in tokens)


def test_messages_are_those_of_openais_clients(chat):
    parts = [{"type": "text", "text": "What "}, {"type": "text", "text": "now?"}]
    called = {"role": "assistant", "content": None, "refusal": None, "annotations": []}
    tool = {"role": "tool", "content": "sunny", "tool_call_id": "a1", "name": "weather"}
    chat.messages = (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": parts},
        called | {"tool_calls": [CALL]},
        tool,
    )
    assert chat.messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What now?"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        tool,
    ]
    chat.messages = [calling("f", {"x": 1})]
    [call] = chat.messages[0]["tool_calls"]
    assert call == {"type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}


def calling(name, arguments):
    function = {"name": name, "arguments": arguments}
    return {"role": "assistant", "tool_calls": [{"function": function}]}


def saying(content):
    return {"role": "user", "content": content}


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (3, "a message is 3, which is not a mapping"),
        ({"content": "Hello"}, "a message's role is None"),
        (HELLO | {"role": "bot"}, "role is 'bot'; it must be one of system, user"),
        ({"role": "user"}, "a message of the user has no content"),
        (saying(3), "content is 3; it must be a text"),
        (HELLO | {"contents": "x"}, "a message has 'contents'"),
        (HELLO | {"name": 3}, "a message's name is 3; it must be a text"),
        (saying([{"type": "image_url", "image_url": {}}]), "of type 'image_url'"),
        (saying([{"type": "text"}]), "a part of a message's content is"),
        ({"role": "assistant", "tool_calls": [{"name": "f"}]}, "a tool call is {'name': 'f'}"),
        (calling("f", 3), "the arguments of a call of f is 3"),
        (calling("f", {"x": b""}), "not JSON"),
    ],
    ids=str,
)
def test_what_is_no_message_is_told(chat, message, said):
    before = list(chat.messages)
    with pytest.raises(ConfigError) as caught:
        chat.messages = [message]
    assert said in caught.value.message
    assert chat.messages == before
    chat.messages.append(message)  # it is looked at when it counts
    with pytest.raises(ConfigError):
        chat.send("Hello")


@pytest.mark.parametrize("wrong", [3, None, [], b"Hello"])
def test_what_is_no_text_is_told(chat, wrong):
    with pytest.raises(ConfigError):
        chat.send(wrong)
    with pytest.raises(ConfigError, match="path is"):
        chat.save(3)
    with pytest.raises(ConfigError, match="path is"):
        chat.load(None)


def test_a_tools_answer_is_replied_to(chat):
    chat.messages = [HELLO, {"role": "assistant", "content": "", "tool_calls": [CALL]}]
    reply = chat.send({"role": "tool", "content": "sunny", "tool_call_id": "a1"})
    assert [message["role"] for message in chat.messages] == [
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    assert chat.messages[-1]["content"] == reply


def test_a_fork_goes_its_own_way_and_computes_nothing_twice(chat):
    first, _ = turn(chat.stream("Hello little dog. " * 20))
    twin = chat.fork()
    assert twin.messages == chat.messages
    mine, _ = turn(chat.stream("And then?"))
    theirs, _ = turn(twin.stream("Why?"))
    assert max(mine, theirs) < first / 4
    twin.messages[0]["content"] = "Be rude."
    twin.clear()
    assert chat.messages[0]["content"] == "Be kind."
    assert len(chat.messages) == 5


def test_regenerate_takes_the_place_of_a_reply(chat):
    chat.send("Hello little dog. " * 20)
    said = list(chat.messages)
    other = chat.regenerate(temperature=1.5, seed=3)
    assert chat.messages == [*said[:-1], {"role": "assistant", "content": other}]
    assert chat.regenerate() == said[-1]["content"]
    assert chat.messages == said
    assert len(chat.llm.prefix_cache) == 1, "no reply that is gone is kept"
    chat.messages.append({"role": "user", "content": "More"})
    assert chat.regenerate() == chat.messages[-1]["content"]
    assert [message["role"] for message in chat.messages[3:]] == ["user", "assistant"]
    chat.clear()
    with pytest.raises(ConfigError, match="nothing to reply to"):
        chat.regenerate()


def test_a_reply_stays_where_no_other_comes(chat):
    chat.send("Hello")
    said = list(chat.messages)
    with pytest.raises(ConfigError):
        chat.regenerate(temperature=-1)
    assert chat.messages == said


def test_undo_returns_the_last_exchange(chat):
    chat.send("Hello")
    chat.send("More")
    dropped = chat.undo()
    assert dropped[0] == {"role": "user", "content": "More"}
    assert len(dropped) == 2
    assert len(chat.undo()) == 2
    assert chat.undo() == []
    assert [message["role"] for message in chat.messages] == ["system"]


def test_tool_calls_are_saved_and_loaded(chat, tmp_path):
    chat.messages = [
        HELLO | {"name": "Ann"},
        {"role": "assistant", "content": "", "reasoning_content": "hm", "tool_calls": [CALL]},
        {"role": "tool", "content": "sunny", "tool_call_id": "a1"},
    ]
    said = list(chat.messages)
    chat.save(str(tmp_path / "talk.json"))
    chat.clear()
    chat.load(tmp_path / "talk.json")
    assert chat.messages == said
    (tmp_path / "talk.json").write_text('{"messages": [{"role": "bot", "content": ""}]}')
    with pytest.raises(FormatError):
        chat.load(str(tmp_path / "talk.json"))


def test_a_reply_whose_time_is_over_ends(chat):
    *_, last = chat.stream("Hello", timeout=1e-9)
    assert last.finish_reason == "timeout"
    chat.send("Hello")
    said = list(chat.messages)
    assert chat.regenerate(timeout=1e-9) == ""
    assert chat.messages == said, "what was there stays where no reply comes"


def test_messages_that_were_changed_into_something_else_are_refused(open_llm):
    chat = open_llm("llama-2").chat()
    chat.messages.append("Hello")
    for call in (chat.undo, chat.clear, chat.regenerate, lambda: chat.set_system("Be brief.")):
        with pytest.raises(ConfigError, match="mapping"):
            call()
    chat.messages = []
    with pytest.raises(ConfigError, match="part"):
        chat.send({"role": "user", "content": np.array([1])})
