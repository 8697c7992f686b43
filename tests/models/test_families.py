"""Families whose layers are not all LLaMA's: transformers' numbers, in every arithmetic."""

import mlx.core as mx
import numpy as np
import pytest
from support import tiny
from support.paged import open_model, paged_budget
from support.tiny_families import CONFIGS

from edgellm.converters import convert

ARITHMETIC = [{"backend": "mlx"}, {"activations": "float"}]
QUIET = "ignore:arithmetic runs in MLX's own CPU kernels:RuntimeWarning"
CONTEXT = 96

pytestmark = pytest.mark.filterwarnings(QUIET)


def prompt_of(length):
    return np.random.RandomState(1).randint(5, tiny.VOCABULARY, length).tolist()


def greedy(llm, prompt, new, **settings):
    return [token.id for token in llm.generate(prompt, max_tokens=new, **settings).tokens]


@pytest.fixture(scope="module", params=CONFIGS)
def folder(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("families") / request.param
    return tiny.write_model(path, CONFIGS[request.param])


@pytest.mark.torch
def test_logits_and_greedy_text_are_transformers(folder, tmp_path):
    """The prompt is longer than every window, and the text goes on."""
    from make_golden import open_reference, reference_logits, reference_text

    from edgellm.bench.backends.registry import RuntimeSettings
    from edgellm.bench.torch_backend.runtime import CPURuntime

    reference, prompt = open_reference(folder), prompt_of(40)
    expected = reference_logits(reference, prompt)
    text = reference_text(reference, prompt, 12, eos_token_id=tiny.END)
    for settings in ARITHMETIC:
        with open_model(folder, context=CONTEXT, **settings) as llm:
            assert np.abs(np.array(llm.logits(prompt)) - expected).max() < 1e-4
            assert greedy(llm, prompt, 12) == text
    runtime = CPURuntime(str(folder), RuntimeSettings(dtype="float32"))
    assert np.abs(runtime.logits(prompt) - expected).max() < 1e-4
    runtime.close()
    # what convert writes of it means the same to transformers
    convert(folder, tmp_path / "made", bits=16)
    again = reference_logits(open_reference(tmp_path / "made"), prompt)
    assert np.abs(again - expected).max() < 1e-5


@pytest.mark.parametrize("settings", ARITHMETIC)
def test_a_streamed_model_computes_as_in_memory_and_chunks_beams_and_batches_as_one(
    settings, folder
):
    prompt = prompt_of(40)
    settings = {"context": CONTEXT, "beams": 3, "speculate": "off"} | settings
    budget = paged_budget(folder, 1, **settings)
    with (
        open_model(folder, **settings) as llm,
        open_model(folder, memory=budget, **settings) as paged,
        open_model(folder, prefill_chunk=7, **settings) as chunked,
    ):
        logits = llm.logits(prompt)
        assert paged.plan.streamed
        assert mx.array_equal(paged.logits(prompt), logits)
        assert mx.abs(chunked.logits(prompt) - logits).max() < 1e-4
        text = greedy(llm, prompt, 12)
        assert greedy(paged, prompt, 12) == text
        assert greedy(chunked, prompt, 12) == text
        beams = greedy(llm, prompt, 8, beams=3)
        assert greedy(paged, prompt, 8, beams=3) == beams
        assert greedy(llm, prompt, 12) == text
