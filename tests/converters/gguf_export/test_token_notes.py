"""An export says where llama.cpp will cut a text otherwise, and refuses what it cannot use.

Which tokenizers differ was asked of llama.cpp itself (llama-cpp-python 0.3.36): exports of such
tokenizers as these, 16 texts each, its ids beside ours. Those without a note were equal.
"""

import json

import pytest
from support.tiny_tokenizers import json_text, piece_model, write_pieces

from edgellm.converters.gguf_export.token_notes import (
    added_notes,
    byte_level_notes,
    frame_notes,
    piece_json_notes,
    sentencepiece_notes,
)
from edgellm.converters.gguf_export.vocabulary import vocabulary_metadata
from edgellm.errors import UnsupportedModelError
from edgellm.tokenizer import Tokenizer
from edgellm.tokenizer.added_tokens import AddedToken, Settings
from edgellm.tokenizer.spm_proto import read_piece_model

VOCABULARY = ["<s>", "\u2581", "a", "b", "c", "ab", "bc", "abc"]
PAIRS = [["a", "b"], ["b", "c"], ["a", "bc"], ["ab", "c"]]
PREPEND = {"type": "Prepend", "prepend": "\u2581"}
REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
LEGACY = {"type": "Sequence", "normalizers": [PREPEND, REPLACE]}


def metaspace(scheme, *, split=False):
    return {
        "type": "Metaspace",
        "replacement": "\u2581",
        "prepend_scheme": scheme,
        "split": split,
    }


def piece_document(normalizer=None, pre_tokenizer=None, vocabulary=VOCABULARY):
    return {
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "added_tokens": [{"id": 0, "content": "<s>", "special": True}],
        "model": {"vocab": {token: place for place, token in enumerate(vocabulary)}},
    }


@pytest.mark.parametrize(
    ("document", "pairs", "adds_space", "said"),
    [
        (piece_document(LEGACY), PAIRS, True, []),
        (piece_document(None, metaspace("never")), PAIRS, False, []),
        (piece_document(LEGACY), PAIRS[:2] + PAIRS[3:], True, ["only those pairs"]),
        (piece_document(LEGACY), [PAIRS[2], *PAIRS[:2], PAIRS[3]], True, ["only those pairs"]),
        (piece_document(None, metaspace("always")), PAIRS, True, ["begins with a space"]),
        (
            piece_document(None, metaspace("first")),
            PAIRS,
            True,
            ["begins with a space", "after a special token"],
        ),
        (
            piece_document(None, metaspace("never", split=True), [*VOCABULARY, "a\u2581b"]),
            PAIRS,
            False,
            [r"\(spaces\)"],
        ),
        (piece_document(None, metaspace("never", split=True)), PAIRS, False, []),
        (
            piece_document({"type": "NFKC"}, metaspace("never")),
            PAIRS,
            False,
            [r"changes a text .* \(NFKC\)"],
        ),
        (
            piece_document(
                LEGACY,
                {"type": "Sequence", "pretokenizers": [{"type": "Digits"}, metaspace("never")]},
            ),
            PAIRS,
            False,
            [r"\(Digits\)"],
        ),
    ],
)
def test_merging_of_letters(document, pairs, adds_space, said):
    notes = piece_json_notes(document, pairs, adds_space=adds_space)
    assert len(notes) == len(said)
    for note, pattern in zip(notes, said, strict=True):
        with pytest.raises(AssertionError, match=pattern):
            raise AssertionError(note)


@pytest.mark.parametrize("kind", ["NFC", "NFKC", "Lowercase"])
def test_merging_of_bytes(kind):
    document = json.loads(json_text("byte-level"))
    document["normalizer"] = None
    document["model"]["ignore_merges"] = False
    assert byte_level_notes(document, "qwen2") == []
    [note] = byte_level_notes(document, "llama-bpe")
    assert "merges it from its letters" in note
    document["normalizer"] = {"type": kind}
    [note] = byte_level_notes(document, "qwen2")
    assert f"({kind})" in note


def test_a_space_before_a_text_is_told_of_bytes_too():
    """Also of a tokenizer without merges, which fits every way to cut texts."""
    step = {"type": "ByteLevel", "add_prefix_space": True, "use_regex": True}
    document = {"pre_tokenizer": step, "model": {"merges": []}}
    [note] = byte_level_notes(document, "gpt-2")
    assert "puts a space before a text" in note
    step["add_prefix_space"] = False
    assert byte_level_notes(document, "gpt-2") == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, []),
        ({"remove_extra_whitespaces": True}, ["several spaces for one"]),
        ({"normalization_rule_name": "nmt_nfkc"}, ["a table of characters"]),
        ({"treat_whitespace_as_suffix": True}, ["space behind it"]),
    ],
)
def test_sentencepiece(options, said):
    model = read_piece_model(piece_model(**options))
    legacy = Settings(config={"legacy": True})
    notes = sentencepiece_notes(model, legacy, adds_space=True)
    assert len(notes) == len(said)
    assert all(words in note for note, words in zip(notes, said, strict=True))
    [first, *_] = sentencepiece_notes(model, Settings(), adds_space=True)
    assert "after a special token" in first


def test_spaces_beside_added_tokens():
    tokens = [{"content": "<mask>", "lstrip": True}, {"content": "<s>", "lstrip": False}]
    [note] = added_notes({"added_tokens": tokens})
    assert "'<mask>'" in note
    assert "'<s>'" not in note
    added = {5: AddedToken("<mask>", rstrip=True)}
    model = read_piece_model(piece_model())
    [note] = sentencepiece_notes(model, Settings(added=added), adds_space=False)
    assert "'<mask>'" in note


def test_what_stands_around_a_text_and_ends_it(tmp_path):
    tokenizer = Tokenizer.from_folder(write_pieces(tmp_path))
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>"],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.add_eos_token": False,
    }
    assert frame_notes(tokenizer, metadata) == []
    [note] = frame_notes(tokenizer, metadata | {"tokenizer.ggml.add_eos_token": True})
    assert "puts <s> around a text" in note
    del metadata["tokenizer.ggml.eos_token_id"]
    [note] = frame_notes(tokenizer, metadata)
    assert "token 2, '</s>'" in note


def test_ends_that_llama_cpp_does_not_know_get_the_keys_first(tmp_path):
    folder = write_pieces(tmp_path)
    tokenizer = Tokenizer.from_folder(folder)
    known = tokenizer.token_to_id("<|end|>")  # by its text, with or without a key
    metadata, _ = vocabulary_metadata(folder, 420, frozenset({known, 300, 301}))
    keys = ("eos_token_id", "eot_token_id", "eom_token_id")
    assert [metadata[f"tokenizer.ggml.{key}"] for key in keys] == [2, 300, 301]


def test_a_tokenizer_that_lacks_what_llama_cpp_needs_is_refused(tmp_path):
    folder = write_pieces(tmp_path / "letters", byte_fallback=False)
    with pytest.raises(UnsupportedModelError, match="256 bytes"):
        vocabulary_metadata(folder, 420, frozenset())
    folder = write_pieces(tmp_path / "twice")
    (folder / "added_tokens.json").write_text(json.dumps({"[PAD450]": 420}))
    with pytest.raises(UnsupportedModelError, match="written alike"):
        vocabulary_metadata(folder, 500, frozenset())
