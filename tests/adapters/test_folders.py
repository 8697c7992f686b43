"""Adapters' folders that are written: against what they were read from, PEFT and mlx-lm."""

import json

import numpy as np
import pytest
from support.adapters import (
    LLAMA,
    RANK,
    peft_tensors,
    trained_by_mlx_lm,
    trained_by_peft,
    write_peft,
)
from support.lora_files import ALL, SOME, UNEVEN, config_of, dora_adapter, peft_adapter, products
from support.tiny import write_model

from edgellm.adapters.stored import open_stored
from edgellm.errors import ConfigError, ConversionError, FormatError, UnsupportedModelError
from edgellm.low_rank.conversion import convert_adapter

PROMPT = [3, 1, 4, 1, 5, 92, 65, 35, 89, 79]
ROUNDING = 1e-6


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("base") / "model", LLAMA)


def same(one, other, within=ROUNDING):
    assert one.keys() == other.keys()
    for path, values in one.items():
        assert np.abs(values - other[path]).max() <= within * np.abs(values).max(), path


def there_and_back(folder, tmp_path):
    convert_adapter(folder, tmp_path / "mlx", form="mlx-lm")
    convert_adapter(tmp_path / "mlx", tmp_path / "peft", form="peft")
    return tmp_path / "mlx", tmp_path / "peft"


@pytest.mark.parametrize("config", [{}, UNEVEN], ids=["even", "uneven"])
def test_changes_are_the_same_there_and_back(tmp_path, config):
    folder = peft_adapter(tmp_path / "adapter", **config)
    theirs, back = there_and_back(folder, tmp_path)
    same(products(folder), products(theirs))
    same(products(folder), products(back))


def test_ranks_that_differ_are_filled_up_for_mlx_lm(tmp_path):
    tensors = peft_tensors(SOME[:3]) | peft_tensors(SOME[3:6], rank=7)
    folder = write_peft(tmp_path / "adapter", tensors, rank_pattern={"v_proj": 7})
    theirs, back = there_and_back(folder, tmp_path)
    same(products(folder), products(theirs))
    same(products(folder), products(back))
    assert config_of(theirs)["lora_parameters"]["rank"] == 7


def test_an_even_adapters_numbers_are_the_same_bits_there_and_back(tmp_path):
    folder = peft_adapter(tmp_path / "adapter")
    _, back = there_and_back(folder, tmp_path)
    one, other = open_stored(folder), open_stored(back)
    for path in one.adapter.changes:
        before, after = one.change(path), other.change(path)
        assert np.array_equal(before.up, after.up)
        assert np.array_equal(before.down, after.down)
        assert (before.scale, before.dtype) == (after.scale, after.dtype)


def test_layers_and_names_are_told_as_peft_and_mlx_lm_tell_them(tmp_path):
    last = [path for path in SOME if path.startswith(("model.layers.2.", "model.layers.3."))]
    folder = peft_adapter(tmp_path / "adapter", last, layers_to_transform=[2, 3])
    convert_adapter(folder, tmp_path / "mlx", form="mlx-lm")
    assert config_of(tmp_path / "mlx")["num_layers"] == -1  # nobody says how many there are
    base = write_model(tmp_path / "base", LLAMA)
    convert_adapter(folder, tmp_path / "with base", form="mlx-lm", base=str(base))
    said = config_of(tmp_path / "with base")
    assert said["num_layers"] == 2
    assert said["lora_parameters"]["keys"] == [
        "mlp.down_proj", "self_attn.q_proj", "self_attn.v_proj",
    ]  # fmt: skip
    convert_adapter(tmp_path / "mlx", tmp_path / "peft", form="peft")
    back = config_of(tmp_path / "peft")
    assert sorted(back["target_modules"]) == ["down_proj", "q_proj", "v_proj"]
    assert back["layers_to_transform"] == [2, 3]
    ragged = peft_adapter(tmp_path / "ragged", [ALL[0], ALL[9], "lm_head"])
    there_and_back(ragged, tmp_path / "sub")
    assert config_of(tmp_path / "sub" / "peft")["target_modules"] == [ALL[0], ALL[9], "lm_head"]


