"""Hidden states are transformers', layer by layer, and embeddings are pooled of them."""

import asyncio

import numpy as np
import pytest
from support import tiny
from support.counting import paged_settings

from edgellm import AsyncLLM
from edgellm.errors import ConfigError, ContextError, EdgeLLMError

PROMPT = [tiny.BEGIN, *range(40, 60)]
KINDS = ("llama-2", "qwen3", "mistral-window")


@pytest.mark.torch
@pytest.mark.parametrize("kind", KINDS)
def test_hidden_states_are_those_of_transformers(kind, tiny_folder, open_llm):
    import torch
    from make_golden import open_reference

    folder = tiny_folder(kind)
    exact = {"activations": "float", "kv_bits": 32}
    llm, reference = open_llm(folder, load=exact), open_reference(folder)
    with torch.no_grad():
        theirs = reference(torch.tensor([PROMPT]), output_hidden_states=True).hidden_states
    assert len(theirs) == tiny.LAYERS + 1
    for layer in (*range(tiny.LAYERS + 1), -1, -2):
        ours = llm.hidden_states(PROMPT, layer=layer)
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs[layer][0].numpy(), atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("paged", [False, True])
def test_the_last_states_give_the_logits_and_the_vectors(paged, tiny_folder, open_llm):
    folder = tiny_folder("llama-2", seed=1)
    settings = {"prefill_chunk": 8}
    if paged:
        settings = paged_settings(folder, prefill_chunk=8)
    llm = open_llm(folder, load=settings | {"activations": "float", "kv_bits": 32})
    assert llm.plan.resident != paged
    plain = open_llm(folder, load={"activations": "float", "kv_bits": 32})
    states = llm.hidden_states(PROMPT)
    np.testing.assert_array_equal(states, plain.hidden_states(PROMPT))
    for layer in (0, 1, tiny.LAYERS - 1):
        np.testing.assert_array_equal(
            llm.hidden_states(PROMPT, layer=layer), plain.hidden_states(PROMPT, layer=layer)
        )
    texts = [PROMPT, PROMPT[:3], "The little dog", PROMPT[:12]]
    all_states = [llm.hidden_states(text).astype(np.float64) for text in texts]
    for pooling, pooled in (
        ("mean", [one.mean(axis=0) for one in all_states]),
        ("last", [one[-1] for one in all_states]),
    ):
        vectors = llm.embed(texts, pooling=pooling, normalize=False)
        assert (vectors.shape, vectors.dtype) == ((4, 64), np.float32)
        np.testing.assert_allclose(vectors, pooled, atol=1e-5)
        unit = llm.embed(texts, pooling=pooling)
        np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1.0, atol=1e-6)
        np.testing.assert_allclose(
            unit, vectors / np.linalg.norm(vectors, axis=1, keepdims=True), atol=1e-6
        )
    assert llm.generate(PROMPT, max_tokens=4).ids == plain.generate(PROMPT, max_tokens=4).ids


def test_what_is_refused(open_llm):
    llm = open_llm("llama-2", seed=1, load={"context": 64})
    for layer in (tiny.LAYERS + 1, -tiny.LAYERS - 2, 1.5, True):
        with pytest.raises(ConfigError, match="layer is"):
            llm.hidden_states(PROMPT, layer=layer)
    with pytest.raises(ConfigError, match="texts is"):
        llm.embed("one text")
    with pytest.raises(ConfigError, match="pooling is"):
        llm.embed(["a"], pooling="max")
    with pytest.raises(ContextError, match=r"texts\[1\]"):
        llm.embed(["a", [5] * 65])
    assert llm.embed([]).shape[0] == 0


def test_embeddings_wait_for_answers_and_end_with_their_task(open_llm):
    model = open_llm("llama-2", load={"context": 4096}, config={"max_position_embeddings": 4096})
    prompt = [tiny.BEGIN, 20, 21]
    expected = model.embed([prompt])

    async def work():
        async with AsyncLLM(model) as llm:
            stream = llm.stream(prompt, max_tokens=4000)
            await anext(stream)
            waiting = asyncio.create_task(llm.embed([prompt]))
            cancelled = asyncio.create_task(llm.embed([prompt]))
            await asyncio.sleep(0.02)
            assert not waiting.done()
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            await stream.aclose()
            assert np.array_equal(await waiting, expected)
            assert llm.stats.completion_tokens > 0
            again = llm.stream(prompt, max_tokens=4000)
            await anext(again)
            ended = asyncio.create_task(llm.embed([prompt]))
            await asyncio.sleep(0.02)
            model.cancel()
            with pytest.raises(EdgeLLMError, match="cancelled before it began"):
                await ended

    asyncio.run(work())
