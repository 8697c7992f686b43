"""Streams that are read in turns, of models whose caches forget or cannot be cut."""

from itertools import zip_longest

import pytest
from support import tiny

from edgellm.converters import convert

PROMPTS = [[tiny.BEGIN, *range(40, 70)], [tiny.BEGIN, *range(80, 90)]]


def alone_and_in_turns(llm, **settings):
    """The tokens of each prompt's answer alone, and as the streams give them in turns."""
    alone = [[token.id for token in llm.generate(one, **settings).tokens] for one in PROMPTS]
    streams = [llm.stream(one, **settings) for one in PROMPTS]
    turns = [[], []]
    for tokens in zip_longest(*streams):
        for found, token in zip(turns, tokens, strict=True):
            if token is not None:
                found.append(token.id)
    return alone, turns


@pytest.mark.parametrize("settings", [{"beams": 2}, {"temperature": 1.0, "seed": 1}])
@pytest.mark.parametrize("load", [{}, {"context_window": 16}, {"context": 48}])
def test_they_give_what_they_give_alone(open_llm, settings, load):
    """A context of 48 has no room to keep the one while the other is computed."""
    llm = open_llm("llama-2", seed=1, load=load)
    alone, turns = alone_and_in_turns(llm, max_tokens=10, **settings)
    assert turns == alone


def test_a_stream_goes_on_from_its_own_tokens(open_llm, tiny_folder, tmp_path):
    """Another prompt may have the same first tokens, whose products were rounded otherwise."""
    convert(tiny_folder("llama-2", seed=1), tmp_path / "4bit", bits=4)
    llm = open_llm(tmp_path / "4bit")
    settings = {"max_tokens": 10, "logprobs": True}
    alone = [(token.id, token.logprob) for token in llm.generate(PROMPTS[0], **settings).tokens]
    stream = llm.stream(PROMPTS[0], **settings)
    tokens = [next(stream) for _ in range(6)]
    seen = [*PROMPTS[0], *(token.id for token in tokens)]
    llm.generate([*seen, *PROMPTS[1]], max_tokens=2)
    tokens += stream
    assert [(token.id, token.logprob) for token in tokens] == alone
