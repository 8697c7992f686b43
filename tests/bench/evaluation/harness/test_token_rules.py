"""Requests become tokens as lm-evaluation-harness' class for transformers makes them."""

import pytest
from support.tiny_tokenizers import write_json, write_pieces

from edgellm.bench.evaluation.harness.token_rules import EncodedPair, TokenRules
from edgellm.errors import ConfigError, ContextError
from edgellm.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    """A tokenizer that puts a blank before each text, as LLaMA's."""
    return Tokenizer.from_folder(write_pieces(tmp_path_factory.mktemp("pieces")))


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory):
    return Tokenizer.from_folder(write_json(tmp_path_factory.mktemp("bytes"), "byte-level"))


def test_a_pair_is_one_text_that_is_cut_after_the_context(byte_level):
    rules = TokenRules(byte_level, 100)
    context, answer = "Once upon a time", " there was"
    whole = byte_level.encode(context + answer)
    length = len(byte_level.encode(context))
    assert rules.encode_pair(context, answer) == EncodedPair(whole[:length], whole[length:])
    # blanks at the end of the context belong to the continuation
    assert rules.encode_pair(context + " ", answer[1:]) == rules.encode_pair(context, answer)


def test_a_token_over_the_boundary_belongs_to_the_continuation(byte_level):
    rules = TokenRules(byte_level, 100)
    whole = byte_level.encode("the little")
    assert len(byte_level.encode("the littl")) >= len(whole)
    pair = rules.encode_pair("the littl", "e")
    assert pair.context + pair.continuation == whole
    assert pair.continuation == whole[-1:]


def test_a_context_keeps_its_own_tokens(pieces):
    # the joint text splits "wasthe" elsewhere; the harness keeps the context as it is
    rules, context = TokenRules(pieces, 100), "Once upon a time there was"
    before, whole = pieces.encode(context), pieces.encode(context + "the")
    assert whole[: len(before)] != before
    pair = rules.encode_pair(context, "the")
    assert (pair.context, pair.continuation) == (before, whole[len(before) :])


@pytest.mark.parametrize("answer", ["there", " there"])
def test_an_empty_context_is_the_beginning(answer, pieces, byte_level):
    word = pieces.encode("there", add_special_tokens=False)
    for context in ("", " "):
        assert TokenRules(pieces, 100).encode_pair(context, answer).context == [pieces.bos_token_id]
    # the tokenizer's own blank is the one that the answer begins with
    assert TokenRules(pieces, 100).encode_pair("", answer).continuation == word
    assert TokenRules(pieces, 100).encode_pair("", "  there").continuation != word
    pair = TokenRules(byte_level, 100).encode_pair("", answer)
    assert pair.context == [byte_level.bos_token_id]
    assert pair.continuation == byte_level.encode(answer, add_special_tokens=False)


def test_without_a_beginning_token_an_end_token_stands_for_it(tmp_path):
    folder = write_json(tmp_path / "model", "byte-level", bos_token=None)
    tokenizer = Tokenizer.from_folder(folder)
    (end,) = tokenizer.eos_token_ids
    assert TokenRules(tokenizer, 100).encode_pair("", "a").context == [end]
    tokenizer = Tokenizer.from_folder(
        write_json(tmp_path / "none", "byte-level", bos_token=None, eos_token=None)
    )
    with pytest.raises(ConfigError, match="begins or ends"):
        TokenRules(tokenizer, 100)


def test_no_text_begins_twice(byte_level, pieces):
    for tokenizer, begin in ((byte_level, "<|begin|>"), (pieces, "<s>")):
        rules = TokenRules(tokenizer, 100)
        ids = rules.encode(begin + "Once upon")
        assert ids[0] == tokenizer.bos_token_id != ids[1]
        assert rules.encode("Once upon")[0] == tokenizer.bos_token_id
        assert rules.encode_prompt(begin + "Once", 4)[0] == rules.encode(begin + "Once")
        pair = rules.encode_pair("", begin)
        assert (pair.context, pair.continuation) == ([ids[0]], [ids[0]])


def test_what_does_not_fit_is_left_out_at_the_beginning_and_counted(byte_level):
    rules, context, answer = TokenRules(byte_level, 8), "Once upon a time there was a", " dog"
    whole = TokenRules(byte_level, 100).encode_pair(context, answer)
    pair = rules.encode_pair(context, answer)
    assert len(pair.context) + len(pair.continuation) == 8 + 1  # the last one needs no room
    assert pair.continuation == whole.continuation
    assert whole.context[pair.cut :] == pair.context
    ids, cut = rules.encode_prompt(context, 3)
    assert ids == byte_level.encode(context)[cut:]
    assert len(ids) == 5
    assert rules.encode_prompt("Once", 3)[1] == 0
    with pytest.raises(ContextError, match="context 8"):
        rules.encode_pair("a", context * 3)
    with pytest.raises(ConfigError, match="8 new tokens"):
        rules.encode_prompt(context, 8)
    with pytest.raises(ConfigError, match="empty"):
        rules.encode_pair(context, "")


@pytest.mark.parametrize("room", [3, 4, 7, 100])
def test_windows_score_each_token_of_a_long_text_once(room, byte_level):
    text = "Once upon a time there was a little dog"
    ids = byte_level.encode(text)
    windows = list(TokenRules(byte_level, room).windows(text))
    assert [token for window in windows for token in window.continuation] == ids[1:]
    assert all(len(one.context) + len(one.continuation) <= room + 1 for one in windows)
    assert windows[0].context == ids[:1]
    twice = list(TokenRules(byte_level, room).windows(text, like_harness=True))
    assert [token for window in twice for token in window.continuation] == ids
    assert twice[0].context == ids[:1]
