"""LoRA that LitGPT and loralib save: factors beside the modules' names, fused ones taken apart."""

import re

import numpy as np
import pytest
from support.adapters import factors
from support.folders import tensors_of
from support.litgpt_files import write_litgpt
from support.meta_files import pairs_from_halves
from support.published_models import save_model
from support.tiny import CONFIGS, random_tensors, write_model
from support.torch_files import state, text, write_arrays

from edgellm.converters import convert
from edgellm.errors import ConfigError, FormatError, UnsupportedModelError

LLAMA = CONFIGS["llama-2"] | {"num_hidden_layers": 1, "tie_word_embeddings": False}
OLD = CONFIGS["llama-1"] | {"num_hidden_layers": 1}
RANK = 3
LAYER = "model.layers.0.self_attn."
HYPERPARAMETERS = """
checkpoint_dir: checkpoints/nobody/tiny
data:
  class_path: litgpt.data.Alpaca
  init_args:
    val_split_fraction: 0.03
lora_alpha: 12
lora_dropout: 0.05
lora_head: false
lora_key: {key}
lora_mlp: false
lora_projection: false
lora_query: true
lora_r: 3
lora_value: true
precision: bf16-true
"""
"""As ``litgpt finetune_lora`` (0.5.13) saves it, without some lines."""


def random_factors(rows, columns, parts=1, seed=5):
    """A and B of a matrix's change, or of parts that lie one below the other."""
    down, up = factors((rows, columns), seed, RANK)
    if parts > 1:
        down = np.concatenate(
            [factors((rows, columns), seed + part, RANK)[0] for part in range(parts)]
        )
    return down.astype(np.float32), up.astype(np.float32)


def fused(module, parts, shapes):
    """The two tensors of a fused matrix's change, and what each part's becomes by its path."""
    names = [f"{part}_proj" for part in parts]
    rows = [shapes[f"{LAYER}{name}.weight"].shape[0] for name in names]
    down, up = random_factors(sum(rows), LLAMA["hidden_size"], len(parts))
    ups = np.split(up, np.cumsum(rows)[:-1])
    changes = {
        f"{LAYER}{name}.weight": ours @ theirs
        for name, ours, theirs in zip(names, ups, np.split(down, len(parts)), strict=True)
    }
    return {f"{module}.lora_A": down, f"{module}.lora_B": up}, changes


def require_changed(made, config, changes, scale):
    found = tensors_of(made)
    for name, values in random_tensors(config).items():
        expected = values + scale * changes.get(name, 0)
        assert np.allclose(np.array(found[name]), expected, rtol=1e-5, atol=1e-6), name


def in_model(entries):
    return b"\x80\x02}" + text("model") + state(entries)[2:-1] + b"s."


@pytest.mark.parametrize("parts", ["qv", "qkv"])
@pytest.mark.parametrize("base", ["LitGPT's", "Hugging Face's"])
def test_litgpts_fused_changes_are_taken_apart(tmp_path, parts, base):
    config = LLAMA
    source = tmp_path / "base"
    if base == "LitGPT's":
        write_litgpt(source, config, interleaved=True)
    else:
        write_model(source, config)
    tensors, changes = fused("transformer.h.0.attn.qkv", parts, random_tensors(config))
    down, up = random_factors(64, 128, seed=9)
    more = "transformer.h.0.mlp.proj.lora_"
    tensors |= {f"{more}A": down, f"{more}B": up}
    changes["model.layers.0.mlp.down_proj.weight"] = up @ down
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    write_arrays(adapter / "lit_model.pth.lora", tensors, wrap=in_model)
    switch = {"qv": "false", "qkv": "true"}[parts]
    (adapter / "hyperparameters.yaml").write_text(HYPERPARAMETERS.format(key=switch))
    report = convert(source, tmp_path / "made", bits=16, adapter=adapter)
    assert report.merged == len(parts) + 1
    require_changed(tmp_path / "made", config, changes, 12 / RANK)


def test_lit_llamas_changes_go_into_our_order(tmp_path):
    tensors, changes = fused("transformer.h.0.attn.c_attn", "qv", random_tensors(OLD))
    name = "transformer.h.0.attn.c_attn.lora_B"
    queries, values = np.split(tensors[name], 2)
    tensors[name] = np.concatenate([pairs_from_halves(queries, 4), values])
    adapter = write_arrays(tmp_path / "lit-llama-lora-finetuned.pth", tensors)
    base = write_model(tmp_path / "base", OLD)
    with pytest.raises(ConfigError, match="changes 2 of queries, keys and values") as refusal:
        convert(base, tmp_path / "made", adapter=adapter, adapter_alpha=6)
    assert "--adapter-parts" in refusal.value.hint
    convert(
        base, tmp_path / "made", bits=16, adapter=adapter, adapter_alpha=6, adapter_parts=["q", "v"]
    )
    require_changed(tmp_path / "made", OLD, changes, 6 / RANK)


