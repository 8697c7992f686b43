"""The check of a prompt: what is refused, and when."""

import mlx.core as mx
import numpy as np
import pytest
from support import tiny

from edgellm.errors import ConfigError, ContextError

PROMPT = [tiny.BEGIN, *range(20, 60)]


def test_a_prompt_longer_than_the_context_is_refused(open_llm):
    llm = open_llm("llama-2", load={"context": 40})
    with pytest.raises(ContextError, match="41 tokens and the context 40") as caught:
        llm.stream(PROMPT)
    assert "256" in caught.value.hint
    windowed = open_llm("llama-2", load={"context_window": 16})
    assert windowed.generate(PROMPT, max_tokens=2).stats.prompt_tokens == len(PROMPT)
    with pytest.raises(ContextError):
        windowed.stream([5] * 257)


NO_IDS = [
    [1.0, 5.0],
    [True, 5],
    ["5"],
    [[5]],
    [None],
    b"abc",
    memoryview(b"abc"),
    {5, 6},
    {5: 6},
    5,
    None,
    np.array([5.0]),
    np.array([True]),
    np.array([[5]]),
    np.array(5),
    mx.array([5.0]),
    mx.array([True]),
    [10**30],
]


def test_every_door_takes_the_same_token_ids(open_llm):
    llm = open_llm("llama-2")
    ids = PROMPT[:4]
    kinds = [ids, tuple(ids), np.array(ids), list(np.array(ids, np.uint16)), mx.array(ids)]
    with llm.engine() as engine:
        doors = [
            lambda prompt: llm.generate(prompt, max_tokens=2).text,
            lambda prompt: llm.generate_batch([prompt], max_tokens=2)[0].text,
            lambda prompt: llm.logits(prompt).tolist(),
            lambda prompt: answered(engine, prompt),
        ]
        for door in doors:
            expected = door(ids)
            for kind in kinds:
                assert door(kind) == expected
            assert door(iter(ids)) == expected
        for wrong in NO_IDS:
            for door in (doors[0], doors[2], doors[3]):
                with pytest.raises(ConfigError):
                    door(wrong)
            assert isinstance(llm.generate_batch([wrong])[0].error, ConfigError)
        assert engine.idle


def answered(engine, prompt):
    """What a sequence of an engine says."""
    engine.submit(prompt, max_tokens=2)
    text = ""
    while not engine.idle:
        text += "".join(token.text for _, token in engine.step())
    return text


def test_bad_prompts_and_settings_are_refused_at_once(open_llm):
    llm = open_llm()
    for prompt in ([], [tiny.VOCABULARY], [-1]):
        with pytest.raises(ConfigError):
            llm.stream(prompt)
    with pytest.raises(ConfigError):
        llm.stream(PROMPT, temperature=-1)
    with pytest.raises(ConfigError, match="temprature"):
        llm.stream(PROMPT, temprature=1)
