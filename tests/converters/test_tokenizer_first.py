"""A conversion loads the tokenizer before it reads a weight."""

import shutil

import pytest
from support.tiny import CONFIGS, write_model

from edgellm.converters import convert
from edgellm.errors import TokenizerError

DAMAGED = '{"decoder": {"type": "ByteLevel"}, "model": {"type": "WordPiece", "vocab": {"a": 0}}}'


@pytest.fixture
def source(tmp_path):
    return write_model(tmp_path / "source", CONFIGS["llama-2"])


def converted(source, **settings):
    """What a conversion says, and the steps at which it has read something."""
    steps = []
    convert(source, source.parent / "made", progress=steps.append, **settings)
    return [step.message for step in steps if step.message], [
        step for step in steps if step.bytes_done
    ]


@pytest.mark.parametrize("recipe", ["uniform", "mixed"])
def test_a_tokenizer_that_does_not_load_is_refused_first(source, recipe):
    (source / "tokenizer.json").write_text(DAMAGED)
    steps = []
    with pytest.raises(TokenizerError, match="model of type 'WordPiece'") as caught:
        convert(source, source.parent / "made", recipe=recipe, progress=steps.append)
    assert steps == []
    assert caught.value.hint
    assert [path.name for path in source.parent.iterdir()] == ["source"]


def test_the_refusal_names_the_file_alone(source):
    (source / "tokenizer.json").write_text("cut off")
    with pytest.raises(TokenizerError, match=r"^tokenizer\.json is cut off"):
        convert(source, source.parent / "made")


def test_a_tokenizer_that_was_named_is_asked_in_its_place(source, tmp_path):
    good = shutil.copy(source / "tokenizer.json", tmp_path / "good.json")
    (source / "tokenizer.json").write_text(DAMAGED)
    said, read = converted(source, tokenizer=good)
    assert said == []
    assert read
    with pytest.raises(TokenizerError, match="WordPiece"):
        convert(tmp_path / "made", tmp_path / "again", tokenizer=source / "tokenizer.json")


def test_a_source_without_a_tokenizer_is_converted_and_the_lack_is_said(tmp_path):
    source = write_model(tmp_path / "source", CONFIGS["llama-2"], tokenizer=False)
    said, read = converted(source)
    assert "no tokenizer" in said[0]
    assert read