@pytest.mark.torch
def test_loralibs_changes_are_loralibs(tmp_path):
    torch = pytest.importorskip("torch")
    loralib = pytest.importorskip("loralib")
    model = save_model(tmp_path / "base", "llama", num_hidden_layers=1, tie_word_embeddings=False)
    layer = model.model.layers[0]
    changed = [
        (layer.self_attn, "q_proj", loralib.Linear(64, 64, r=4, lora_alpha=8, bias=False)),
        (layer.self_attn, "v_proj", loralib.MergedLinear(64, 32, r=4, lora_alpha=8, bias=False,
                                                         enable_lora=[True])),
        (layer.mlp, "down_proj", loralib.Linear(96, 64, r=2, lora_alpha=8, bias=False)),
        (model.model, "embed_tokens",
         loralib.Embedding(*model.model.embed_tokens.weight.shape, r=3, lora_alpha=8)),
    ]  # fmt: skip
    torch.manual_seed(0)
    for parent, name, module in changed:
        module.weight.data = getattr(parent, name).weight.data.clone()
        module.lora_A.data = torch.randn(module.lora_A.shape) * 0.1
        module.lora_B.data = torch.randn(module.lora_B.shape) * 0.1
        setattr(parent, name, module)
    torch.save(loralib.lora_state_dict(model), tmp_path / "lora.pt")
    convert(
        tmp_path / "base", tmp_path / "made", bits=16, adapter=tmp_path / "lora.pt", adapter_alpha=8
    )
    model.train()
    model.eval()  # by which loralib merges
    found = tensors_of(tmp_path / "made")
    for name, weight in model.state_dict().items():
        if "lora_" not in name:
            assert np.allclose(np.array(found[name]), weight.numpy(), rtol=1e-5, atol=1e-6), name


A, B = f"{LAYER}q_proj.lora_A", f"{LAYER}q_proj.lora_B"
FUSED = "transformer.h.0.attn.qkv.lora_"
FILES = {
    "no alpha": ({}, {"adapter_alpha": None}, ConfigError, "does not say the alpha"),
    "an endless alpha": ({}, {"adapter_alpha": float("inf")}, ConfigError, "alpha is inf"),
    "parts in another order": ({}, {"adapter_parts": ["v", "q"]}, ConfigError, "'v,q'"),
    "half": ({B: None}, {}, FormatError, "half"),
    "ranks": ({A: np.ones((2, 64), np.float32)}, {}, FormatError, "ranks 3 and 2"),
    "another width": ({A: np.ones((3, 60), np.float32)}, {}, FormatError, r"\(64, 60\)"),
    "a vector": ({A: np.ones(64, np.float32)}, {}, FormatError, "no LoRA has"),
    "another module": (
        {"model.layers.0.x.lora_A": np.ones((3, 64), np.float32),
         "model.layers.0.x.lora_B": np.ones((64, 3), np.float32)},
        {}, FormatError, "model.layers.0.x",
    ),
    "weights": ({f"{LAYER}q_proj.weight": np.ones((2, 2), np.float32)}, {},
                UnsupportedModelError, "not part of a LoRA"),
    "an older LitGPT": (
        {"transformer.h.0.attn.attn.lora_A": np.ones((6, 64), np.float32),
         "transformer.h.0.attn.attn.lora_B": np.ones((96, 3), np.float32)},
        {}, UnsupportedModelError, r"before 0\.5\.4",
    ),
    "parts that do not fit": (
        {f"{FUSED}A": np.ones((6, 64), np.float32), f"{FUSED}B": np.ones((64, 3), np.float32)},
        {"adapter_parts": ["q", "v"]}, FormatError, "does not fit q,v",
    ),
    "a fused bias": ({"transformer.h.0.attn.qkv.bias": np.ones(128, np.float32)}, {},
                     UnsupportedModelError, "trained bias"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
def test_files_that_would_be_merged_wrongly_are_refused(tmp_path, kind):
    more, settings, error, said = FILES[kind]
    down, up = random_factors(64, 64)
    tensors = {
        name: value for name, value in ({A: down, B: up} | more).items() if value is not None
    }
    adapter = write_arrays(tmp_path / "lora.pt", tensors)
    base = write_model(tmp_path / "base", LLAMA)
    with pytest.raises(error, match=said) as refusal:
        convert(base, tmp_path / "made", adapter=adapter, **({"adapter_alpha": 8} | settings))
    assert refusal.value.hint or error is FormatError
    assert not (tmp_path / "made").exists()


def test_what_a_config_tells_is_not_told_again(tmp_path):
    base = write_model(tmp_path / "base", LLAMA)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    with pytest.raises(ConfigError, match="are for an adapter") as refusal:
        convert(base, tmp_path / "made", adapter_alpha=8)
    assert "--adapter" in refusal.value.hint
    down, up = random_factors(64, 64)
    write_arrays(adapter / "lit_model.pth.lora", {A: down, B: up})
    (adapter / "hyperparameters.yaml").write_text(HYPERPARAMETERS.format(key="false"))
    with pytest.raises(ConfigError, match="already says its alpha"):
        convert(base, tmp_path / "made", adapter=adapter, adapter_alpha=8)
    (adapter / "hyperparameters.yaml").write_text("lora_r: 4\nlora_alpha: 8\n")
    with pytest.raises(FormatError, match=re.escape("lora_r: 4")):
        convert(base, tmp_path / "made", adapter=adapter)
    (adapter / "lit_model.pth.lora").rename(adapter / "lit_model.pth.adapter_v2")
    with pytest.raises(UnsupportedModelError, match="LLaMA-Adapter"):
        convert(base, tmp_path / "made", adapter=adapter)
