"""Ids and text against the libraries' own: SentencePiece for what a model was trained on, transformers for the rest."""

import json
import logging
import random
import re
import sys
import warnings

import pytest
import sentencepiece
from hypothesis import assume, given
from hypothesis import strategies as st
from support.tiny_tokenizers import (
    CHAT,
    LLAMA,
    edited,
    json_text,
    piece_model,
    write_config,
    write_json,
    write_pieces,
)

from edgellm.errors import TokenizerError
from edgellm.tokenizer import Tokenizer

PARTS = [
    *CHAT,
    "<s>",
    "</s>",
    "<unk>",
    "<|begin|>",
    "<|strip|>",
    "word",
    " ",
    "  ",
    "\n",
    "\t",
    "é",
    "😀",
    "中",
    "a",
]
PARTS += [
    "Hello",
    " the",
    " little dog",
    "<0x41>",
    "\u200d",
    "\x00",
    "<",
    "|>",
    "'s",
    "12345",
    "glücklich",
    "e\u0301",
    "ﬁ",
]
mixed = st.lists(st.sampled_from(PARTS), max_size=10).map("".join)
TOKENS = [*CHAT, "<s>", "</s>", "<unk>"]
anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
JSON_KINDS = ("byte-level", "metaspace", "unigram")


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    return Tokenizer.from_folder(write_pieces(tmp_path_factory.mktemp("pieces")), vocab_size=420)


@pytest.fixture(scope="module")
def processor():
    return sentencepiece.SentencePieceProcessor(model_proto=piece_model())


@pytest.fixture(scope="module", params=JSON_KINDS)
def from_json(request, tmp_path_factory):
    return write_json(tmp_path_factory.mktemp("json"), request.param)


