"""Models whose rotary positions are stretched: transformers' logits, in every arithmetic."""

import json
import shutil

import mlx.core as mx
import numpy as np
import pytest
from support import tiny
from support.folders import PROMPT, fused, saved_by_mlx_lm, tensors_of
from support.paged import open_model, paged_budget

from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.converters import convert

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
STRETCHES = {
    "yarn": {"rope_scaling": YARN},
    "yarn, old form": {"rope_scaling": YARN | {"type": "yarn"}, "rope_theta": 500000.0},
    "yarn, new form": {"rope_parameters": YARN | {"rope_theta": 1000000.0, "truncate": False}},
    "yarn, its own factor": {"rope_scaling": YARN | {"attention_factor": 1.4, "beta_fast": 20}},
    "yarn, DeepSeek's": {"rope_scaling": YARN | {"mscale": 1.0, "mscale_all_dim": 0.5}},
    "dynamic": {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
}
ARITHMETIC = [{"backend": "mlx"}, {"activations": "float", "kv_bits": 32}]


def prompt_of(length):
    return np.random.RandomState(1).randint(5, tiny.VOCABULARY, length).tolist()


@pytest.mark.torch
@pytest.mark.parametrize("stretch", STRETCHES)
@pytest.mark.parametrize("kind", ["llama-2", "qwen3"])
def test_logits_are_transformers(kind, stretch, tmp_path):
    from make_golden import open_reference, reference_logits

    from edgellm.bench.backends.registry import RuntimeSettings
    from edgellm.bench.torch_backend.runtime import CPURuntime

    config = tiny.CONFIGS[kind] | {"rope_parameters": None} | STRETCHES[stretch]
    folder = tiny.write_model(tmp_path / "model", config)
    prompt = prompt_of(150)
    expected = reference_logits(open_reference(folder), prompt)
    plain = tiny.write_model(tmp_path / "plain", tiny.CONFIGS[kind])
    if stretch != "dynamic":  # else nothing is tested
        assert np.abs(reference_logits(open_reference(plain), prompt) - expected).max() > 0.1
    for settings in ARITHMETIC:
        with open_model(folder, context=160, **settings) as llm:
            assert np.abs(np.array(llm.logits(prompt)) - expected).max() < 1e-4
    runtime = CPURuntime(str(folder), RuntimeSettings(dtype="float32"))
    assert np.abs(runtime.logits(prompt) - expected).max() < 1e-4
    runtime.close()
    # what convert writes of it means the same to transformers, and in pages here
    convert(folder, tmp_path / "made", bits=16)
    again = reference_logits(open_reference(tmp_path / "made"), prompt)
    assert np.abs(again - expected).max() < 1e-5
    exact = {"context": 160, "kv_bits": 32}
    budget = paged_budget(tmp_path / "made", 1, **exact)
    with open_model(tmp_path / "made", memory=budget, **exact) as llm:
        assert not llm.plan.resident
        assert np.abs(np.array(llm.logits(prompt)) - expected).max() < 1e-4


def long_config(kind):
    pairs = 12 if kind == "qwen3" else 8
    random = np.random.RandomState(5)
    scaling = {
        "type": "longrope",
        "short_factor": random.uniform(1, 1.5, pairs).tolist(),
        "long_factor": random.uniform(2, 30, pairs).tolist(),
    }
    if kind == "qwen3":
        scaling |= {"rope_type": "longrope", "attention_factor": 1.3}
    outer = {"original_max_position_embeddings": 64}
    if kind == "qwen3":
        scaling, outer = scaling | outer, {}
    return tiny.CONFIGS[kind] | {"rope_parameters": None, "rope_scaling": scaling} | outer


@pytest.mark.torch
@pytest.mark.parametrize("kind", ["llama-2", "qwen3"])
def test_longrope_is_transformers_up_to_the_first_context_and_beyond(kind, tmp_path):
    """Which factors are taken depends on the context asked for, as in llama.cpp."""
    from make_golden import open_reference, reference_logits

    from edgellm.bench.backends.registry import RuntimeSettings
    from edgellm.bench.torch_backend.runtime import CPURuntime

    folder = tiny.write_model(tmp_path / "model", long_config(kind))
    reference = open_reference(folder)
    convert(folder, tmp_path / "made", bits=16)
    for length, context in ((60, None), (150, 160)):
        prompt = prompt_of(length)
        expected = reference_logits(reference, prompt)
        for settings in ARITHMETIC:
            with open_model(folder, context=context, **settings) as llm:
                assert llm.context == (context or 64)
                assert np.abs(np.array(llm.logits(prompt)) - expected).max() < 1e-4
        exact = {"context": context, "kv_bits": 32}
        budget = paged_budget(tmp_path / "made", 1, **exact)
        with open_model(tmp_path / "made", memory=budget, **exact) as llm:
            assert not llm.plan.resident
            assert np.abs(np.array(llm.logits(prompt)) - expected).max() < 1e-4
        runtime = CPURuntime(str(folder), RuntimeSettings(dtype="float32"))
        assert np.abs(runtime.logits(prompt) - expected).max() < 1e-4
        runtime.close()
        again = reference_logits(open_reference(tmp_path / "made"), prompt)
        assert np.abs(again - expected).max() < 1e-5


LONGROPE = {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5],
    "long_factor": [1.0, 2.0, 4.0, 8.0, 16.0, 32.0],
    "partial_rotary_factor": 0.75,
}


