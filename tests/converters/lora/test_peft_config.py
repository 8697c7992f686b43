"""PEFT's config: what its versions write, and patterns of module names."""

import re

import pytest
from support.adapters import PATHS, peft_tensors, write_peft

from edgellm.converters.lora.adapter import read_adapter

PEFT_SAYS = {
    "0.3": {"enable_lora": None, "merge_weights": False, "modules_to_save": None},
    "0.5": {"auto_mapping": None, "layers_pattern": None, "layers_to_transform": [0, 1, 3]},
    "0.13": {
        "auto_mapping": {"base_model_class": "LlamaForCausalLM", "unsloth_fixed": True},
        "exclude_modules": ["lm_head"],
        "layer_replication": None,
        "loftq_config": {},
        "megatron_config": None,
        "megatron_core": "megatron.core",
        "rank_pattern": {},
        "runtime_config": {"ephemeral_gpu_offload": True},
        "use_dora": False,
    },
    "0.21": {
        "alora_invocation_tokens": None,
        "arrow_config": None,
        "corda_config": None,
        "ensure_weight_tying": True,
        "eva_config": {"rho": 2.0, "tau": 0.99},
        "init_lora_weights": "eva",
        "kasa_config": None,
        "lora_bias": False,
        "lora_ga_config": None,
        "monteclora_config": None,
        "peft_version": "0.21.2",
        "qalora_group_size": 16,
        "target_parameters": [],
        "trainable_token_indices": None,
        "use_bdlora": None,
        "use_qalora": False,
        "velora_config": {},
    },
    "tomorrow's, and off": {"use_tomorrows_lora": False, "tomorrows_config": {}, "note": ""},
}


@pytest.mark.parametrize("version", PEFT_SAYS)
def test_what_pefts_versions_write_of_plain_lora_is_merged(tmp_path, version):
    plain = read_adapter(write_peft(tmp_path / "plain", peft_tensors()))
    found = read_adapter(write_peft(tmp_path / "x", peft_tensors(), **PEFT_SAYS[version]))
    assert {path: change.scale for path, change in found.changes.items()} == {
        path: change.scale for path, change in plain.changes.items()
    }


@pytest.mark.parametrize(
    ("pattern", "scales"),
    [
        ("^model.layers.0.self_attn.q_proj", [0.5, 4.0, 4.0, 4.0]),
        (r"layers\.0\.self_attn\.q_proj$", [0.5, 4.0, 4.0, 4.0]),
        ("^q_proj", [4.0] * 4),
        ("roj", [4.0] * 4),
        ("lm_head", [4.0, 4.0, 4.0, 0.5]),
        (r".*\.layers\.1\..*", [4.0, 0.5, 4.0, 4.0]),
        (r"layers\.[01]\.self_attn\.(q|v)_proj", [0.5, 0.5, 4.0, 4.0]),
        ("layers.(0|3).+", [0.5, 4.0, 0.5, 4.0]),
        ("(?!self).*_proj", [0.5, 0.5, 0.5, 4.0]),
    ],
)
def test_alphas_of_modules_are_found_as_pefts_expressions_find_them(tmp_path, pattern, scales):
    for path, scale in zip(PATHS, scales, strict=True):
        assert (scale == 0.5) == bool(re.match(rf"(.*\.)?({pattern})$", path))
    found = read_adapter(
        write_peft(tmp_path / "adapter", peft_tensors(), alpha_pattern={pattern: 2})
    )
    assert [found.changes[path].scale for path in PATHS] == scales


def test_the_first_of_several_patterns_counts_in_the_order_of_the_file(tmp_path):
    patterns = {"(q|v)_proj": 2, "q_proj": 8, ".*": 1}
    found = read_adapter(write_peft(tmp_path / "x", peft_tensors(), alpha_pattern=patterns))
    assert [found.changes[path].scale for path in PATHS] == [0.5, 0.5, 0.25, 0.25]