def test_a_dora_goes_there_and_back(tmp_path):
    folder = dora_adapter(tmp_path / "adapter")
    theirs, back = there_and_back(folder, tmp_path)
    assert config_of(theirs)["fine_tune_type"] == "dora"
    assert config_of(back)["use_dora"] is True
    for path in SOME:
        lengths = open_stored(folder).change(path).magnitude
        assert np.array_equal(lengths, open_stored(theirs).change(path).magnitude)
        assert np.array_equal(lengths, open_stored(back).change(path).magnitude)


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_mlx_lm_opens_what_was_pefts(base, tmp_path, kind):
    import mlx.core as mx
    from mlx_lm.tuner.utils import load_adapters
    from mlx_lm.utils import load_model

    from edgellm import load
    from edgellm.converters import convert

    make = {"lora": lambda place: peft_adapter(place, **UNEVEN), "dora": dora_adapter}[kind]
    folder = make(tmp_path / "adapter")
    convert_adapter(folder, tmp_path / "mlx", form="mlx-lm")
    convert(base, tmp_path / "merged", bits=16, adapter=folder)
    model, _ = load_model(base)
    theirs = np.array(load_adapters(model, str(tmp_path / "mlx"))(mx.array([PROMPT])))[0]
    with load(tmp_path / "merged", backend="mlx", kv_bits=32) as llm:
        from support.paged import logits_of

        assert np.abs(logits_of(llm, PROMPT) - theirs).max() < 1e-4


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_peft_opens_what_was_mlx_lms(base, tmp_path, kind):
    peft = pytest.importorskip("peft")
    import mlx.core as mx
    import torch
    from transformers import AutoModelForCausalLM

    keys = ["self_attn.q_proj", "mlp.down_proj"]
    model = trained_by_mlx_lm(base, tmp_path / "mlx", keys=keys, kind=kind)
    theirs = np.array(model(mx.array([PROMPT])))[0]
    convert_adapter(tmp_path / "mlx", tmp_path / "peft", form="peft")
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    opened = peft.PeftModel.from_pretrained(plain, tmp_path / "peft")
    with torch.no_grad():
        ours = opened(torch.tensor([PROMPT])).logits[0].numpy()
    assert np.abs(ours - theirs).max() < 1e-4


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize(
    "config",
    [
        {"target_modules": "all-linear", "rank_pattern": {"k_proj": 8}, "use_rslora": True},
        {"target_modules": ["q_proj", "embed_tokens"], "alpha_pattern": {"q_proj": 3}},
    ],
)
def test_peft_opens_its_own_adapter_after_it_was_mlx_lms(base, tmp_path, config):
    peft = pytest.importorskip("peft")
    import torch
    from transformers import AutoModelForCausalLM

    model = trained_by_peft(peft, base, **config)
    model.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    _, back = there_and_back(tmp_path / "adapter", tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    opened = peft.PeftModel.from_pretrained(plain, back)
    tokens = torch.tensor([PROMPT])
    with torch.no_grad():
        assert (opened(tokens).logits - model(tokens).logits).abs().max() < 1e-4


def test_what_a_form_has_no_place_for_is_refused(tmp_path):
    whole = peft_tensors(SOME[:1]) | {"model.norm.weight": np.ones(64, np.float32)}
    folder = write_peft(tmp_path / "whole", whole, modules_to_save=["norm"])
    with pytest.raises(UnsupportedModelError, match=r"whole tensors \('model.norm.weight'\)"):
        convert_adapter(folder, tmp_path / "out", form="mlx-lm")
    folder = peft_adapter(tmp_path / "adapter")
    with pytest.raises(ConfigError, match="form of peft already"):
        convert_adapter(folder, tmp_path / "out", form="peft")
    assert not (tmp_path / "out").exists()


def test_a_value_that_is_not_finite_leaves_nothing_behind(tmp_path):
    tensors = peft_tensors(SOME[:2])
    tensors[f"{SOME[1]}.lora_B.weight"][0, 0] = np.nan
    folder = write_peft(tmp_path / "adapter", tensors)
    with pytest.raises(FormatError, match="infinite or not a number"):
        convert_adapter(folder, tmp_path / "out", form="mlx-lm")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["adapter"]


def test_what_is_there_is_replaced_only_if_it_is_an_adapter_and_asked_for(tmp_path):
    folder = peft_adapter(tmp_path / "adapter")
    out = tmp_path / "out"
    convert_adapter(folder, out, form="mlx-lm")
    with pytest.raises(ConversionError, match="already exists"):
        convert_adapter(folder, out, form="mlx-lm")
    other = peft_adapter(tmp_path / "other", SOME[:1], rank=RANK + 1)
    convert_adapter(other, out, form="mlx-lm", force=True)
    same(products(other), products(out))
    (out / "notes.txt").write_text("mine")
    with pytest.raises(ConversionError, match=r"holds notes\.txt"):
        convert_adapter(folder, out, form="mlx-lm", force=True)
    with pytest.raises(ConversionError, match="is not a folder"):
        convert_adapter(folder, out / "notes.txt", form="mlx-lm", force=True)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["adapter", "other", "out"]


def test_a_config_keeps_whole_numbers_whole(tmp_path):
    folder = peft_adapter(tmp_path / "adapter")
    _, back = there_and_back(folder, tmp_path)
    assert json.dumps(config_of(back)["lora_alpha"]) == "16"
    assert config_of(back)["rank_pattern"] == {}
