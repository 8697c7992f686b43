"""Texts in which control tokens count behind a mark alone."""

import re
from contextlib import suppress

import pytest
from support.tiny_tokenizers import write_json

from edgellm.errors import TokenizerError
from edgellm.tokenizer import Tokenizer

MARK = "\ufdd1"
TEXTS = [
    "Once upon a time there was a little dog.",
    "<|user|>Say it<|end|>\n<|assistant|> It is</s>",
    "<s>The little girl  said: <|end|> you're 12 <|user|>",
    "  <|end|><|end|> und ein Ball<s>",
    "",
]


def control_of(tokenizer):
    ids = tokenizer.special_ids | tokenizer.turn_end_ids
    texts = map(tokenizer.id_to_token, sorted(ids))
    return re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True))))


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("begins", [False, True])
def test_where_all_are_marked_ids_are_the_usual_ones(every_kind, text, begins):
    marked = control_of(every_kind).sub(lambda found: MARK + found[0], text)
    assert every_kind.encode_marked(marked, MARK, add_special_tokens=begins) == every_kind.encode(
        text, add_special_tokens=begins
    )


@pytest.mark.parametrize("text", TEXTS)
def test_where_none_is_marked_all_is_text(every_kind, text):
    ids = None
    with suppress(TokenizerError):
        ids = every_kind.encode_marked(text, MARK, add_special_tokens=False)
    if ids is None:  # of a unigram, whose pieces of text are control tokens, too
        assert re.search("</?s>", text)
        return
    unknown = every_kind.token_to_id("<unk>")
    control = every_kind.special_ids | every_kind.turn_end_ids
    assert (control - {unknown}).isdisjoint(ids)
    if unknown not in ids:
        shown = every_kind.decode(ids, skip_special_tokens=False)
        assert re.sub(r"\s", "", shown) == re.sub(r"\s", "", text)


def test_marked_ones_are_told_from_others_in_one_text(every_kind):
    end = every_kind.token_to_id("<|end|>")
    if end not in every_kind.special_ids | every_kind.turn_end_ids:
        return  # then it is an ordinary token
    text = f"It is <|end|> so{MARK}<|end|>"
    ids = every_kind.encode_marked(text, MARK, add_special_tokens=False)
    assert ids.count(end) == 1
    assert ids[-1] == end
    before = every_kind.encode_marked("It is <|end|> so", MARK, add_special_tokens=False)
    assert ids[:-1] == before


def test_half_a_character_is_refused_as_ever(tmp_path):
    tokenizer = Tokenizer.from_folder(write_json(tmp_path, "byte-level"))
    with pytest.raises(TokenizerError, match="no valid Unicode"):
        tokenizer.encode_marked("\ud800", MARK)
