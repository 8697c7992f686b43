"""A conversation that another process goes on with."""

import io
import json
import sys

import pytest
from support.disk_limits import file_size_limit, no_umask, open_to_others

from edgellm.cli import app as cli
from edgellm.errors import ConversionError
from edgellm.files.locations import cache_folder
from edgellm.repl.last_chat import continue_last_chat, last_chat_file, save_last_chat

LONG = {"max_position_embeddings": 2048}
SAYINGS = [
    "Hello little dog, where have you been all this time?",
    "And what did the big red ball do then, near the river?",
]


@pytest.fixture(autouse=True)
def own_caches(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tmp_path in cache_folder().parents


@pytest.fixture
def chat(open_llm, tmp_path):
    """A function that begins a conversation as a new process would."""

    def begin(**load):
        llm = open_llm(
            "llama-2",
            seed=1,
            config=LONG,
            load={"prompt_cache": tmp_path / "kept", "speculate": "off"} | load,
        )
        return llm.chat(
            system="Be kind to everybody who asks, and brief.",
            temperature=1.0,
            seed=7,
            max_tokens=60,
        )

    return begin


def test_a_conversation_goes_on_in_another_process_and_computes_only_what_is_new(chat):
    first = chat()
    assert not continue_last_chat(first)
    first.send(SAYINGS[0])
    save_last_chat(first)
    first.llm.close()
    whole = chat(prompt_cache=False)
    whole.send(SAYINGS[0])
    expected = list(whole.stream(SAYINGS[1]))
    second = chat()
    assert continue_last_chat(second)
    found = list(second.stream(SAYINGS[1]))
    assert [token.id for token in found] == [token.id for token in expected]
    assert second.messages == whole.messages
    stats = found[-1].stats
    assert stats.cached_tokens == expected[-1].stats.cached_tokens, (
        "the answer's own tokens are known again"
    )
    assert stats.restored_tokens == stats.cached_tokens > 100


def test_nothing_said_is_nothing_kept(chat):
    conversation = chat()
    save_last_chat(conversation)
    assert not last_chat_file(conversation).exists()


@pytest.mark.parametrize(
    "said",
    [None, 3, {"text": 4}, {"text": "a", "ids": [1, -2]}, {"text": "a", "ids": [True]}],
    ids=str,
)
def test_what_was_said_is_only_believed_where_it_can_be(chat, said):
    conversation = chat()
    conversation.send(SAYINGS[0])
    save_last_chat(conversation)
    path = last_chat_file(conversation)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"said": said}))
    again = chat()
    assert continue_last_chat(again)
    assert again.messages == conversation.messages
    assert again.send(SAYINGS[1])


@pytest.mark.parametrize(
    "damaged",
    ["[]", '{"edgellm_chat": 1, "mess', '{"messages": [{"role": "user"}]}'],
    ids=["no object", "cut off", "no message"],
)
def test_a_damaged_conversation_is_kept_beside_and_a_new_one_begins(chat, damaged, capsys):
    conversation = chat()
    path = last_chat_file(conversation)
    path.parent.mkdir(parents=True)
    path.write_text(damaged, encoding="utf-8")
    assert not continue_last_chat(conversation)
    said = capsys.readouterr().err
    assert "cannot continue the last conversation: " in said
    assert ".refused.json\n" in said
    assert path.with_suffix(".refused.json").read_text(encoding="utf-8") == damaged
    assert conversation.messages[0]["role"] == "system", "what was asked for now stays"
    assert conversation.send(SAYINGS[0])
    save_last_chat(conversation)
    assert continue_last_chat(chat())
    path.unlink()
    path.mkdir()
    assert not continue_last_chat(chat())
    assert path.with_suffix(".refused.json").read_text(encoding="utf-8") == damaged
    assert path.with_suffix(".refused-2.json").is_dir()


def test_a_conversation_that_is_longer_than_the_context_loses_its_beginning(chat):
    conversation = chat(context=2048)
    for saying in SAYINGS * 2:
        conversation.send(saying)
    save_last_chat(conversation)
    again = chat(context=300)
    assert continue_last_chat(again)
    assert again.send(SAYINGS[0])
    assert again.dropped
    assert again.messages[0]["role"] == "system"


def run(monkeypatch, capsys, *arguments, lines=()):
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    code = cli.main([str(argument) for argument in arguments])
    found = capsys.readouterr()
    return code, found.out, found.err


def test_chat_continue_on_the_command_line(monkeypatch, capsys, tiny_folder):
    model = tiny_folder("llama-2", seed=1, config=LONG)
    options = ["--memory", "500MB", "--temperature", 0, "--max-tokens", 20]
    code, together, _ = run(monkeypatch, capsys, "chat", model, *options, lines=SAYINGS)
    assert code == 0
    assert not (cache_folder() / "chats").exists(), "a script's conversation is not the last one"
    answers = [
        run(monkeypatch, capsys, "chat", model, "--continue", *options, lines=[line])[1]
        for line in SAYINGS
    ]
    assert "".join(answers) == together
    [kept] = (cache_folder() / "chats").iterdir()
    assert [message["role"] for message in json.loads(kept.read_text())["messages"]] == [
        "user",
        "assistant",
    ] * 2


def test_it_is_kept_for_the_owner_alone_and_a_full_disk_leaves_the_one_before(chat):
    conversation = chat()
    conversation.send(SAYINGS[0])
    with no_umask():
        save_last_chat(conversation)
    path = last_chat_file(conversation)
    assert path.stat().st_mode & 0o777 == 0o600
    assert open_to_others(path.parent) == []
    before = path.read_bytes()
    conversation.send(SAYINGS[1])
    with file_size_limit(100), pytest.raises(ConversionError, match="is not kept in") as caught:
        save_last_chat(conversation)
    assert "no space left" in caught.value.message
    assert "continues where it stopped" not in caught.value.hint
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_generate_cache_on_the_command_line(monkeypatch, capsys, tiny_folder):
    model = tiny_folder("llama-2", seed=1, config=LONG)
    command = [
        "generate",
        model,
        "--memory",
        "500MB",
        "-p",
        "word " * 100,
        "--max-tokens",
        3,
        "--json",
    ]
    plain = json.loads(run(monkeypatch, capsys, *command)[1])
    assert not (cache_folder() / "prompts").exists()
    first, second = (json.loads(run(monkeypatch, capsys, *command, "--cache")[1]) for _ in range(2))
    assert plain["text"] == first["text"] == second["text"]
    assert (plain["restored_tokens"], first["restored_tokens"]) == (0, 0)
    assert second["restored_tokens"] == second["cached_tokens"] == second["prompt_tokens"] - 1


def test_a_full_context_is_no_dead_end(monkeypatch, capsys, tiny_folder):
    model = tiny_folder("llama-2", seed=1, config=LONG)
    options = ["--memory", "500MB", "--context", 192, "--temperature", 0, "--max-tokens", 8]
    code, out, err = run(monkeypatch, capsys, "chat", model, *options, lines=SAYINGS * 3)
    assert (code, len(out.splitlines()) >= 6) == (0, True)
    assert "the context of 192 tokens is full: the " in err
    assert " left the conversation; --overflow error keeps them and stops instead\n" in err
    code, _, err = run(
        monkeypatch, capsys, "chat", model, *options, "--overflow", "error", lines=SAYINGS * 3
    )
    assert (code, "error: the conversation has " in err, "--context 2048" in err) == (1, True, True)
    code, _, err = run(monkeypatch, capsys, "chat", model, *options, "--overflow", "shift")
    assert (code, "--overflow is 'shift'; it must be one of drop_oldest, error" in err) == (2, True)
