"""A folder's named chat templates come along, where every reader finds them."""

import pytest
from support.conversations import HELLO
from support.tiny import CONFIGS, write_model

from edgellm.converters import convert
from edgellm.diagnostics.verify import verify
from edgellm.tokenizer import Tokenizer

TEXTS = {None: "usual", "rag": "with é"}


@pytest.fixture
def source(tmp_path):
    folder = write_model(tmp_path / "source", CONFIGS["llama-2"])
    (folder / "chat_template.jinja").write_text("usual")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "rag.jinja").write_text("with é", encoding="utf-8")
    return folder


def test_named_templates_are_converted(source, tmp_path):
    convert(source, tmp_path / "made")
    tokenizer = Tokenizer.from_folder(tmp_path / "made")
    assert {name: tokenizer.render(HELLO, template=name) for name in TEXTS} == TEXTS
    assert verify(tmp_path / "made").passed


def test_a_tokenizer_of_another_folder_brings_its_templates(source, tmp_path):
    plain = write_model(tmp_path / "plain", CONFIGS["llama-2"])
    convert(plain, tmp_path / "made", tokenizer=source)
    tokenizer = Tokenizer.from_folder(tmp_path / "made")
    assert {name: tokenizer.render(HELLO, template=name) for name in TEXTS} == TEXTS


@pytest.mark.torch
def test_transformers_finds_them_too(source, tmp_path):
    from transformers import AutoTokenizer

    convert(source, tmp_path / "made")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "made")
    rendered = {
        name: tokenizer.apply_chat_template(HELLO, chat_template=name, tokenize=False)
        for name in TEXTS
    }
    assert rendered == TEXTS
