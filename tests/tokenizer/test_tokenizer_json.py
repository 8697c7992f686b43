"""A tokenizer.json: the ids and texts of transformers, and an error for each damage."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tiny_tokenizers import (
    JSON_KINDS,
    edited,
    json_text,
    write_config,
    write_json,
)
from support.tokenizer_texts import any_texts, mixed_texts

from edgellm.errors import TokenizerError
from edgellm.tokenizer import Tokenizer


@pytest.fixture(scope="module", params=JSON_KINDS)
def from_json(request, tmp_path_factory):
    return write_json(tmp_path_factory.mktemp("json"), request.param)


@given(st.one_of(mixed_texts, any_texts))
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


SPLIT = {"type": "Split", "pattern": {"Regex": "a"}, "behavior": "Isolated", "invert": False}
GROWING = {"type": "Replace", "pattern": {"String": "a"}, "content": "aaaa"}
BYTES = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": False}


@pytest.mark.parametrize(
    ("kind", "path", "value", "message"),
    [
        ("byte-level", "model", None, "no model"),
        ("byte-level", "model/type", "WordPiece", "model of type 'WordPiece'"),
        ("byte-level", "model/vocab", {}, "no vocabulary"),
        ("byte-level", "model/vocab", "/dev/null", "no vocabulary"),
        ("byte-level", "model/merges", "/dev/null", "no list of merges"),
        ("byte-level", "model/vocab/a", "1", "is damaged: .*PyVocab"),
        ("byte-level", "model/vocab/a", True, "one id to two tokens"),
        ("byte-level", "model/vocab/a", 10**30, "is damaged: .*PyVocab"),
        ("byte-level", "model/vocab/a", 2**32 - 1, "ids go from 0"),
        ("byte-level", "model/vocab/a", -1, "is damaged: .*PyVocab"),
        ("byte-level", "model/vocab/a", 0, "one id to two tokens"),
        ("byte-level", "model/vocab/\ud800", 399, "gives one id|is damaged|no valid"),
        ("byte-level", "model/merges", {}, "no list of merges"),
        ("byte-level", "model/merges/0", ["a"], "is damaged: .*PyMerges"),
        ("byte-level", "model/merges/0", "a b c", "is damaged: .*PyMerges"),
        ("byte-level", "model/merges/0", [1, 2], "is damaged: .*PyMerges"),
        ("byte-level", "model/merges/0", ["", "a"], "Token `` out of vocabulary"),
        ("byte-level", "model/merges/0", 7, "is damaged: .*not iterable"),
        (
            "byte-level",
            "model/merges/0",
            ["zz", "yy"],
            "Token `zz` out of vocabulary",
        ),
        ("byte-level", "model/merges/0", ["!", "!"], "Token `!!` out of vocabulary"),
        ("byte-level", "model/continuing_subword_prefix", " ", "continuing_subword_prefix"),
        ("byte-level", "model/unk_token", "nowhere", "unknown token 'nowhere'"),
        ("byte-level", "model/fuse_unk", 1, "not an instance of 'bool'"),
        ("unigram", "model/vocab", [], "vocabulary is empty"),
        ("unigram", "model/vocab", {}, "no vocabulary"),
        ("unigram", "model/vocab/3", ["a", 1e31], "impossible piece"),
        ("unigram", "model/vocab/3", 7, "is damaged: .*not iterable"),
        ("unigram", "model/vocab/3", ["a", None], "must be real number"),
        ("unigram", "model/vocab/3", ["", 0.0], "impossible piece"),
        ("unigram", "model/vocab/3", ["<s>", 0.0], "a piece twice"),
        ("unigram", "model/unk_id", 10**6, "`unk_id` is larger"),
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
            "the maximum is 64",
        ),
        ("byte-level", "pre_tokenizer", SPLIT | {"pattern": {"Regex": "a" * 99_999}}, "too long"),
        (
            "byte-level",
            "pre_tokenizer",
            SPLIT | {"pattern": {"Regex": "("}},
            "is damaged: .*parenthesis",
        ),
        (
            "byte-level",
            "post_processor",
            {"type": "BertProcessing"},
            "processor that edgellm does not know: 'BertProcessing'",
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
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "not valid JSON"),
        (b'{"model": NaN}', "NaN is not a number"),
        (b'{"model": 1e999}', "too large"),
        (b'{"model": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b'{"model": {"a": 1, "a": 2}}', "the key 'a' occurs twice"),
        (b"{\xff}", "not valid JSON"),
    ],
    ids=range(9),
)
def test_a_json_file_that_is_none(tmp_path, data, message):
    (tmp_path / "tokenizer.json").write_bytes(data)
    with pytest.raises(TokenizerError, match=message):
        Tokenizer.from_folder(tmp_path)


def test_added_tokens_out_of_order_are_refused(tmp_path):
    import tokenizers

    document = json.loads(json_text("byte-level"))
    document["added_tokens"].reverse()
    library = tokenizers.Tokenizer.from_str(json.dumps(document))
    said = {token["content"]: token["id"] for token in document["added_tokens"]}
    assert library.token_to_id("<|begin|>") != said["<|begin|>"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(TokenizerError, match="not in the order of their ids"):
        Tokenizer.from_folder(tmp_path)


@pytest.mark.parametrize("kind", ["RobertaProcessing", "BertProcessing"])
def test_the_frames_of_older_processors_are_those_of_the_library(tmp_path, kind):
    import tokenizers

    document = json.loads(json_text("byte-level"))
    begin, end = (
        [token["content"], token["id"]]
        for token in document["added_tokens"]
        if token["content"] in ("<|begin|>", "<|end|>")
    )
    processor = {"type": kind, "sep": end, "cls": begin}
    if kind == "RobertaProcessing":
        processor |= {"trim_offsets": True, "add_prefix_space": False}
    document["post_processor"] = processor
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    tokenizer = Tokenizer.from_folder(tmp_path)
    library = tokenizers.Tokenizer.from_str(json.dumps(document))
    for text in ("", "The little dog"):
        assert tokenizer.encode(text) == library.encode(text).ids
        assert tokenizer.encode(text)[0] == begin[1]
    processor["sep"] = ["<|end|>", 10**6]
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(TokenizerError, match="tokens round a text that it does not have"):
        Tokenizer.from_folder(tmp_path)


def write_merges(folder, config, *, later=()):
    """A byte-level tokenizer as older folders have it, in vocab.json and merges.txt."""
    document = json.loads(json_text("byte-level"))
    added = [
        {key: value for key, value in token.items() if key != "id"}
        for token in document["added_tokens"]
    ]
    start = document["added_tokens"][0]["id"]
    folder.mkdir(exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(document["model"]["vocab"]))
    lines = [" ".join(merge) for merge in document["model"]["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *lines, *later, ""]))
    decoder = {str(start + at): token for at, token in enumerate(added)}
    return write_config(folder, {"added_tokens_decoder": decoder} | config)


ENDS = {"bos_token": "<|begin|>", "eos_token": "<|end|>", "unk_token": "<|end|>"}


@given(mixed_texts)
@pytest.mark.parametrize("kind", ["Qwen2Tokenizer", "GPT2Tokenizer"])
def test_vocab_and_merges_have_the_ids_of_transformers(reference, tmp_path_factory, kind, text):
    folder = tmp_path_factory.getbasetemp() / kind
    if not folder.exists():
        write_merges(folder, {"tokenizer_class": kind} | ENDS)
        family = {"model_type": kind.removesuffix("Tokenizer").lower()}
        (folder / "config.json").write_text(json.dumps(family))
    ours, theirs = Tokenizer.from_folder(folder), _opened(reference, folder)
    ids = theirs.encode(text)
    assert ours.encode(text) == ids
    assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)


def test_vocab_and_merges_follow_the_switches_beside_them(tmp_path):
    config = {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True} | ENDS
    tokenizer = Tokenizer.from_folder(write_merges(tmp_path, config))
    assert tokenizer.encode("")[0] == tokenizer.bos_token_id == tokenizer.token_to_id("<|begin|>")
    assert tokenizer.eos_token_ids == {tokenizer.token_to_id("<|end|>")}


@pytest.mark.parametrize(("kind", "begins"), [("GPT2Tokenizer", True), ("Qwen2Tokenizer", False)])
def test_gpt_2s_class_has_a_beginning_where_the_folder_names_none(tmp_path, kind, begins):
    token = {"content": "<|endoftext|>", "special": True}
    config = {"tokenizer_class": kind, "add_bos_token": True}
    folder = write_merges(tmp_path, config)
    vocab = json.loads((folder / "vocab.json").read_text())
    write_config(folder, config | {"added_tokens_decoder": {str(len(vocab)): token}})
    # as transformers 5.24: the class of Qwen 2 has none
    assert (Tokenizer.from_folder(folder).encode("")[:1] == [len(vocab)]) is begins


@pytest.mark.parametrize(
    ("config", "later", "message"),
    [
        ({"tokenizer_class": "RobertaTokenizer"}, (), "which is 'RobertaTokenizer'; known are"),
        ({}, (), "which is None"),
        ({"tokenizer_class": "Qwen2Tokenizer"}, ("a b c",), "damaged"),
        ({"tokenizer_class": "Qwen2Tokenizer"}, ("alone",), "damaged"),
        ({"tokenizer_class": "Qwen2Tokenizer"}, ("zz yy",), "out of vocabulary"),
    ],
)
def test_vocab_and_merges_that_cannot_be_read(tmp_path, config, later, message):
    with pytest.raises(TokenizerError, match=message) as caught:
        Tokenizer.from_folder(write_merges(tmp_path, config, later=later))
    assert caught.value.hint


def test_a_merges_file_that_is_no_text(tmp_path):
    write_merges(tmp_path, {"tokenizer_class": "Qwen2Tokenizer"})
    (tmp_path / "merges.txt").write_bytes(b"\xff")
    with pytest.raises(TokenizerError, match=r"merges\.txt is not UTF-8"):
        Tokenizer.from_folder(tmp_path)
