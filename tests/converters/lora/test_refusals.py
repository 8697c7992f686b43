"""Adapters that would be merged wrongly, are damaged, or are none."""

import math
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.adapters import (
    LLAMA,
    PATHS,
    peft_tensors,
    write_peft,
)
from support.tiny import write_model

from edgellm.converters import convert
from edgellm.converters.lora import module_patterns
from edgellm.converters.lora.adapter import read_adapter
from edgellm.errors import EdgeLLMError, FormatError, ModelNotFoundError, UnsupportedModelError


def rename(old, new):
    return lambda tensors: {name.replace(old, new): values for name, values in tensors.items()}


def put(name, values):
    return lambda tensors: tensors | {name: values}


FIRST = PATHS[0]

REFUSED = {
    "another layer": (rename("layers.3.", "layers.4."), {}, FormatError, "layers.4.mlp.down_proj"),
    "another module": (rename("q_proj", "x_proj"), {}, FormatError, "self_attn.x_proj"),
    "half a change": (
        lambda tensors: {k: v for k, v in tensors.items() if k != f"{FIRST}.lora_B.weight"},
        {},
        FormatError,
        "half",
    ),
    "two ranks": (
        put(f"{FIRST}.lora_A.weight", np.ones((5, 64), np.float32)),
        {},
        FormatError,
        "ranks 4 and 5",
    ),
    "another width": (
        put(f"{FIRST}.lora_A.weight", np.ones((4, 65), np.float32)),
        {},
        FormatError,
        "(64, 65)",
    ),
    "a vector": (
        put(f"{FIRST}.lora_A.weight", np.ones(4, np.float32)),
        {},
        FormatError,
        "product of matrices",
    ),
    "whole numbers": (
        put(f"{FIRST}.lora_A.weight", np.ones((4, 64), np.int32)),
        {},
        FormatError,
        "I32",
    ),
    "not a number": (
        put(f"{FIRST}.lora_A.weight", np.full((4, 64), np.nan, np.float32)),
        {},
        FormatError,
        "not a number",
    ),
    "more words": (
        put("lm_head.weight", np.ones((321, 64), np.float32)),
        {},
        FormatError,
        "(321, 64)",
    ),
    "a bias": (
        put(f"{FIRST}.lora_B.bias", np.ones(64, np.float32)),
        {},
        UnsupportedModelError,
        "lora_B.bias",
    ),
    "a trained bias": (
        put(f"{FIRST}.bias", np.ones(64, np.float32)),
        {},
        FormatError,
        "q_proj.bias",
    ),
    "no number": (None, {"lora_alpha": "16"}, FormatError, "lora_alpha"),
    "IA3": (None, {"peft_type": "IA3"}, UnsupportedModelError, "IA3"),
    "PiSSA": (None, {"init_lora_weights": "pissa_niter_4"}, UnsupportedModelError, "pissa"),
    "LoRA-GA": (None, {"init_lora_weights": "lora_ga"}, UnsupportedModelError, "lora_ga"),
    "a new way to begin": (
        None,
        {"init_lora_weights": "tomorrow"},
        UnsupportedModelError,
        "'tomorrow'",
    ),
    "layers repeated": (
        None,
        {"layer_replication": [[0, 3], [1, 4]]},
        UnsupportedModelError,
        "'layer_replication': [[0, 3], [1, 4]]",
    ),
    "biases": (None, {"lora_bias": True}, UnsupportedModelError, "'lora_bias'"),
    "blocks": (
        None,
        {"use_bdlora": {"nblocks": 4}},
        UnsupportedModelError,
        "'use_bdlora'",
    ),
    "pooled": (None, {"use_qalora": True}, UnsupportedModelError, "'use_qalora'"),
    "from some token on": (
        None,
        {"alora_invocation_tokens": [3, 4]},
        UnsupportedModelError,
        "'alora_invocation_tokens'",
    ),
    "experts": (
        None,
        {"target_parameters": ["experts.up"]},
        UnsupportedModelError,
        "'target_parameters'",
    ),
    "rows of tokens that nobody names": (
        put("lm_head.token_adapter.trainable_tokens_delta", np.ones((2, 64), np.float32)),
        {"trainable_token_indices": {"embed_tokens": [3, 4]}},
        FormatError,
        "which tokens' rows of 'lm_head'",
    ),
    "more rows than tokens": (
        put("lm_head.token_adapter.trainable_tokens_delta", np.ones((2, 64), np.float32)),
        {"trainable_token_indices": {"lm_head": [3]}},
        FormatError,
        "names 1 tokens",
    ),
    "a token that the model does not have": (
        put("lm_head.token_adapter.trainable_tokens_delta", np.ones((1, 64), np.float32)),
        {"trainable_token_indices": {"lm_head": [320]}},
        FormatError,
        "up to token 320",
    ),
    "what nobody has heard of": (
        None,
        {"use_tomorrows_lora": {"blocks": 3}},
        UnsupportedModelError,
        "'use_tomorrows_lora'",
    ),
    "an expression that is none": (
        None,
        {"alpha_pattern": {"layers.(0": 3}},
        FormatError,
        "'layers.(0' is not a regular expression",
    ),
    "an alpha without end": (None, {"lora_alpha": 10**400}, FormatError, "lora_alpha"),
    "a switch that is a text": (None, {"use_rslora": "no"}, FormatError, "use_rslora"),
    "DoRA without lengths": (None, {"use_dora": True}, FormatError, "lengths"),
    "lengths without DoRA": (
        put(f"{PATHS[0]}.lora_magnitude_vector", np.ones(64, np.float32)),
        {},
        FormatError,
        "lengths",
    ),
    "nothing": (lambda tensors: {}, {}, FormatError, "no tensor|no adapter"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_would_be_merged_wrongly_is_refused(tmp_path, fault):
    edit, config, error, said = REFUSED[fault]
    base = write_model(tmp_path / "base", LLAMA)
    adapter = write_peft(
        tmp_path / "adapter", edit(peft_tensors()) if edit else peft_tensors(), **config
    )
    with pytest.raises(error) as caught:
        convert(base, tmp_path / "made", adapter=adapter)
    assert any(part in caught.value.message for part in said.split("|"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "base"]


def test_an_expression_without_end_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(module_patterns, "SECONDS", 1.0)
    base = write_model(tmp_path / "base", LLAMA)
    pattern = {"(([a-z0-9_]+.?)+)+!": 3}
    adapter = write_peft(tmp_path / "adapter", peft_tensors(), alpha_pattern=pattern)
    with pytest.raises(UnsupportedModelError, match="more than 1 s"):
        convert(base, tmp_path / "made", adapter=adapter)
    assert not (tmp_path / "made").exists()


def test_a_folder_that_is_no_adapter_is_said(tmp_path):
    base = write_model(tmp_path / "base", LLAMA)
    with pytest.raises(ModelNotFoundError):
        convert(base, tmp_path / "made", adapter=tmp_path / "absent")
    (write_peft(tmp_path / "adapter", peft_tensors()) / "adapter_model.safetensors").unlink()
    with pytest.raises(FormatError, match="neither"):
        convert(base, tmp_path / "made", adapter=tmp_path / "adapter")
    with pytest.raises(FormatError, match=r"has no adapter_config\.json") as caught:
        convert(base, tmp_path / "made", adapter=base)
    assert caught.value.hint == "name the folder that holds adapter_config.json"


def test_folders_around_and_before_an_adapter_lead_to_it(tmp_path):
    several = tmp_path / "several"
    several.mkdir()
    for name in ("default", "checkpoint-5"):
        write_peft(several / name, peft_tensors())
    with pytest.raises(FormatError, match=r"has no adapter_config\.json") as caught:
        read_adapter(several)
    assert caught.value.hint == "name a folder in it: checkpoint-5, default"
    file = several / "default" / "adapter_model.safetensors"
    for name in ("0000100_adapters.safetensors", "0000200_adapters.safetensors"):
        shutil.copy(file, file.with_name(name))
    file.unlink()
    with pytest.raises(FormatError, match="neither") as caught:
        read_adapter(several / "default")
    assert caught.value.hint == "copy the last save to that name: 0000200_adapters.safetensors"


def test_a_bias_that_is_null_is_none(tmp_path):
    folder = write_peft(tmp_path / "adapter", peft_tensors(), bias=None)
    assert read_adapter(folder).changes


@settings(max_examples=40)
@given(st.data())
def test_a_damaged_adapter_is_an_error_of_ours_or_an_adapter(tmp_path_factory, data):
    folder = write_peft(tmp_path_factory.mktemp("adapter") / "x", peft_tensors(PATHS[:1]))
    file = folder / data.draw(st.sampled_from(["adapter_config.json", "adapter_model.safetensors"]))
    content = bytearray(file.read_bytes())
    at = data.draw(st.integers(0, min(len(content), 700) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    file.write_bytes(content[: data.draw(st.sampled_from([len(content), at]))])
    try:
        found = read_adapter(folder)
        assert all(math.isfinite(change.scale) for change in found.changes.values())
    except EdgeLLMError:
        pass
