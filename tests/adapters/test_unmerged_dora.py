"""What DoRA does beside the weights that LoRA does not: lengths of rows, whose biases stay."""

import numpy as np
import pytest
from support.adapters import LLAMA, peft_tensors, write_peft
from support.lora_files import ALL, SOME, dora_adapter
from support.paged import logits_of
from support.tiny import CONFIGS, random_tensors, write_model
from support.unmerged import ARITHMETIC, EXACT, greedy

from edgellm import load
from edgellm.converters import convert
from edgellm.errors import FormatError
from edgellm.settings import LoadSettings


@pytest.mark.parametrize("arithmetic", ARITHMETIC.values(), ids=ARITHMETIC)
@pytest.mark.parametrize("bits", ["16", "4"])
@pytest.mark.parametrize("paths", [ALL, SOME[:5]], ids=["all", "some"])
def test_a_dora_beside_the_weights_computes_as_its_merged_weights(
    base, tmp_path, arithmetic, bits, paths
):
    adapter = dora_adapter(tmp_path / "adapter", paths)
    convert(base / bits, tmp_path / "merged", bits=16, dtype="float32", adapter=adapter)
    beside = load(base / bits, adapter=adapter, **arithmetic)
    merged = load(tmp_path / "merged", **arithmetic)
    plain = logits_of(load(base / bits, **arithmetic))
    with beside, merged:
        expected = logits_of(merged)
        assert np.abs(logits_of(beside) - expected).max() < 1e-4
        assert np.abs(plain - expected).max() > 0.1
        assert greedy(beside) == greedy(merged)


@pytest.mark.parametrize("arithmetic", ARITHMETIC.values(), ids=ARITHMETIC)
def test_a_bias_keeps_its_length(tmp_path, arithmetic):
    """qwen2 has biases on queries, keys and values."""
    config = CONFIGS["qwen2"]
    model = write_model(tmp_path / "model", config)
    weights, paths = random_tensors(config), ALL[0:21:2]
    tensors = {}
    for number, path in enumerate(paths):
        rows, columns = weights[f"{path}.weight"].shape
        draws = np.random.default_rng(number)
        down = draws.standard_normal((4, columns)) / 8
        lengths = np.linspace(0.5, 2, rows) * np.linalg.norm(weights[f"{path}.weight"], axis=1)
        tensors |= {
            f"{path}.lora_A.weight": down.astype(np.float32),
            f"{path}.lora_B.weight": draws.standard_normal((rows, 4)).astype(np.float32) / 8,
            f"{path}.lora_magnitude_vector": lengths.astype(np.float32),
        }
    adapter = write_peft(tmp_path / "adapter", tensors, use_dora=True)
    convert(model, tmp_path / "merged", bits=16, dtype="float32", adapter=adapter)
    beside, merged = load(model, adapter=adapter, **arithmetic), load(tmp_path / "merged", **EXACT)
    with beside, merged:
        assert np.abs(logits_of(beside) - logits_of(merged)).max() < 2e-4


def test_the_plan_counts_factors_of_results(base):
    with load(base / "4", LoadSettings(memory="500MB", context=64)) as llm:
        without = llm.plan.total_bytes
    settings = LoadSettings(memory="500MB", context=64, adapter=base / "dora")
    with load(base / "4", settings) as llm:
        shapes = [random_tensors(LLAMA)[f"{path}.weight"].shape for path in SOME]
        # queries, keys and values, and what comes down: 64 + 32 + 32 and 64 results a layer
        factors = 4 * 4 * sum(map(sum, shapes)) + 4 * 8 * (128 + 64)
        assert llm.plan.total_bytes - without == llm.plan.adapter_bytes == factors


def test_a_length_that_is_no_number_is_refused(base, tmp_path):
    tensors = peft_tensors(SOME[:1])
    tensors[f"{SOME[0]}.lora_magnitude_vector"] = np.full(64, np.nan, np.float32)
    adapter = write_peft(tmp_path / "adapter", tensors, use_dora=True)
    with pytest.raises(FormatError, match="a length that the adapter gives a row"):
        load(base / "16", adapter=adapter)
