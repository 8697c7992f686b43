"""Adapters that run beside the weights: against merged weights, PEFT and mlx-lm; paged; batched."""

import mlx.core as mx
import numpy as np
import pytest
from support.adapters import (
    LLAMA,
    RANK,
    factors,
    peft_tensors,
    trained_by_mlx_lm,
    trained_by_peft,
    write_peft,
)
from support.folders import fused, rewritten
from support.lora_files import ALL, SOME
from support.paged import PROMPT, logits_of, open_model, paged_budget
from support.tiny import random_tensors
from support.unmerged import ARITHMETIC, EXACT, greedy

from edgellm import load
from edgellm.converters import convert
from edgellm.errors import FormatError, ModelNotFoundError, UnsupportedModelError
from edgellm.settings import LoadSettings

KINDS = ["lora", "dora"]


@pytest.mark.parametrize("arithmetic", ARITHMETIC.values(), ids=ARITHMETIC)
@pytest.mark.parametrize(
    ("paths", "config"),
    [
        (ALL, {"use_rslora": True}),
        (SOME[:5], {"alpha_pattern": {r"layers\.[01]\.self_attn\.q_proj": 40}}),
    ],
)
def test_a_model_with_an_adapter_computes_as_with_its_merged_weights(
    base, tmp_path, arithmetic, paths, config
):
    folder = write_peft(tmp_path / "adapter", peft_tensors(paths), **config)
    convert(base / "16", tmp_path / "merged", bits=16, adapter=folder)
    beside, merged = (
        load(base / "16", adapter=folder, **arithmetic),
        load(tmp_path / "merged", **arithmetic),
    )
    plain = logits_of(load(base / "16", **arithmetic))
    with beside, merged:
        assert np.abs(logits_of(beside) - logits_of(merged)).max() < 1e-4
        assert np.abs(plain - logits_of(merged)).max() > 0.1
        assert greedy(beside) == greedy(merged)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("bits", "arithmetic"), [("16", {"backend": "mlx"}), ("4", EXACT), ("4", {})]
)
def test_a_paged_model_with_an_adapter_equals_the_resident_one(base, kind, bits, arithmetic):
    """Each layer has its own change in buffers that several layers share."""
    settings = arithmetic | {"adapter": base / kind}
    with open_model(base / bits, **settings) as resident:
        expected, text = logits_of(resident), greedy(resident)
    budget = paged_budget(base / bits, 1, **settings)
    with open_model(base / bits, memory=budget, **settings) as paged:
        assert len(paged.plan.pinned) == 1
        assert np.array_equal(logits_of(paged), expected)
        assert greedy(paged) == text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("speculate", ["off", "ngram"])
def test_sequences_side_by_side_get_what_each_gets_alone(base, kind, speculate):
    prompts = [PROMPT, PROMPT[:3] * 20, [7, 8, 9]]
    with load(base / "4", adapter=base / kind, context=250, speculate=speculate) as llm:
        alone = [greedy(llm, prompt) for prompt in prompts]
        together = [
            [token.id for token in output.tokens]
            for output in llm.generate_batch(prompts, max_tokens=16)
        ]
    assert together == alone


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", ["16", "4"])
def test_mlx_lms_model_with_its_adapter_has_the_same_logits(base, tmp_path, kind, bits):
    model = trained_by_mlx_lm(base / bits, tmp_path / "adapter", kind=kind)
    model.set_dtype(mx.float32)
    theirs = np.array(model(mx.array([PROMPT]))[0])
    for arithmetic in ARITHMETIC.values():
        with load(base / bits, adapter=tmp_path / "adapter", **arithmetic) as llm:
            assert np.abs(logits_of(llm) - theirs).max() < 1e-4


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize(
    "config",
    [
        {"rank_pattern": {"k_proj": 8}, "alpha_pattern": {r"layers\.[12]\..*q_proj": 3}},
        {"use_dora": True},
    ],
    ids=KINDS,
)
def test_pefts_model_with_its_adapter_has_the_same_logits(base, tmp_path, config):
    peft = pytest.importorskip("peft")
    import torch

    model = trained_by_peft(peft, base / "plain", target_modules="all-linear", **config)
    model.save_pretrained(tmp_path / "adapter")
    with torch.no_grad():
        theirs = model(torch.tensor([PROMPT])).logits[0].numpy()
    for arithmetic in ARITHMETIC.values():
        with load(base / "16", adapter=tmp_path / "adapter", **arithmetic) as llm:
            assert np.abs(logits_of(llm) - theirs).max() < 1e-4


