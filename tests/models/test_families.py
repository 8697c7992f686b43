"""Families whose layers are not all LLaMA's: transformers' numbers, in every arithmetic."""

import mlx.core as mx
import numpy as np
import pytest
from support import tiny
from support.paged import open_model, paged_budget
from support.tiny_families import CONFIGS, EXAONE4

from edgellm.checkpoint.dialects.names import spelled
from edgellm.checkpoint.model_config import ModelConfig
from edgellm.cli.app import main
from edgellm.converters import convert
from edgellm.errors import EdgeLLMError
from edgellm.models.arithmetic import KERNEL_FAMILIES

ARITHMETIC = [{"backend": "mlx"}, {"activations": "float", "kv_bits": 32}]
CONTEXT = 64
STREAMED = ["smollm3", "olmo3", "exaone4", "hunyuan"]


def prompt_of(length):
    return np.random.RandomState(1).randint(5, tiny.VOCABULARY, length).tolist()


def greedy(llm, prompt, new, **settings):
    return [token.id for token in llm.generate(prompt, max_tokens=new, **settings).tokens]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A function that gives a folder of a kind, which it writes once."""
    base = tmp_path_factory.mktemp("families")

    def folder(kind):
        if not (base / kind).exists():
            tiny.write_model(base / kind, CONFIGS[kind])
        return base / kind

    return folder


QUIET = pytest.mark.filterwarnings("ignore:arithmetic runs in MLX's own CPU kernels:RuntimeWarning")
"""Of families without kernels; of the others such a warning is an error."""


@pytest.mark.torch
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=[QUIET] * (config["model_type"] not in KERNEL_FAMILIES))
        for kind, config in CONFIGS.items()
    ],
)
def test_logits_and_greedy_text_are_transformers(kind, folders, tmp_path):
    """The prompt is longer than every window, and the text goes on."""
    from make_golden import open_reference, reference_logits, reference_text

    from edgellm.bench.backends.registry import RuntimeSettings
    from edgellm.bench.torch_backend.runtime import CPURuntime

    folder, prompt = folders(kind), prompt_of(40)
    reference = open_reference(folder)
    expected = reference_logits(reference, prompt)
    text = reference_text(reference, prompt, 12, eos_token_id=tiny.END)
    for settings in ARITHMETIC:
        with open_model(folder, context=CONTEXT, **settings) as llm:
            assert np.abs(np.array(llm.logits(prompt)) - expected).max() < 1e-4
            assert greedy(llm, prompt, 12) == text
    runtime = CPURuntime(str(folder), RuntimeSettings(dtype="float32"))
    assert np.abs(runtime.logits(prompt) - expected).max() < 1e-4
    assert runtime.greedy(prompt, 12) == text
    runtime.close()
    # what convert writes of it means the same to transformers
    convert(folder, tmp_path / "made", bits=16)
    again = reference_logits(open_reference(tmp_path / "made"), prompt)
    assert np.abs(again - expected).max() < 1e-5


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        *((kind, settings) for kind in STREAMED for settings in ARITHMETIC),
        # without kernels
        *((kind, ARITHMETIC[0]) for kind in ("gemma2", "gemma3")),
    ],
)
def test_a_streamed_model_computes_as_in_memory_and_chunks_beams_and_batches_as_one(
    kind, settings, folders
):
    folder, prompt = folders(kind), prompt_of(40)
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
        text = greedy(llm, prompt, 8)
        assert greedy(paged, prompt, 8) == greedy(chunked, prompt, 8) == text
        other = greedy(llm, prompt[:20], 8)
        answers = llm.generate_batch([prompt[:20], prompt], max_tokens=8)
        assert [[token.id for token in answer.tokens] for answer in answers] == [other, text]
        beams = greedy(llm, prompt, 4, beams=3)
        assert greedy(paged, prompt, 4, beams=3) == beams


IN_MLX_LM = ["smollm3", "olmo2-grouped", "olmo3", "exaone4", "exaone4-full", "hunyuan"]
"""The configs that mlx-lm 0.32.2 computes as transformers does."""


@pytest.mark.parametrize("kind", IN_MLX_LM)
def test_what_convert_writes_means_the_same_to_mlx_lm(kind, folders, tmp_path):
    from mlx_lm.utils import load_model

    convert(folders(kind), tmp_path / "made", bits=4)
    prompt = prompt_of(40)
    theirs = np.array(load_model(tmp_path / "made")[0](mx.array([prompt]))[0])
    for settings in ARITHMETIC:
        with open_model(tmp_path / "made", **settings) as llm:
            assert np.abs(np.array(llm.logits(prompt)) - theirs).max() < 1e-4


def test_mlx_lm_is_told_which_layers_of_gemma_3_have_a_window(tmp_path):
    """It reads no ``layer_types``, and would take every sixth layer for a full one."""
    from mlx_lm.utils import load_model

    types = {"layer_types": ["sliding_attention", "full_attention"] * 2}
    plain = {"sliding_window_pattern": None, "rope_scaling": None}
    config = CONFIGS["gemma3"] | plain | types
    folder = tiny.write_model(tmp_path / "model", config)
    convert(folder, tmp_path / "made", bits=16)
    prompt = prompt_of(40)
    theirs = np.array(load_model(tmp_path / "made")[0](mx.array([prompt]))[0])
    with open_model(tmp_path / "made", backend="mlx") as llm:
        # two approximations of gelu
        assert np.abs(np.array(llm.logits(prompt)) - theirs).max() < 1e-3 * np.abs(theirs).max()


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


def test_info_says_which_layers_differ(folders, capsys):
    assert main(["info", str(folders("exaone4"))]) == 0
    said = capsys.readouterr().out
    assert "2 for keys and values, window 9 in 3 of 4 layers" in said
    assert "stretched by 16 (llama3); none in 1 of 4 layers" in said


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("smollm3", {"no_rope_layers": [1, 0]}, "no_rope_layers"),
        ("smollm3", {"no_rope_layers": None, "no_rope_layer_interval": 0}, "no_rope_layer_int"),
        ("exaone4", {"sliding_window_pattern": "LLX"}, "sliding_window_pattern"),
        ("exaone4", {"sliding_window_pattern": True}, "sliding_window_pattern"),
        ("exaone4", {"sliding_window": 0}, "sliding_window"),
        ("olmo3", {"layer_types": ["linear_attention"] * 8}, "linear_attention"),
        ("hunyuan", {"use_cla": True}, "use_cla"),
        ("hunyuan", {"use_qk_norm": False}, "use_qk_norm"),
        ("hunyuan", {"rope_scaling": {"type": "dynamic", "alpha": "9"}}, "alpha"),
    ],
)
def test_numbers_that_are_none_are_refused(kind, change, said):
    with pytest.raises(EdgeLLMError, match=said):
        ModelConfig.from_dict(spelled(CONFIGS[kind] | change, {}).config)
