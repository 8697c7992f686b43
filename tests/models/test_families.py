"""Families whose layers are not all LLaMA's: transformers' numbers, in every arithmetic."""

import warnings

import mlx.core as mx
import numpy as np
import pytest
from support import tiny
from support.paged import open_model, paged_budget
from support.tiny_families import CONFIGS, EXAONE4

from edgellm.checkpoint.dialects.names import spelled
from edgellm.checkpoint.model_config import ModelConfig
from edgellm.converters import convert
from edgellm.errors import EdgeLLMError
from edgellm.models.arithmetic import warn_slow

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
        prompts = [prompt, prompt[:3], prompt[:20]]
        alone = [greedy(llm, one, 6) for one in prompts]
        answers = llm.generate_batch(prompts, max_tokens=6)
        assert [[token.id for token in answer.tokens] for answer in answers] == alone
        beams = greedy(llm, prompt, 8, beams=3)
        assert greedy(paged, prompt, 8, beams=3) == beams
        assert greedy(llm, prompt, 12) == text


@pytest.mark.usefixtures("on_the_cpu")
@pytest.mark.parametrize(("kind", "has_kernels"), [("smollm3", True), ("olmo2", False)])
def test_what_the_kernels_leave_to_mlx_is_said(kind, has_kernels, tmp_path):
    folder = tiny.write_model(tmp_path / "model", CONFIGS[kind])
    warn_slow.cache_clear()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        open_model(folder).close()
    assert [kind in str(warning.message) for warning in said] == [True] * (not has_kernels)


IN_MLX_LM = ["smollm3", "olmo2-grouped", "olmo3", "exaone4-listed", "exaone4-full", "hunyuan"]
"""The configs that mlx-lm 0.32.2 computes as transformers does."""


@pytest.mark.parametrize("kind", IN_MLX_LM)
def test_what_convert_writes_means_the_same_to_mlx_lm(kind, tmp_path):
    from mlx_lm.utils import load_model

    convert(tiny.write_model(tmp_path / "model", CONFIGS[kind]), tmp_path / "made", bits=4)
    prompt = prompt_of(40)
    theirs = np.array(load_model(tmp_path / "made")[0](mx.array([prompt]))[0])
    with open_model(tmp_path / "made", backend="mlx") as llm:
        assert np.abs(np.array(llm.logits(prompt)) - theirs).max() < 1e-4


@pytest.mark.parametrize(
    ("change", "window", "sliding", "nope"),
    [
        # transformers fails on a text without layer_types; LG's own code has the last layer full
        ({"sliding_window_pattern": "LG", "num_hidden_layers": 5}, 4096, {0, 2}, {1, 3, 4}),
        ({"sliding_window": 7, "sliding_window_pattern": 2}, 7, {0, 2}, {1, 3}),
        ({"sliding_window": None}, None, set(), set()),
        ({"sliding_window": 7, "layer_types": ["full_attention"] * 4}, 7, set(), {0, 1, 2, 3}),
    ],
)
def test_layers_with_a_window_and_without_positions(change, window, sliding, nope):
    config = ModelConfig.from_dict(EXAONE4 | change)
    assert (config.sliding_window, config.sliding_layers) == (window, sliding)
    assert config.nope_layers == nope


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("smollm3", {"no_rope_layers": [1, 0]}, "no_rope_layers"),
        ("smollm3", {"no_rope_layers": None, "no_rope_layer_interval": 0}, "no_rope_layer_int"),
        ("exaone4", {"sliding_window_pattern": "LLX"}, "sliding_window_pattern"),
        ("exaone4", {"sliding_window_pattern": True}, "sliding_window_pattern"),
        ("exaone4", {"sliding_window": 0}, "sliding_window"),
        ("hunyuan", {"use_cla": True}, "use_cla"),
        ("hunyuan", {"use_qk_norm": False}, "use_qk_norm"),
        ("hunyuan", {"rope_scaling": {"type": "dynamic", "alpha": "9"}}, "alpha"),
    ],
)
def test_numbers_that_are_none_are_refused(kind, change, said):
    with pytest.raises(EdgeLLMError, match=said):
        ModelConfig.from_dict(spelled(CONFIGS[kind] | change, {}).config)
