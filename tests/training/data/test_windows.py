"""Texts in one row: nothing is lost, each text has its ends, every token is learned once."""

import json

import pytest
from support.task_files import write_rows
from support.tiny import BEGIN, END, LLAMA, TEXTS, write_model

from edgellm.errors import ConfigError
from edgellm.tokenizer import Tokenizer
from edgellm.training.data.records import read_records
from edgellm.training.data.windows import windows


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return Tokenizer.from_folder(write_model(tmp_path_factory.mktemp("m") / "model", LLAMA))


def row_of(found):
    """The row that windows are cut from, once each."""
    first, *rest = [list(one.tokens) for one in found.sequences]
    return first + [token for window in rest for token in window[1:]]


@pytest.mark.parametrize("max_tokens", [2, 7, 24, 1000])
def test_every_token_but_the_first_is_learned_once(tmp_path, tokenizer, max_tokens):
    path = tmp_path / "texts.txt"
    path.write_text("<|endoftext|>".join(TEXTS))
    found = windows(read_records(path), tokenizer, max_tokens=max_tokens)
    assert all(one.length <= max_tokens for one in found.sequences)
    row = row_of(found)
    expected = [id_ for text in TEXTS for id_ in [*tokenizer.encode(text), END]]
    assert row == expected
    assert row.count(BEGIN) == row.count(END) == len(TEXTS)
    learned = [target for one in found.sequences for target in one.targets if target >= 0]
    assert learned == row[1:]
    assert found.text_bytes == sum(len(text.encode()) for text in TEXTS)
    assert [one.number for one in found.sequences] == list(range(len(found.sequences)))


def test_a_chat_is_a_text_as_the_template_writes_it(tmp_path, tokenizer):
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    path = tmp_path / "chats.jsonl"
    path.write_text(json.dumps({"messages": messages}) + "\n")
    found = windows(read_records(path), tokenizer, max_tokens=100)
    whole = tokenizer.apply_chat_template(messages, add_generation_prompt=False)
    assert row_of(found) == whole, "the template's own end is not said twice"


def test_the_text_of_a_control_token_is_text_or_left_out(tmp_path, tokenizer):
    path = tmp_path / "texts.jsonl"
    path.write_text(json.dumps({"text": "a <|end|> b"}) + "\n")
    found = windows(read_records(path), tokenizer, max_tokens=100)
    assert (found.held, found.control) == (1, [])
    assert "a <|end|> b" in tokenizer.decode(row_of(found), skip_special_tokens=False)
    assert row_of(found).count(tokenizer.token_to_id("<|end|>")) == 1, "at the end of the text"
    assert found.text_bytes == len("a <|end|> b")
    # the character that holds it apart
    rows = [{"text": "a <|end|> b\ufdd0"}, {"text": "c"}]
    write_rows(path, rows)
    found = windows(read_records(path), tokenizer, max_tokens=100)
    assert found.control == [1]
    path.write_text(json.dumps(rows[0]) + "\n")
    with pytest.raises(ConfigError, match="no text to learn"):
        windows(read_records(path), tokenizer, max_tokens=100)
