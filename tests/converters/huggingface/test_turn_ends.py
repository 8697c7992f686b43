"""A converted folder names the ends of turns that only its chat template knew."""

import json
import warnings

import pytest
from support.tiny import BEGIN, CONFIGS, END, write_model

import edgellm
from edgellm.converters import convert

OTHER = CONFIGS["llama-2"] | {"eos_token_id": 5, "num_hidden_layers": 1}


def converted(tmp_path, config, generation_config=None):
    """The folder of a converted model, and what the conversion has said."""
    source = write_model(tmp_path / "source", config, generation_config=generation_config)
    said = []
    convert(source, tmp_path / "made", progress=lambda step: said.append(step.message or ""))
    return tmp_path / "made", "".join(said)


@pytest.mark.parametrize(
    ("given", "written"),
    [
        (None, {"bos_token_id": BEGIN, "eos_token_id": [5, END]}),
        ({"eos_token_id": [5, 7], "top_p": 0.9}, {"eos_token_id": [5, 7, END], "top_p": 0.9}),
        ({"eos_token_id": -1}, {"eos_token_id": [5, END]}),
    ],
)
def test_ends_of_turns_are_written(tmp_path, given, written):
    made, said = converted(tmp_path, OTHER, given)
    assert json.loads((made / "generation_config.json").read_text()) == written
    assert "<|end|> ends turns in the chat template" in said
    with warnings.catch_warnings(), edgellm.load(made, memory="500MB", threads=1) as llm:
        warnings.simplefilter("error")
        assert llm.eos_token_ids >= {5, END}


def test_a_file_that_names_them_is_copied(tmp_path):
    given = {"eos_token_id": [5, END], "bos_token_id": BEGIN}
    made, said = converted(tmp_path, OTHER, given)
    theirs = (tmp_path / "source" / "generation_config.json").read_bytes()
    assert (made / "generation_config.json").read_bytes() == theirs
    assert said == ""


@pytest.mark.torch
def test_transformers_ends_there_too(tmp_path):
    from transformers import GenerationConfig

    made, _ = converted(tmp_path, OTHER)
    settings = GenerationConfig.from_pretrained(made)
    assert (settings.bos_token_id, settings.eos_token_id) == (BEGIN, [5, END])
