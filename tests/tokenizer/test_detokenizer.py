"""Ids to text: a stream of ids gives the text of all of them, in proportional time."""

import json
import random
import sys

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from support.tiny_tokenizers import json_text, write_json, write_pieces
from support.tokenizer_texts import any_texts, mixed_texts
from tokenizers import AddedToken, normalizers, pre_tokenizers

from edgellm.tokenizer import Tokenizer


def streamed(tokenizer, ids, **options):
    decoder = tokenizer.decoder(**options)
    return [decoder.add(token_id) for token_id in ids] + [decoder.finish()]


@given(text=st.one_of(any_texts, mixed_texts))
def test_a_stream_of_a_text_is_the_text(every_kind, text):
    ids = every_kind.encode(text, add_special_tokens=False)
    assert "".join(streamed(every_kind, ids)) == every_kind.decode(ids)


@given(data=st.data())
def test_a_stream_of_random_ids_is_what_decode_gives(every_kind, data):
    ids = data.draw(st.lists(st.integers(0, every_kind.vocab_size + 2), max_size=30))
    for skip in (True, False):
        assert "".join(streamed(every_kind, ids, skip_special_tokens=skip)) == every_kind.decode(
            ids, skip_special_tokens=skip
        )


@pytest.mark.parametrize("kind", ["pieces", "byte-level", "metaspace"])
@pytest.mark.parametrize("text", ["😀", "中文", "👩‍👧é", "a😀b"])
def test_no_half_characters(tmp_path, kind, text):
    folder = write_pieces(tmp_path) if kind == "pieces" else write_json(tmp_path, kind)
    tokenizer = Tokenizer.from_folder(folder)
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert len(ids) > len(text)
    parts = streamed(tokenizer, ids)
    assert not any("\ufffd" in part for part in parts)
    assert parts.count("") > 1
    assert "".join(parts) == text


def byte_level_folder(folder, words, **settings):
    """A byte-level tokenizer with added words, some of which its model has too."""
    library = tokenizers.Tokenizer.from_str(json_text("byte-level"))
    for part, value in settings.items():
        setattr(library, part, value)
    library.add_tokens([AddedToken(word, normalized="N" in word) for word in words])
    folder.mkdir(exist_ok=True)
    library.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize(
    "text", ["na\u00efve", "caf\u00e9!", "\u0111em", "\u65e5\u672c", "a \u00e9"]
)
def test_an_added_token_is_the_text_that_it_was_read_from(tmp_path, text):
    """The decoder of tokenizers takes its letters for bytes; llama.cpp gives the text."""
    tokenizer = Tokenizer.from_folder(byte_level_folder(tmp_path, [text]))
    ids = tokenizer.encode(f"The {text}.", add_special_tokens=False)
    assert tokenizer.token_to_id(text) in ids
    assert tokenizer.decode(ids) == "".join(streamed(tokenizer, ids)) == f"The {text}."


def test_an_added_token_of_the_model_is_text_unless_merging_makes_it(tmp_path):
    # \u00e9 stands for the byte E9, and \u0120 (a space) and "little" were merged
    folder = byte_level_folder(tmp_path, ["na\u00efve", "\u0120little", "\u00e9"])
    document = json.loads((folder / "tokenizer.json").read_text())
    # as a trainer leaves its special tokens
    document["model"]["vocab"] |= {one["content"]: one["id"] for one in document["added_tokens"]}
    (folder / "tokenizer.json").write_text(json.dumps(document))
    tokenizer = Tokenizer.from_folder(folder)
    for text in ("a na\u00efve one", "a little dog", "\u9ad8"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_an_added_token_that_is_looked_for_among_bytes_is_bytes(tmp_path):
    normalizer = normalizers.ByteLevel()
    settings = {"normalizer": normalizer, "pre_tokenizer": pre_tokenizers.Split("q", "isolated")}
    folder = byte_level_folder(tmp_path, ["N\u00efve", "na\u00efve"], **settings)
    tokenizer = Tokenizer.from_folder(folder)
    ids = tokenizer.encode("N\u00efve na\u00efve", add_special_tokens=False)
    assert tokenizer.decode(ids) == "N\u00efve na\u00efve"
    assert len(ids) == 3


def test_a_character_that_never_comes_whole(pieces):
    first, second, third = (pieces.token_to_id(f"<0x{byte:02X}>") for byte in "中".encode())
    word = pieces.encode("The dog", add_special_tokens=False)[-1]
    assert streamed(pieces, [first, second]) == ["", "", "\ufffd\ufffd"]
    assert "".join(streamed(pieces, [first, second, word])) == pieces.decode([first, second, word])
    assert streamed(pieces, [first, 2, second, third]) == ["", "", "", "中", ""]


def test_spaces_at_the_start_and_in_the_middle(pieces):
    ids = pieces.encode("The  little dog ", add_special_tokens=False)
    assert streamed(pieces, ids)[0].startswith("T")
    assert "".join(streamed(pieces, ids)) == "The  little dog "
    assert pieces.decode(pieces.encode("  The", add_special_tokens=False)) == "  The"
    prompt = pieces.encode("Once upon")
    rest = pieces.encode("Once upon a time")[len(prompt) :]
    assert "".join(streamed(pieces, rest)) == "a time"
    assert "".join(streamed(pieces, rest, continues=True)) == " a time"


def test_decoding_takes_time_in_proportion(pieces, every_kind):
    """Counted in calls, Python's and C's: four times the tokens, four times the calls."""
    ids = random.Random(0).choices(range(every_kind.vocab_size), k=10_000)
    every_kind.decode(range(every_kind.vocab_size))  # every token's bytes are known from here on

    def calls(count):
        counted = 0

        def count_one(*_):
            nonlocal counted
            counted += 1

        decoder = every_kind.decoder()
        sys.setprofile(count_one)
        try:
            for token_id in ids[:count]:
                decoder.add(token_id)
        finally:
            sys.setprofile(None)
        return counted

    assert calls(10_000) < 4.2 * calls(2_500)