def test_an_adapter_of_fused_matrices_changes_each_of_its_own(base, tmp_path):
    """Phi 3 has queries, keys and values in one matrix, gate and up in another."""
    config = {"model_type": "phi3", "sliding_window": None}
    folder = rewritten(base / "plain", tmp_path / "phi3", fused, config)
    values = fused(random_tensors(LLAMA))
    path = "model.layers.2.self_attn.qkv_proj"
    down, up = factors(values[f"{path}.weight"].shape, 3)
    tensors = {f"{path}.lora_A.weight": down, f"{path}.lora_B.weight": up}
    adapter = write_peft(tmp_path / "adapter", tensors)
    convert(folder, tmp_path / "merged", bits=16, adapter=adapter)
    with (
        load(folder, adapter=adapter, **EXACT) as llm,
        load(tmp_path / "merged", **EXACT) as merged,
    ):
        assert np.abs(logits_of(llm) - logits_of(merged)).max() < 1e-4


def test_the_plan_counts_the_adapters_numbers(base):
    plain, changed = (
        LoadSettings(memory="500MB", context=64),
        LoadSettings(memory="500MB", context=64, adapter=base / "lora"),
    )
    with load(base / "4", plain) as llm:
        without = llm.plan.total_bytes
    with load(base / "4", changed) as llm:
        factors = [RANK * sum(random_tensors(LLAMA)[f"{path}.weight"].shape) for path in SOME]
        assert llm.plan.total_bytes - without == llm.plan.adapter_bytes == 4 * sum(factors)


def test_prompts_kept_on_disk_are_of_a_model_with_its_adapter(base, tmp_path):
    prompt = [5 + place % 90 for place in range(200)]
    other = write_peft(tmp_path / "other", peft_tensors(ALL))
    settings = {"prompt_cache": tmp_path / "prompts", "context": 250}
    lora = base / "lora"
    for folder, reused in [(None, 0), (lora, 0), (other, 0), (None, 199), (lora, 199)]:
        with load(base / "4", adapter=folder, **settings) as llm:
            assert llm.generate(prompt, max_tokens=1).stats.cached_tokens == reused


DOWN, UP = factors((64, 64), 1)


@pytest.mark.parametrize(
    ("change", "config", "words"),
    [
        ({"modules_to_save.weight": np.ones((64, 64), np.float32)}, {}, "tensors of its own"),
        ({"base_layer.bias": np.ones(64, np.float32)}, {}, "tensors of its own"),
    ],
)
def test_what_cannot_be_added_is_refused_with_the_way_round(base, tmp_path, change, config, words):
    path = "model.layers.0.self_attn.q_proj"
    tensors = {f"{path}.lora_A.weight": DOWN, f"{path}.lora_B.weight": UP}
    tensors |= {f"{path}.{name}": values for name, values in change.items()}
    adapter = write_peft(tmp_path / "adapter", tensors, **config)
    with pytest.raises(UnsupportedModelError, match=words) as raised:
        load(base / "16", adapter=adapter)
    assert "edgellm convert MODEL DEST --adapter" in raised.value.hint


def test_a_changed_head_is_refused_with_the_way_round(base, tmp_path):
    adapter = write_peft(tmp_path / "adapter", peft_tensors(["lm_head", ALL[0]]))
    with pytest.raises(UnsupportedModelError, match="changes the embedding or the head") as raised:
        load(base / "16", adapter=adapter)
    assert "edgellm convert MODEL DEST --adapter" in raised.value.hint


def adapter_with(folder, path=ALL[0], down=DOWN, up=UP):
    return write_peft(folder, {f"{path}.lora_A.weight": down, f"{path}.lora_B.weight": up})


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"path": "model.layers.4.self_attn.q_proj"}, "does not have"),
        ({"path": "model.layers.0.self_attn.x_proj"}, "does not have"),
        ({"down": np.ones((RANK, 128), np.float32)}, r"is \(64, 128\); the matrix is \(64, 64\)"),
        ({"up": np.full((64, RANK), np.inf, np.float32)}, "infinite or not a number"),
    ],
)
def test_an_adapter_of_another_model_or_without_numbers_is_refused(base, tmp_path, changed, words):
    with pytest.raises(FormatError, match=words):
        load(base / "16", adapter=adapter_with(tmp_path / "adapter", **changed))


def test_a_folder_that_is_not_there_is_named(base, tmp_path):
    with pytest.raises(ModelNotFoundError, match="nowhere"):
        load(base / "16", adapter=tmp_path / "nowhere")
