"""A conversation: what is said, what is computed for it, and what stays of it."""

import json
from pathlib import Path

import pytest
from support import tiny
from support.counting import open_counted

from edgellm.errors import ConfigError, ContextError, FormatError, ReadError, TemplateError

LONG = {"max_position_embeddings": 2048}
SAYINGS = ["Hello little dog.", "And then?", "Éé ☃ 😀 <|end|> odd", "The end."]


@pytest.fixture
def chat(open_llm):
    return open_llm("llama-2", seed=1, config=LONG).chat(temperature=1.0, seed=7, max_tokens=12)


def rendered(messages):
    """What tiny.TEMPLATE says, written once more."""
    text = "".join(f"<|{message['role']}|>{message['content']}<|end|>" for message in messages)
    return f"<|begin|>{text}<|assistant|>"


def test_a_conversation_as_long_as_contexts_get_is_loaded(chat, tmp_path):
    text = "word, " * 250_000
    said = {"text": text, "ids": [5] * 300_000}
    messages = [{"role": "user", "content": text}]
    file = tmp_path / "talk.json"
    file.write_text(json.dumps({"edgellm_chat": 1, "messages": messages, "said": said}))
    chat.load(file)
    chat.save(file)
    chat.load(file)
    assert chat.messages == messages


@pytest.mark.parametrize("async_compute", [True, False])
@pytest.mark.parametrize("ends", [{"max_tokens": 9}, {"max_tokens": 400}])
def test_a_turn_computes_its_new_tokens_alone(async_compute, ends, tiny_folder):
    """Also where the reply, of random tokens, is no text that the tokenizer would cut alike."""
    folder = tiny_folder(
        "llama-2", seed=1, config=LONG | {"eos_token_id": [tiny.END, 77, 78, 79, 80]}
    )
    llm, layers = open_counted(folder, async_compute=async_compute, context=2048)
    last = None
    with llm, llm.chat(system="Be kind.", temperature=1.0, seed=3, **ends) as chat:
        for saying in SAYINGS:
            layers.lengths.clear()
            tokens = list(chat.stream(saying))
            stats, cut_off = tokens[-1].stats, tokens[-1].finish_reason == "length"
            assert cut_off == (ends["max_tokens"] == 9)
            computed = stats.prompt_tokens - stats.cached_tokens
            ahead = (
                async_compute and not cut_off
            )  # a step past the end, which computes the end token
            assert sum(layers.lengths) == computed + stats.completion_tokens - 1 + ahead
            if last:
                new = llm.tokenizer.encode(
                    f"<|end|><|user|>{saying}<|end|><|assistant|>", add_special_tokens=False
                )
                assert computed == len(new) + cut_off - (ahead and last == tiny.END)
            last = tokens[-1].id


def test_the_answer_is_that_of_the_whole_conversation(chat, open_llm):
    fresh = open_llm("llama-2", seed=1, config=LONG)
    for saying in SAYINGS:
        answer = chat.send(saying, temperature=0.0)
        ids = fresh.tokenizer.encode(rendered(chat.messages[:-1]), add_special_tokens=False)
        again = fresh.generate(ids, max_tokens=12)
        if saying == SAYINGS[0]:
            assert again.text == answer
        assert chat.messages[-2:] == [
            {"role": "user", "content": saying},
            {"role": "assistant", "content": answer},
        ]


def test_the_answers_own_tokens_are_what_the_model_reads_again(chat):
    """And not what the tokenizer would make of its text."""
    llm = chat.llm
    tokens = list(chat.stream("Hello"))
    before = llm.tokenizer.encode(rendered(chat.messages[:-1]), add_special_tokens=False)
    after = llm.tokenizer.encode(
        "<|end|><|user|>More<|end|><|assistant|>", add_special_tokens=False
    )
    expected = llm.generate([*before, *(token.id for token in tokens), *after], max_tokens=12)
    assert chat.send("More", temperature=0.0) == expected.text


