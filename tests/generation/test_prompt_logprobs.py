"""The log-probabilities of a prompt's own tokens, with whatever comes after it."""

import numpy as np
import pytest
from support import tiny
from support.counting import open_counted, paged_settings

from edgellm.errors import ConfigError

PROMPT = [tiny.BEGIN, *range(40, 75)]


def expected_of(llm, ids):
    logits = np.array(llm.logits(ids), np.float64)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


@pytest.mark.parametrize("settings", [{}, {"prefill_chunk": 8}, {"paged": True}])
def test_they_are_those_of_the_logits(settings, tiny_folder):
    folder = tiny_folder("llama-2", seed=1)
    if settings.pop("paged", False):
        settings = paged_settings(folder, context=128, prefill_chunk=8)
    llm, layers = open_counted(folder, **settings)
    with llm:
        plain = llm.generate(PROMPT, max_tokens=4)
        assert plain.prompt_logprobs == ()
        rows = expected_of(llm, PROMPT)[:-1]
        own = rows[np.arange(len(PROMPT) - 1), PROMPT[1:]]
        layers.lengths.clear()
        completion = llm.generate(PROMPT, max_tokens=4, prompt_logprobs=2)
        assert sum(layers.lengths) == len(PROMPT) + 3
        asked = [
            completion,
            llm.generate(PROMPT, max_tokens=4, prompt_logprobs=2, reuse_cache=True),
            *llm.generate_batch([PROMPT, PROMPT], max_tokens=4, prompt_logprobs=2),
        ]
        for one in asked:
            assert one.ids == plain.ids
            first, *others = one.prompt_logprobs
            assert (first.id, first.text, first.logprob) == (tiny.BEGIN, "<|begin|>", None)
            assert [token.id for token in others] == PROMPT[1:]
            np.testing.assert_allclose([token.logprob for token in others], own, atol=1e-4)
            likeliest = np.argsort(-rows, axis=-1)[:, :2]
            assert [
                [top.id for top in token.top_logprobs] for token in others
            ] == likeliest.tolist()
        beams = llm.generate(PROMPT, max_tokens=3, prompt_logprobs=0, beams=2)
        np.testing.assert_allclose(
            [token.logprob for token in beams.prompt_logprobs[1:]], own, atol=1e-4
        )
        assert beams.prompt_logprobs[1].top_logprobs == ()


def test_one_token_and_wrong_numbers(open_llm):
    llm = open_llm("llama-2", seed=1)
    assert [
        token.id for token in llm.generate([7], max_tokens=1, prompt_logprobs=3).prompt_logprobs
    ] == [7]
    for wrong in (-1, True, 1.5):
        with pytest.raises(ConfigError, match="prompt_logprobs"):
            llm.generate([7], prompt_logprobs=wrong)
