"""Shapes that no number of machines divides, and all that a request may ask for: the same bits."""

import numpy as np
import pytest
from support.clusters import members, output_by_rows
from support.paged import PROMPT
from support.tiny import LLAMA, write_model

import edgellm
from edgellm import Grammar, Sampling
from edgellm.converters import convert

ODD = LLAMA | {
    "hidden_size": 96,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 14,
    "num_key_value_heads": 7,
    "head_dim": 16,
    "vocab_size": 331,
    "max_position_embeddings": 512,
}
LONG = [3 + 7 * token % 300 for token in range(150)]


def answers(llm):
    """Batches that end at different times, drawn, held to a form, scored, from known beginnings."""
    prompts = [PROMPT[:5], PROMPT, LONG[:90], [9] * 20, [8] * 20]
    ends = [Sampling(max_tokens=tokens) for tokens in (1, 9, 14, 3, 6)]
    drawn = [Sampling(max_tokens=8, temperature=1.0, top_p=0.9, seed=seed) for seed in (1, 2)]
    form = Grammar.regex("(ab|cd)+[0-9]{3}")
    scored = llm.generate(PROMPT, max_tokens=4, top_logprobs=3, prompt_logprobs=2)
    return [
        np.array(llm.logits(PROMPT)).tobytes(),
        [one.text for one in llm.generate_batch(prompts, ends)],
        [one.text for one in llm.generate_batch([PROMPT, PROMPT[3:]], drawn)],
        llm.generate(PROMPT, max_tokens=12, grammar=form).text,
        scored.text,
        repr((scored.prompt_logprobs, [token.top_logprobs for token in scored.tokens])),
        [
            llm.generate(LONG[:tokens], max_tokens=3, reuse_cache=True).text
            for tokens in (120, 150, 100)
        ],
        llm.generate(PROMPT, max_tokens=4, beams=3).text,
    ]


@pytest.mark.parametrize("stored", [8, None])
def test_what_no_number_of_machines_divides(tmp_path, stored):
    folder = write_model(tmp_path / "model", ODD)
    if stored:
        convert(folder, tmp_path / "made", bits=stored)
        folder = tmp_path / "made"
    load = {"context": 256, "threads": 1, "memory": "500MB"}
    with edgellm.load(folder, **load) as llm:
        one = answers(llm)
    for split, memories in (("windows", ["500MB"] * 2), ("rows", ["200MB", "300MB", "500MB"])):
        with (
            output_by_rows(),
            members(folder, tmp_path / split, memories) as hosts,
            edgellm.load(folder, machines=hosts, split=split, **load) as llm,
        ):
            assert answers(llm) == one


def test_a_model_of_one_layer(tmp_path):
    folder = write_model(tmp_path / "model", ODD | {"num_hidden_layers": 1})
    load = {"context": 64, "threads": 1, "memory": "500MB"}
    with edgellm.load(folder, **load) as llm:
        one = llm.generate(PROMPT, max_tokens=9).text
    with members(folder, tmp_path, ["500MB"]) as hosts:
        with pytest.raises(edgellm.ConfigError, match=r"1 layers? for 2 machines"):
            edgellm.load(folder, machines=hosts, split="windows", **load)
        # by themselves machines take what is possible
        for split in ("rows", "auto"):
            with edgellm.load(folder, machines=hosts, split=split, **load) as llm:
                assert llm.generate(PROMPT, max_tokens=9).text == one