def test_a_stop_text_is_no_part_of_what_is_read_again(chat):
    whole = chat.send("Hello", temperature=0.0)
    chat.clear()
    stop = whole[4:7]
    answer = chat.send("Hello", temperature=0.0, stop=stop)
    assert answer == whole[: whole.index(stop)]
    fresh = chat.llm.generate(
        rendered([*chat.messages, {"role": "user", "content": "More"}]).removeprefix("<|begin|>"),
        max_tokens=12,
    )
    assert chat.send("More", temperature=0.0) == fresh.text


def test_system_and_clear(chat):
    chat.set_system("Be brief.")
    chat.send("Hello")
    assert [message["role"] for message in chat.messages] == ["system", "user", "assistant"]
    chat.set_system("Be long.")
    assert [message["content"] for message in chat.messages if message["role"] == "system"] == [
        "Be long."
    ]
    chat.clear()
    assert chat.messages == [{"role": "system", "content": "Be long."}]
    chat.set_system(None)
    assert chat.messages == []


def test_an_answer_that_was_stopped_stays(chat):
    stream = chat.stream("Hello")
    text = "".join(next(stream).text for _ in range(5))
    stream.close()
    assert chat.messages == [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": text},
    ]
    assert chat.send("Go on.")


def test_a_conversation_that_goes_on_before_a_replys_end_keeps_what_was_read(chat):
    """And the late end of that reply's stream changes nothing any more."""
    late = chat.stream("One")
    text = next(late).text + next(late).text
    chat.send("Two")
    late.close()
    contents = [message["content"] for message in chat.messages]
    assert contents[:3] == ["One", text, "Two"]
    assert len(contents) == 4

    late = chat.stream("Three")
    next(late)
    assert chat.undo()[0]["content"] == "Three"
    list(late)
    assert [message["content"] for message in chat.messages] == contents

    for change in (chat.clear, lambda: setattr(chat, "messages", [])):
        late = chat.stream("Four")
        next(late)
        change()
        list(late)
        assert chat.messages == []


def test_a_turn_without_an_answer_is_taken_back(chat):
    """The last one, and not an earlier one of the same words."""
    chat.send("Hello")
    said = [dict(message) for message in chat.messages]
    stream = chat.stream("Hello")
    chat.llm.cancel()
    stream = chat.stream("Hello", on_prefill=lambda _: chat.llm.cancel())
    assert "".join(token.text for token in stream) == ""
    assert chat.messages == said
    with pytest.raises(ConfigError):
        chat.send("Hello", temperature=-1)
    assert chat.messages == said


def test_a_conversation_that_no_longer_fits_is_as_before(open_llm):
    chat = open_llm("llama-2", load={"context": 64}).chat(max_tokens=5)
    chat.send("Hello")
    said = list(chat.messages)
    with pytest.raises(ContextError):
        chat.send("Once upon a time there was a house. " * 20)
    assert chat.messages == said
    assert chat.send("Hi", max_tokens=3)


@pytest.mark.parametrize("kind", [str, Path])
def test_saved_and_loaded_again(chat, tmp_path, kind):
    file = kind(tmp_path / "talk.json")
    for saying in SAYINGS:
        chat.send(saying)
    said = list(chat.messages)
    chat.save(file)
    chat.clear()
    chat.load(file)
    assert chat.messages == said
    assert [path.name for path in tmp_path.iterdir()] == ["talk.json"]
    assert chat.send("Again?")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"messages": 3}',
        '{"messages": [{"role": "user"}]}',
        '{"messages": [1]}',
        "\xff",
    ],
)
def test_a_file_that_is_no_conversation_changes_nothing(text, chat, tmp_path):
    file = tmp_path / "talk.json"
    file.write_text(text, encoding="latin-1")
    chat.send("Hello")
    said = list(chat.messages)
    with pytest.raises(FormatError):
        chat.load(file)
    with pytest.raises(ReadError):
        chat.load(tmp_path / "none.json")
    assert chat.messages == said


def test_a_model_without_a_template_does_not_converse(tmp_path, open_llm):
    folder = tiny.write_model(tmp_path / "model", tiny.CONFIGS["llama-2"])
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    del config["chat_template"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(TemplateError, match="no chat template"):
        open_llm(folder).chat()
