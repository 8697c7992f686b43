"""Prefill: the chunks of a prompt change nothing, and it can be left between two of them."""

import numpy as np
import pytest
from support import tiny
from support.counting import open_counted, paged_settings

PROMPT = [tiny.BEGIN, *range(20, 60)]


@pytest.mark.parametrize("kind", ["llama-3.1", "mistral-window", "qwen2-window"])
def test_the_prompt_may_be_computed_in_chunks_of_any_size(kind, open_llm):
    whole = open_llm(kind, load={"prefill_chunk": 512})
    logits = np.array(whole.logits(PROMPT))
    text = whole.generate(PROMPT, max_tokens=24)
    for chunk in (1, 7, 8, 9, 10, 40):
        llm = open_llm(kind, load={"prefill_chunk": chunk})
        np.testing.assert_allclose(np.array(llm.logits(PROMPT)), logits, atol=1e-4)
        assert [token.id for token in llm.generate(PROMPT, max_tokens=24).tokens] == [
            token.id for token in text.tokens
        ]


@pytest.mark.parametrize("async_compute", [True, False])
def test_cancelled_in_the_middle_of_the_prompt(async_compute, tiny_folder):
    llm, layers = open_counted(tiny_folder("llama-2"), async_compute=async_compute, prefill_chunk=8)
    with llm:
        expected = llm.generate(PROMPT, max_tokens=4).text
        llm.prefix_cache.clear()
        layers.lengths.clear()
        asked = []

        def watch(progress):
            asked.append(progress.prefill_done)
            if progress.prefill_done == 16:
                llm.cancel()

        tokens = list(llm.stream(PROMPT, max_tokens=4, on_prefill=watch))
        assert asked == [0, 8, 16]
        assert layers.lengths == [8, 8]
        assert [(token.id, token.text, token.finish_reason) for token in tokens] == [
            (None, "", "cancelled")
        ]
        assert tokens[-1].stats.completion_tokens == 0
        again = llm.generate(PROMPT, max_tokens=4, reuse_cache=True)
        assert (again.text, again.stats.cached_tokens) == (expected, 16)


def test_paged_and_resident_logits_are_the_same_bits(tiny_folder, open_llm):
    folder = tiny_folder("llama-2")
    resident, paged = open_llm(folder), open_llm(folder, load=paged_settings(folder))
    assert resident.plan.resident
    assert not paged.plan.resident
    for prompt in (PROMPT[:20], PROMPT[:1]):  # one chunk in either
        assert np.array_equal(np.array(paged.logits(prompt)), np.array(resident.logits(prompt)))
        answer = paged.generate(prompt, max_tokens=16)
        assert (answer.text, answer.stats.weight_passes) == (
            resident.generate(prompt, max_tokens=16).text,
            16,
        )