@pytest.mark.torch
@pytest.mark.parametrize("stretch", ["plain", "longrope"])
def test_heads_rotated_in_part_are_transformers(stretch, tmp_path):
    """Phi-4-mini: 0.75 of each head is rotated, and longrope's factor multiplies that part."""
    from make_golden import reference_logits
    from support.published_models import save_model

    from edgellm.bench.backends.registry import RuntimeSettings
    from edgellm.bench.torch_backend.runtime import CPURuntime

    config = {"max_position_embeddings": 256, "sliding_window": 512}
    if stretch == "plain":
        config |= {"partial_rotary_factor": 0.75}
    else:
        config |= {"original_max_position_embeddings": 64, "rope_parameters": LONGROPE}
    reference = save_model(tmp_path / "model", "phi3", **config)
    convert(tmp_path / "model", tmp_path / "made", bits=16)
    assert read_checkpoint(tmp_path / "made").config.rotary_dim == 12
    for length, context in ((60, 64), (150, 160)):
        prompt = prompt_of(length)
        expected = reference_logits(reference, prompt)
        folders = [(tmp_path / "model", settings) for settings in ARITHMETIC]
        for settings in ARITHMETIC:
            budget = paged_budget(tmp_path / "made", 1, context=context, **settings)
            folders.append((tmp_path / "made", settings | {"memory": budget}))
        for folder, settings in folders:
            with open_model(folder, context=context, **settings) as llm:
                assert llm.plan.resident == ("memory" not in settings)
                assert np.abs(np.array(llm.logits(prompt)) - expected).max() < 1e-4
        runtime = CPURuntime(str(tmp_path / "made"), RuntimeSettings(dtype="float32"))
        assert np.abs(runtime.logits(prompt) - expected).max() < 1e-4
        runtime.close()


def greedy(path):
    """What mlx-lm continues the prompt with."""
    from mlx_lm.utils import load_model

    model, _ = load_model(path)
    ids = list(PROMPT)
    for _ in range(8):
        ids.append(int(mx.argmax(model(mx.array([ids]))[0, -1])))
    return ids


def test_a_phi3_that_mlx_lm_quantized_continues_as_there(tmp_path):
    """Phi-3.5-mini-4bit: mlx-lm takes the factors of long texts for all."""
    folder = tiny.write_model(tmp_path / "llama", long_config("llama-2"))
    tensors = {name: np.array(value) for name, value in tensors_of(folder).items()}
    renamed = {name: mx.array(value) for name, value in fused(tensors).items()}
    mx.save_safetensors(str(folder / "model.safetensors"), renamed, metadata={"format": "pt"})
    config = long_config("llama-2") | {"model_type": "phi3", "sliding_window": None}
    (folder / "config.json").write_text(json.dumps(config))
    made = saved_by_mlx_lm(folder, tmp_path / "made", group_size=64, bits=4)
    shutil.copy(folder / "tokenizer.json", made)
    expected = greedy(made)
    for settings in ARITHMETIC:
        budget = paged_budget(made, 0, context=160, **settings)
        for memory in ({}, {"memory": budget}):
            with open_model(made, context=160, **settings, **memory) as llm:
                assert llm.plan.resident == (not memory)
                answer = llm.generate(PROMPT, max_tokens=8)
                assert [*PROMPT, *(token.id for token in answer.tokens)] == expected


def test_yarn_lengthens_what_a_config_says_of_the_context(tmp_path):
    """Qwen's pages say to add the block, and nothing of the number beside it."""
    config = tiny.CONFIGS["qwen2"] | {"rope_scaling": YARN, "max_position_embeddings": 64}
    folder = tiny.write_model(tmp_path / "model", config)
    assert read_checkpoint(folder).config.max_position_embeddings == 256


def test_what_convert_writes_of_yarn_is_right_in_mlx_lm(tmp_path):
    """mlx-lm 0.32.2 reads no attention_factor; ``mscale`` beside it says the same."""
    from mlx_lm.utils import load_model

    for number, scaling in enumerate((YARN, YARN | {"attention_factor": 1.4})):
        config = tiny.CONFIGS["llama-2"] | {"rope_scaling": scaling}
        folder = tiny.write_model(tmp_path / f"model-{number}", config)
        made = tmp_path / f"made-{number}"
        convert(folder, made, bits=16)
        prompt = prompt_of(100)
        theirs = np.array(load_model(made)[0](mx.array([prompt]))[0])
        with open_model(made, context=160, backend="mlx") as llm:
            assert np.abs(np.array(llm.logits(prompt)) - theirs).max() < 1e-4
