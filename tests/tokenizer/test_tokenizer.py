"""The tokenizer of a folder: where texts fall apart, and folders that do not fit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tiny_tokenizers import write_pieces
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


def test_half_a_surrogate_pair(every_kind):
    with pytest.raises(TokenizerError, match="no valid Unicode character at place 1"):
        every_kind.encode("a\ud83d")


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
    with pytest.raises(TokenizerError, match="no plain file"):
        Tokenizer.from_folder(tmp_path)