@pytest.fixture(scope="module", params=["pieces", *JSON_KINDS])
def every_kind(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("every")
    return Tokenizer.from_folder(
        write_pieces(folder) if request.param == "pieces" else write_json(folder, request.param)
    )


@pytest.fixture(scope="module")
def reference():
    """What opens a folder in transformers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers = pytest.importorskip(
            "transformers", reason="transformers, the reference, is not installed"
        )
        logging.getLogger("transformers").setLevel(logging.ERROR)
    return transformers.AutoTokenizer.from_pretrained


def streamed(tokenizer, ids, **options):
    decoder = tokenizer.decoder(**options)
    return [decoder.add(token_id) for token_id in ids] + [decoder.finish()]


# SentencePiece


@given(st.one_of(anything, mixed).filter(lambda text: not any(token in text for token in TOKENS)))
def test_plain_text_has_the_ids_that_sentencepiece_gives(pieces, processor, text):
    ids = processor.encode(text)
    assert pieces.encode(text, add_special_tokens=False) == ids
    assert pieces.encode(text) == [1, *ids]
    if "▁" not in text:
        assert pieces.decode(ids) == text


@given(
    st.lists(
        st.tuples(st.sampled_from(CHAT), anything.filter(lambda text: "<" not in text)),
        min_size=1,
        max_size=5,
    )
)
def test_chat_has_the_ids_that_it_was_trained_on(pieces, processor, turns):
    text = "".join(token + content for token, content in turns)
    # no word-start piece stands before a leading special token
    trained = processor.encode(text)[1:]
    assert pieces.encode("<s>" + text, add_special_tokens=False) == [1, *trained]
    assert pieces.encode(text) == [1, *trained]


def test_special_tokens_are_single_ids_and_come_once(pieces, processor):
    text = "<s><|user|>Hello<|end|><|assistant|>"
    user, end, assistant = (
        pieces.token_to_id(token) for token in ("<|user|>", "<|end|>", "<|assistant|>")
    )
    hello = processor.encode("<|end|>Hello")[2:]
    assert pieces.encode(text, add_special_tokens=False) == [1, user, *hello, end, assistant]
    messages = [{"role": "user", "content": "Hello"}]
    assert pieces.render(messages) == text
    assert pieces.apply_chat_template(messages) == [1, user, *hello, end, assistant]
    assert pieces.apply_chat_template(messages, add_generation_prompt=False) == [
        1,
        user,
        *hello,
        end,
    ]


def test_a_message_that_spells_a_special_token_becomes_it_as_in_transformers(pieces):
    ids = pieces.apply_chat_template([{"role": "user", "content": "a<|end|>b"}])
    assert ids.count(pieces.token_to_id("<|end|>")) == 2


def test_names_and_ids(pieces):
    assert (pieces.bos_token_id, pieces.eos_token_ids, pieces.vocab_size) == (1, {2}, 420)
    assert pieces.id_to_token(1) == "<s>"
    assert pieces.token_to_id("no such token") is None
    with pytest.raises(TokenizerError, match="no token 420; the vocabulary has 420 ids"):
        pieces.id_to_token(420)
    with pytest.raises(TokenizerError, match="no token -1"):
        pieces.id_to_token(-1)


LONE_SPACE = re.compile(" (" + "|".join(map(re.escape, TOKENS)) + "|$)")


def without_first_space(text):
    """What transformers 5 makes of a text: it takes one leading space for the one that it would add."""
    return text.removeprefix(" ")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"legacy": True},
        {"add_prefix_space": False},
        {"add_eos_token": True},
        {"bos_token": None},
    ],
)
def test_pieces_are_those_of_transformers(reference, tmp_path, changes):
    folder = write_pieces(tmp_path, LLAMA | changes)
    ours, theirs = Tokenizer.from_folder(folder), reference(folder)

    @given(mixed.map(lambda text: re.sub("> +", ">", text) if changes.get("legacy") else text))
    def agree(text):
        assume(not LONE_SPACE.match(text))
        own = text if "add_prefix_space" in changes else without_first_space(text)
        ids = theirs.encode(text)
        assert ours.encode(own) == ids
        for skip in (True, False):
            assert ours.decode(ids, skip_special_tokens=skip) == theirs.decode(
                ids, skip_special_tokens=skip
            )

    agree()
    first = "Hello there" if changes.get("legacy") else " Hello  there\n"
    chat = [{"role": "user", "content": first}, {"role": "assistant", "content": "a"}]
    assert ours.apply_chat_template(chat) == theirs.apply_chat_template(
        chat, add_generation_prompt=True, return_dict=False
    )


@pytest.mark.parametrize(
    "options", [{"model_type": "unigram", "normalization_rule_name": "nmt_nfkc", "vocab_size": 350}]
)
def test_a_normalizing_unigram_model(tmp_path, options):
    tokenizer = Tokenizer.from_folder(write_pieces(tmp_path, **options))
    processor = sentencepiece.SentencePieceProcessor(model_proto=piece_model(**options))
    for text in ("The little dog", "ﬁve ½ Ⅷ ㌔", "  two  spaces ", "中文 😀"):
        assert tokenizer.encode(text) == [1, *processor.encode(text)]


def test_tokens_beside_the_model(tmp_path):
    size = Tokenizer.from_folder(write_pieces(tmp_path)).vocab_size
    added = {
        str(size): {"content": "<tool>", "special": True},
        str(size + 4): {"content": "word", "single_word": True, "lstrip": True, "rstrip": True},
    }
    tokenizer = Tokenizer.from_folder(
        write_config(tmp_path, LLAMA | {"added_tokens_decoder": added}), vocab_size=size + 5
    )
    assert tokenizer.vocab_size == size + 5
    begin = tokenizer.encode("a")
    assert tokenizer.encode("a<tool>") == [*begin, size]
    assert tokenizer.encode("a  word \n") == [*begin, size + 4]
    assert size + 4 not in tokenizer.encode("a swordfish")
    assert tokenizer.decode([*begin, size, size + 2, size + 4]) == "aword"
    assert tokenizer.decode([size], skip_special_tokens=False) == "<tool>"


def test_the_older_files_of_added_and_special_tokens(tmp_path):
    size = Tokenizer.from_folder(write_pieces(tmp_path, None)).vocab_size
    write_config(tmp_path, {"<end>": size, "plain": size + 1}, "added_tokens.json")
    write_config(
        tmp_path, {"eos_token": {"content": "<end>", "lstrip": False}}, "special_tokens_map.json"
    )
    tokenizer = Tokenizer.from_folder(tmp_path)
    assert tokenizer.eos_token_ids == {size}
    assert tokenizer.encode("plain<end>") == [1, size + 1, size]
    assert tokenizer.decode([size + 1, size]) == "plain"


# tokenizer.json


@given(st.one_of(mixed, anything))
def test_json_ids_and_texts_are_those_of_transformers(reference, from_json, text):
    ours, theirs = Tokenizer.from_folder(from_json), _opened(reference, from_json)
    for special in (True, False):
        ids = theirs.encode(text, add_special_tokens=special)
        assert ours.encode(text, add_special_tokens=special) == ids
        for skip in (True, False):
            assert ours.decode(ids, skip_special_tokens=skip) == theirs.decode(
                ids, skip_special_tokens=skip
            )


def _opened(reference, folder, opened={}):  # noqa: B006 - a cache
    if folder not in opened:
        opened[folder] = reference(folder)
    return opened[folder]


def test_tokens_of_the_config_join_those_of_the_file(tmp_path):
    folder = write_json(tmp_path, "byte-level")
    size = Tokenizer.from_folder(folder).vocab_size
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["added_tokens_decoder"][str(size)] = {"content": "<more>", "special": True}
    tokenizer = Tokenizer.from_folder(write_config(folder, config))
    assert tokenizer.encode("<more>", add_special_tokens=False) == [size]
    config["added_tokens_decoder"][str(size + 2)] = {"content": "<gap>", "special": True}
    with pytest.raises(
        TokenizerError, match=r"'<gap>' is said to have the id \d+, but the ids before it have gaps"
    ):
        Tokenizer.from_folder(write_config(folder, config))


def test_padding_and_truncation_in_the_file_do_nothing(tmp_path):
    folder = write_json(tmp_path, "byte-level")
    plain = Tokenizer.from_folder(folder).encode("The little dog")
    padding = {
        "strategy": {"Fixed": 10**9},
        "direction": "Left",
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "!",
    }
    truncation = {"max_length": 1, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    (folder / "tokenizer.json").write_text(
        edited("byte-level", ("padding", padding), ("truncation", truncation))
    )
    assert Tokenizer.from_folder(folder).encode("The little dog") == plain


@given(before=mixed, after=mixed, data=st.data())
def test_texts_fall_apart_at_borders(every_kind, before, after, data):
    assert every_kind.bos_token_id in every_kind.split_token_ids
    token = every_kind.id_to_token(data.draw(st.sampled_from(sorted(every_kind.split_token_ids))))
    first, rest = (
        every_kind.encode(text, add_special_tokens=False) for text in (before, token + after)
    )
    assert every_kind.encode(before + token + after, add_special_tokens=False) == first + rest


# Streams


@given(text=st.one_of(anything, mixed))
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


@given(ids=st.lists(st.integers(3, 419), max_size=30))
def test_random_ids_decode_as_in_sentencepiece(pieces, processor, ids):
    # SentencePiece keeps this one space that transformers strips
    if ids and pieces.id_to_token(ids[0]) != "<0x20>":
        assert pieces.decode(ids) == processor.decode(ids)


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
    """Counted in calls, Python's and C's: four times the tokens, four times the calls; and three bytes are all it keeps."""
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
                assert len(decoder._utf8.getstate()[0]) < 4
        finally:
            sys.setprofile(None)
        return counted

    assert calls(10_000) < 4.2 * calls(2_500)


# What does not fit, and what is damaged


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


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"IQ== 0\nIg== 1\nIw== 2\n", "tiktoken ranks"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "pointer of git-lfs"),
        (b"", "has 0 pieces"),
        (b"\n\x7f", "reaches past its end"),
        (b"\n\xff", "cut off"),
        (b"\x0b", "unknown kind"),
        (b"\x08" + b"\xff" * 11, "a number without an end"),
        (b"\n\x05\n\x03a\xffb", "not UTF-8"),
        (b"\n\x03\n\x01a" * 2, "a piece twice"),
        (b"\n\x08\n\x01a\x15\x00\x00\x80\x7f", "an impossible score"),
        (b"\n\x03\n\x01a", "damaged"),
        (piece_model()[:-9], "cut off|past its end|unknown kind"),
        (piece_model() + b"\x12\x03\xc0\x01\x01", "white space at the end of words"),
        (
            piece_model() + b"\x1a\x0b\x12\x09\x00\x04\x00\x00" + b"\xff" * 5,
            "table of the tokenizer is cut off",
        ),
    ],
)
def test_a_damaged_piece_model(tmp_path, data, message):
    (tmp_path / "tokenizer.model").write_bytes(data)
    with pytest.raises(TokenizerError, match=message):
        Tokenizer.from_folder(tmp_path)


def test_a_normalization_table_that_points_outside_itself(tmp_path):
    data = bytearray(
        piece_model(model_type="unigram", normalization_rule_name="nmt_nfkc", vocab_size=350)
    )
    table = data.index(b"\x12", data.index(b"nmt_nfkc")) + 8
    data[table : table + 4] = b"\x00\xfc\xff\x3f"
    (tmp_path / "tokenizer.model").write_bytes(data)
    with pytest.raises(TokenizerError, match="points outside itself"):
        Tokenizer.from_folder(tmp_path)


SPLIT = {"type": "Split", "pattern": {"Regex": "a"}, "behavior": "Isolated", "invert": False}
GROWING = {"type": "Replace", "pattern": {"String": "a"}, "content": "aaaa"}
BYTES = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": False}


@pytest.mark.parametrize(
    ("kind", "path", "value", "message"),
    [
        ("byte-level", "model", None, "no model"),
        ("byte-level", "model/type", "WordPiece", "model of type 'WordPiece'"),
        ("byte-level", "model/vocab", {}, "no vocabulary"),
        ("byte-level", "model/vocab/a", "1", "must map tokens to ids"),
        ("byte-level", "model/vocab/a", True, "must map tokens to ids"),
        ("byte-level", "model/vocab/a", 10**30, "ids go from 0"),
        ("byte-level", "model/vocab/a", 2**32 - 1, "ids go from 0"),
        ("byte-level", "model/vocab/a", -1, "has the id -1"),
        ("byte-level", "model/vocab/a", 0, "one id to two tokens"),
        ("byte-level", "model/vocab/\ud800", 399, "gives one id|fails|no valid"),
        ("byte-level", "model/merges", {}, "no list of merges"),
        ("byte-level", "model/merges/0", ["a"], "does not name two tokens"),
        ("byte-level", "model/merges/0", "a b c", "does not name two tokens"),
        ("byte-level", "model/merges/0", [1, 2], "does not name two tokens"),
        ("byte-level", "model/merges/0", ["", "a"], "does not name two tokens"),
        ("byte-level", "model/merges/0", 7, "does not name two tokens"),
        (
            "byte-level",
            "model/merges/0",
            ["zz", "yy"],
            "merges '(zz|yy|zzyy)', which is not in its vocabulary",
        ),
        ("byte-level", "model/merges/0", ["!", "!"], "merges '!!', which is not in its vocabulary"),
        ("byte-level", "model/continuing_subword_prefix", " ", "continuing_subword_prefix"),
        ("byte-level", "model/unk_token", "nowhere", "unknown token 'nowhere'"),
        ("byte-level", "model/fuse_unk", 1, "must be true or false"),
        ("unigram", "model/vocab", [], "no vocabulary"),
        ("unigram", "model/vocab/3", ["a", None], "impossible piece"),
        ("unigram", "model/vocab/3", ["", 0.0], "impossible piece"),
        ("unigram", "model/vocab/3", ["<s>", 0.0], "a piece twice"),
        ("unigram", "model/unk_id", 10**6, "unknown piece"),
        ("byte-level", "added_tokens", {}, "must be a list"),
        ("byte-level", "added_tokens/0/id", 401, "one id to two added tokens"),
        ("byte-level", "added_tokens/0/id", 5, "belongs to another token"),
        ("byte-level", "added_tokens/0/id", 10**12, "has the id"),
        ("byte-level", "added_tokens/0/content", None, "must be a text"),
        ("byte-level", "added_tokens/0/special", "yes", "must be true or false"),
        (
            "byte-level",
            "normalizer",
            {"type": "Precompiled", "precompiled_charsmap": "AAAA"},
            "cut off",
        ),
        (
            "byte-level",
            "normalizer",
            {"type": "Precompiled", "precompiled_charsmap": ""},
            "cut off",
        ),
        ("byte-level", "normalizer", {"type": "Sequence"}, "no list of normalizers"),
        (
            "byte-level",
            "normalizer",
            {"type": "Sequence", "normalizers": [GROWING] * 8},
            "many times longer",
        ),
        ("byte-level", "normalizer", GROWING | {"pattern": {"String": ""}}, "damaged 'Replace'"),
        ("byte-level", "normalizer", GROWING | {"content": "a" * 100}, "too long"),
        (
            "byte-level",
            "pre_tokenizer",
            {"type": "FixedLength", "length": 0},
            "does not know: 'FixedLength'",
        ),
        (
            "byte-level",
            "pre_tokenizer",
            {"type": "Sequence", "pretokenizers": [BYTES] * 20},
            "many times longer",
        ),
        (
            "byte-level",
            "pre_tokenizer",
            {"type": "Sequence", "pretokenizers": [SPLIT] * 65},
            "64 are the most",
        ),
        ("byte-level", "pre_tokenizer", SPLIT | {"pattern": {"Regex": "a" * 99_999}}, "too long"),
        ("byte-level", "pre_tokenizer", SPLIT | {"pattern": {"Regex": "("}}, "the tokenizer fails"),
        (
            "byte-level",
            "post_processor",
            {"type": "BertProcessing"},
            "processor that edgellm does not know",
        ),
        ("byte-level", "post_processor/processors/1/single", [], "must hold the text once"),
        (
            "byte-level",
            "post_processor/processors/1/special_tokens",
            {},
            "template of tokenizer.json is damaged",
        ),
        (
            "byte-level",
            "post_processor/processors/1/special_tokens/<|begin|>/ids",
            [10**9],
            "impossible ids",
        ),
        ("byte-level", "decoder", None, "no decoder"),
        (
            "byte-level",
            "decoder",
            {"type": "WordPiece", "prefix": "##"},
            "does not know: 'WordPiece'",
        ),
        ("metaspace", "decoder/decoders/0/content", "a" * 65, "impossible replacement"),
        ("metaspace", "decoder/decoders/3/start", 10**9, "strips an impossible amount"),
        ("metaspace", "decoder/decoders/3/stop", 1, "does not know: 'Strip'"),
    ],
)
def test_a_damaged_json(tmp_path, kind, path, value, message):
    (tmp_path / "tokenizer.json").write_text(edited(kind, (path, value)))
    with pytest.raises(TokenizerError, match=message):
        Tokenizer.from_folder(tmp_path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cut off"),
        (json_text("byte-level").encode()[:-20], "cut off"),
        (b"[" * 100_000 + b"]" * 100_000, "cut off"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "no valid JSON"),
        (b'{"model": NaN}', "NaN is no number"),
        (b'{"model": 1e999}', "too large"),
        (b'{"model": ' + b"9" * 5000 + b"}", "no valid JSON"),
        (b'{"model": {"a": 1, "a": 2}}', "a key twice"),
        (b"{\xff}", "no valid JSON"),
    ],
    ids=range(9),
)
def test_a_json_file_that_is_none(tmp_path, data, message):
    (tmp_path / "tokenizer.json").write_bytes(data)
    with pytest.raises(TokenizerError, match=message):
        Tokenizer.from_folder(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bos_token": "<nowhere>"}, "bos_token '<nowhere>' is not in the vocabulary"),
        ({"bos_token": 7}, "bos_token is 7"),
        ({"eos_token": {"content": None}}, "eos_token is None"),
        ({"add_bos_token": "yes"}, "add_bos_token is 'yes'"),
        ({"added_tokens_decoder": []}, "must be a mapping"),
        ({"added_tokens_decoder": {"a": {"content": "x"}}}, "has the id 'a'"),
        ({"added_tokens_decoder": {"-1": {"content": "x"}}}, "has the id '-1'"),
        ({"added_tokens_decoder": {"999999999": {"content": "x"}}}, "has the id '999999999'"),
        (
            {"added_tokens_decoder": {"01": {"content": "x"}, "1": {"content": "y"}}},
            "two added tokens have the id 1",
        ),
        (
            {"added_tokens_decoder": {"500": {"content": "x"}, "501": {"content": "x"}}},
            "listed twice",
        ),
        ({"added_tokens_decoder": {"1": {"content": "x"}}}, "belongs to another token"),
        ({"added_tokens_decoder": {"500": {"content": "<s>"}}}, "belongs to another token"),
        ({"added_tokens_decoder": {"500": "x"}}, "must be an object"),
        ({"additional_special_tokens": "x"}, "must be a list"),
    ],
)
def test_a_damaged_config(tmp_path, changes, message):
    with pytest.raises(TokenizerError, match=message):
        Tokenizer.from_folder(write_pieces(tmp_path, LLAMA | changes))


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.model", "tokenizer_config.json"])
def test_what_is_no_plain_file(tmp_path, name):
    if name == "tokenizer_config.json":
        write_pieces(tmp_path, None)
    (tmp_path / name).mkdir()
    with pytest.raises(TokenizerError, match="no plain file"):
        Tokenizer.from_folder(tmp_path)
