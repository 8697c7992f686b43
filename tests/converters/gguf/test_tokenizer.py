"""Tokenizers in GGUF's metadata: how texts are cut, ends of an answer, roles."""

import json

import pytest
from support.gguf_files import SAMPLE_TEXTS, WIDE, add_byte_level, add_pieces, write_gguf
from support.tiny import CONFIGS

from edgellm.converters import convert, export
from edgellm.converters.gguf.header import open_gguf
from edgellm.converters.gguf.source import GgufSource
from edgellm.converters.tokenizers.companions import companion_tokenizer
from edgellm.converters.tokenizers.pretokenizers import (
    PATTERNS,
    pre_tokenizer_json,
    pre_tokenizer_of,
)
from edgellm.tokenizer import Tokenizer
from edgellm.tokenizer.detokenizer import steps_of


@pytest.mark.parametrize("splitting", PATTERNS)
def test_each_way_to_cut_a_text_is_known_again(splitting):
    known = pre_tokenizer_of(steps_of(pre_tokenizer_json(splitting), "pretokenizers"))
    # which cut alike, and differ in what else llama.cpp does
    assert known == {"smaug-bpe": "llama-bpe"}.get(splitting, splitting)


def test_what_is_dropped_where_nothing_is_left_is_nothing():
    """Phi-4's tokenizer.json says it so."""
    steps = steps_of(pre_tokenizer_json("gpt-4o"), "pretokenizers")
    steps[0] |= {"behavior": "Removed", "invert": True}
    assert pre_tokenizer_of(steps) == "gpt-4o"
    steps[0]["invert"] = False
    assert pre_tokenizer_of(steps) is None


@pytest.mark.parametrize("splitting", PATTERNS)
def test_byte_level_tokenizers_come_in(tmp_path, splitting):
    def metadata(writer):
        writer.add_chat_template(
            [{"name": "default", "template": "A"}, {"name": "tool_use", "template": "B"}]
        )

    def vocabulary(writer, size):
        add_byte_level(writer, size, pre=splitting)

    path = tmp_path / "model.gguf"
    write_gguf(path, CONFIGS["llama-2"], vocabulary=vocabulary, metadata=metadata)
    convert(path, tmp_path / "made")
    tokenizer = Tokenizer.from_folder(tmp_path / "made")
    assert tokenizer.encode("<|begin|>a<|end|>", add_special_tokens=False)[::2] == [0, 1]
    assert tokenizer.encode("", add_special_tokens=True) == [0]
    for text in SAMPLE_TEXTS:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.chat_template == "A"


def test_ends_that_llama_cpp_knows_by_their_text_end_an_answer(tmp_path):
    def vocabulary(writer, size):
        add_byte_level(writer, size, ends={510: ("<|im_end|>", 1), 511: ("<|fim_pad|>", 3)})

    path = tmp_path / "model.gguf"
    write_gguf(path, WIDE, vocabulary=vocabulary)
    said = []
    convert(path, tmp_path / "made", progress=lambda step: said.append(step.message))
    config = json.loads((tmp_path / "made" / "config.json").read_text())
    assert config["eos_token_id"] == [1, 510, 511]
    assert any(message and "'<|im_end|>', '<|fim_pad|>'" in message for message in said)
    tokenizer = Tokenizer.from_folder(tmp_path / "made")
    # a plain token in the file, and control all the same
    assert tokenizer.encode("a<|im_end|>", add_special_tokens=False)[1:] == [510]
    assert tokenizer.decode([510]) == ""


@pytest.mark.parametrize("token", [-1, 10**6])
def test_a_role_whose_id_is_no_token_is_taken_as_none_and_said(tmp_path, token):
    def vocabulary(writer, size):
        add_byte_level(writer, size)
        writer.add_int32("tokenizer.ggml.padding_token_id", token)
        writer.add_int32("tokenizer.ggml.eot_token_id", token)

    write_gguf(tmp_path / "model.gguf", WIDE, vocabulary=vocabulary)
    said = []
    convert(
        tmp_path / "model.gguf", tmp_path / "made", progress=lambda step: said.append(step.message)
    )
    for key in ("padding_token_id", "eot_token_id"):
        assert any(f"{key} is {token}" in text and "as none" in text for text in filter(None, said))
    config = json.loads((tmp_path / "made" / "config.json").read_text())
    assert config["eos_token_id"] == 1


class Without:
    """A writer that leaves some of what it is told out."""

    def __init__(self, writer, left_out, tokens=dict):
        self._writer, self._left_out, self._tokens = writer, left_out, tokens

    def __getattr__(self, name):
        if name in self._left_out:
            return lambda *_: None
        return getattr(self._writer, name)

    def add_token_list(self, tokens):
        self._writer.add_token_list(
            [self._tokens().get(at, text) for at, text in enumerate(tokens)]
        )


@pytest.mark.parametrize(
    "left_out",
    [
        ("add_token_types",),
        ("add_token_scores", "add_add_bos_token", "add_tokenizer_pre"),
        ("add_bos_token_id", "add_eos_token_id", "add_unk_token_id"),
    ],
)
def test_what_a_file_leaves_out_is_as_in_llama_cpp(tmp_path, left_out):
    made = []
    for number, missing in enumerate((left_out, ())):
        path = tmp_path / f"{number}.gguf"

        def vocabulary(writer, size, missing=missing):
            add_pieces(Without(writer, missing), size)

        write_gguf(path, CONFIGS["llama-2"] | {"vocab_size": 440}, vocabulary=vocabulary)
        source = GgufSource(path)
        made.append((source, companion_tokenizer(source.companions, vocab_size=None)))
    (source, tokenizer), (whole, expected) = made
    for text in SAMPLE_TEXTS:
        if "<" not in text and "add_token_scores" not in left_out:
            assert tokenizer.encode(text) == expected.encode(text)
    assert tokenizer.encode("") == [1]
    assert source.config["eos_token_id"] == whole.config["eos_token_id"]


def test_tokens_without_a_text_get_one_as_in_llama_cpp(tmp_path):
    def vocabulary(writer, size):
        add_pieces(Without(writer, (), lambda: {410: "", 411: ""}), size)

    path = tmp_path / "model.gguf"
    write_gguf(path, CONFIGS["llama-2"] | {"vocab_size": 440}, vocabulary=vocabulary)
    tokenizer = companion_tokenizer(GgufSource(path).companions, vocab_size=None)
    assert tokenizer.id_to_token(410) == "[EMPTY_410]"


def test_user_defined_spaces_are_found_as_llama_cpp_finds_them(tmp_path):
    """Gemma's runs of spaces; llama.cpp 0.3.36 gives the same tokens, and writes them so."""

    def vocabulary(writer, size):
        add_pieces(writer, size, own={size - 2: "   ", size - 1: "\n\n"})

    write_gguf(tmp_path / "model.gguf", CONFIGS["llama-2"], vocabulary=vocabulary)
    convert(tmp_path / "model.gguf", tmp_path / "made")
    tokenizer = Tokenizer.from_folder(tmp_path / "made")
    size = CONFIGS["llama-2"]["vocab_size"]
    assert size - 2 in tokenizer.encode("a   b")
    assert size - 1 in tokenizer.encode("a\n\nb")
    export(tmp_path / "made", tmp_path / "again.gguf")
    tokens = open_gguf(tmp_path / "again.gguf").metadata["tokenizer.ggml.tokens"]
    assert tokens[size - 2 :] == ["   ", "\n\n"]
