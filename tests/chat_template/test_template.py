"""Chat templates are found in the files of a model folder, and chosen by name."""

import json

import pytest
from support.conversations import HELLO, TOOLS
from support.tiny_tokenizers import LLAMA, write_config, write_json, write_pieces

from edgellm.chat_template.template import MAX_SOURCE, find_templates
from edgellm.errors import TemplateError
from edgellm.tokenizer import Tokenizer


def test_files_and_their_order(tmp_path):
    assert find_templates(tmp_path, {}) == {}
    config = {
        "chat_template": [
            {"name": "default", "template": "config"},
            {"name": "tool_use", "template": "tools"},
        ]
    }
    assert find_templates(tmp_path, config) == {"default": "config", "tool_use": "tools"}
    write_config(tmp_path, {"chat_template": "json"}, "chat_template.json")
    assert find_templates(tmp_path, config) == {"default": "config", "tool_use": "tools"}
    assert find_templates(tmp_path, {"chat_template": None}) == {"default": "json"}
    named = tmp_path / "additional_chat_templates"
    named.mkdir()
    (named / "rag.jinja").write_text("rag")
    assert find_templates(tmp_path, config) == {"default": "config", "rag": "rag"}
    (tmp_path / "chat_template.jinja").write_text("jinja é", encoding="utf-8")
    assert find_templates(tmp_path, config) == {"default": "jinja é", "rag": "rag"}
    (named / "default.jinja").write_text("never")
    assert find_templates(tmp_path, config) == {"default": "jinja é", "rag": "rag"}


@pytest.mark.torch
@pytest.mark.parametrize("tools", [None, TOOLS], ids=["plain", "tools"])
@pytest.mark.parametrize("name", [None, "default", "rag"])
def test_templates_of_a_folder_are_those_of_transformers(tmp_path, name, tools):
    from transformers import AutoTokenizer

    folder = write_json(tmp_path, "byte-level", chat_template="config")
    (folder / "chat_template.jinja").write_text("usual {{ messages[0].content }}")
    (folder / "additional_chat_templates").mkdir()
    for other in ("rag", "tool_use"):
        file = folder / "additional_chat_templates" / f"{other}.jinja"
        file.write_text(f"{other} {{{{ messages[0].role }}}}")
    theirs = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        HELLO, tools=tools, chat_template=name, tokenize=False
    )
    assert Tokenizer.from_folder(folder).render(HELLO, tools=tools, template=name) == theirs


def test_templates_by_name(tmp_path):
    named = [
        {"name": "default", "template": "plain"},
        {"name": "tool_use", "template": "{{ tools | length }}"},
    ]
    tokenizer = Tokenizer.from_folder(write_pieces(tmp_path, LLAMA | {"chat_template": named}))
    assert tokenizer.chat_template == "plain"
    assert tokenizer.render(HELLO) == "plain"
    assert tokenizer.render(HELLO, tools=TOOLS) == "1"
    assert tokenizer.render(HELLO, template="default", tools=TOOLS) == "plain"
    with pytest.raises(TemplateError, match="no chat template 'other'") as caught:
        tokenizer.render(HELLO, template="other")
    assert caught.value.hint == "there are: default, tool_use"


def test_no_template(tmp_path):
    tokenizer = Tokenizer.from_folder(write_pieces(tmp_path, None))
    assert tokenizer.chat_template is None
    with pytest.raises(TemplateError, match="has no chat template"):
        tokenizer.apply_chat_template(HELLO)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("chat_template.jinja", b"\xff\xfe"),
        ("chat_template.jinja", b"a" * (4 * MAX_SOURCE + 1)),
        ("chat_template.json", b"{"),
        ("chat_template.json", json.dumps({"chat_template": 7}).encode()),
        ("chat_template.json", json.dumps({"chat_template": ["a"]}).encode()),
        ("chat_template.json", json.dumps({"chat_template": [{"name": "a"}]}).encode()),
    ],
    ids=range(6),
)
def test_damaged_files(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(TemplateError):
        find_templates(tmp_path, {})
