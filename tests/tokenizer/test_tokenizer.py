"""The tokenizer of a folder: where texts fall apart, and folders that do not fit."""

import json
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tiny_tokenizers import LLAMA, write_config, write_json, write_pieces
from support.tokenizer_texts import mixed_texts

from edgellm.errors import TokenizerError
from edgellm.tokenizer import Tokenizer


@given(before=mixed_texts, after=mixed_texts, data=st.data())
def test_texts_fall_apart_at_borders(every_kind, before, after, data):
    assert every_kind.bos_token_id in every_kind.split_token_ids
    token = every_kind.id_to_token(data.draw(st.sampled_from(sorted(every_kind.split_token_ids))))
    first, rest = (
        every_kind.encode(text, add_special_tokens=False) for text in (before, token + after)
    )
    assert every_kind.encode(before + token + after, add_special_tokens=False) == first + rest


def test_a_vocabulary_larger_than_the_models(tmp_path):
    folder = write_pieces(tmp_path)
    Tokenizer.from_folder(folder, vocab_size=500)
    with pytest.raises(
        TokenizerError, match="ids up to 419, but the model's vocabulary has 400 entries"
    ):
        Tokenizer.from_folder(folder, vocab_size=400)


@pytest.mark.parametrize("write", [write_pieces, partial(write_json, kind="byte-level")])
def test_a_few_added_tokens_without_rows_are_left_out(write, tmp_path):
    whole = Tokenizer.from_folder(write(tmp_path))
    rows = whole.vocab_size
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    added = config.setdefault("added_tokens_decoder", {})
    for place in range(2):
        added[str(rows + place)] = {"content": f"[PAD{place}]", "special": True}
    config["pad_token"] = "[PAD0]"
    write_config(tmp_path, config)
    assert Tokenizer.from_folder(tmp_path).token_to_id("[PAD0]") == rows
    with pytest.warns(UserWarning, match=r"2 added tokens beyond .* left out: '\[PAD0\]'"):
        tokenizer = Tokenizer.from_folder(tmp_path, vocab_size=rows)
    assert tokenizer.vocab_size == rows
    assert tokenizer.token_to_id("[PAD0]") is None
    assert tokenizer.encode("The [PAD0]dog") == whole.encode("The [PAD0]dog")


def test_half_a_surrogate_pair(every_kind):
    with pytest.raises(TokenizerError, match="no valid Unicode character at place 1"):
        every_kind.encode("a\ud83d")


@pytest.mark.parametrize("write", [write_pieces, partial(write_json, kind="byte-level")])
def test_a_prompt_that_is_begun_already_is_not_begun_again(write, tmp_path):
    tokenizer = Tokenizer.from_folder(write(tmp_path))
    begin = tokenizer.id_to_token(tokenizer.bos_token_id)
    assert tokenizer.encode_prompt("a dog") == tokenizer.encode("a dog")
    with pytest.warns(UserWarning, match="begins with .* already"):
        ids = tokenizer.encode_prompt(f"{begin}a dog")
    assert ids == tokenizer.encode(f"{begin}a dog")[1:]
    assert ids.count(tokenizer.bos_token_id) == 1


def test_a_prompt_is_left_alone_where_nothing_is_put_before_it(tmp_path):
    tokenizer = Tokenizer.from_folder(write_json(tmp_path, "unigram"))
    assert tokenizer.encode_prompt("<s><s>a") == tokenizer.encode("<s><s>a")


def test_no_tokenizer(tmp_path):
    with pytest.raises(
        TokenizerError, match=r"no tokenizer\.json and no tokenizer\.model"
    ) as caught:
        Tokenizer.from_folder(tmp_path)
    assert caught.value.hint


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.model", "tokenizer_config.json"])
def test_what_is_no_plain_file(tmp_path, name):
    if name == "tokenizer_config.json":
        write_pieces(tmp_path, None)
    (tmp_path / name).mkdir()
    with pytest.raises(TokenizerError, match="not a regular file"):
        Tokenizer.from_folder(tmp_path)


def test_the_end_of_a_turn_in_a_template_ends_an_answer(tmp_path):
    tokenizer = Tokenizer.from_folder(write_pieces(tmp_path / "chat"))
    end = tokenizer.token_to_id("<|end|>")
    with pytest.warns(UserWarning, match=r"answers also end at <\|end\|>"):
        assert tokenizer.end_ids(frozenset({7})) == {7, 2, end}
    assert tokenizer.end_ids(frozenset({end})) == {2, end}  # and warns of nothing
    plain = {**LLAMA, "chat_template": None}
    base = Tokenizer.from_folder(write_pieces(tmp_path / "base", plain))
    assert base.end_ids(frozenset()) == {2}
