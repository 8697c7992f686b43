"""The check of a prompt: what is refused, and when."""

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


def test_bad_prompts_and_settings_are_refused_at_once(open_llm):
    llm = open_llm()
    for prompt in ([], [tiny.VOCABULARY], [-1]):
        with pytest.raises(ConfigError):
            llm.stream(prompt)
    with pytest.raises(ConfigError):
        llm.stream(PROMPT, temperature=-1)
    with pytest.raises(ConfigError, match="temprature"):
        llm.stream(PROMPT, temprature=1)
