"""LitGPT's and Lit-LLaMA's files of the tiny models, written by their published layouts."""

import numpy as np
from support.meta_files import pairs_from_halves
from support.tiny import random_tensors
from support.torch_files import state, text, write_arrays

NAMES = {
    "model.embed_tokens": "transformer.wte",
    "model.norm": "transformer.ln_f",
    "lm_head": "lm_head",
    "input_layernorm": "norm_1",
    "post_attention_layernorm": "norm_2",
    "self_attn.o_proj": "attn.proj",
    "self_attn.q_norm": "attn.norm_q",
    "self_attn.k_norm": "attn.norm_k",
    "mlp.gate_proj": "mlp.fc_1",
    "mlp.up_proj": "mlp.fc_2",
    "mlp.down_proj": "mlp.proj",
}
LIT_LLAMA_NAMES = {
    "norm_1.weight": "rms_1.scale",
    "norm_2.weight": "rms_2.scale",
    "ln_f.weight": "ln_f.scale",
    "attn.qkv": "attn.c_attn",
    "attn.proj": "attn.c_proj",
    "mlp.fc_1": "mlp.c_fc1",
    "mlp.fc_2": "mlp.c_fc2",
    "mlp.proj": "mlp.c_proj",
}

CONFIG = """
attn_bias: {attn_bias}
bias: {bias}
block_size: 256
hf_config:
  name: tiny
  org: nobody
head_size: {head_dim}
intermediate_size: {intermediate_size}
mlp_class_name: LLaMAMLP
n_embd: {hidden_size}
n_expert: 0
n_head: {num_attention_heads}
n_layer: {num_hidden_layers}
n_query_groups: {num_key_value_heads}
name: tiny
norm_class_name: RMSNorm
norm_eps: 1.0e-05
norm_qk: {norm_qk}
padded_vocab_size: {vocab_size}
parallel_residual: false
rope_adjustments: null
rope_base: {theta}
rope_condense_ratio: 1
rotary_percentage: 1.0
sliding_window_size: {window}
"""
"""As ``litgpt.utils.save_config`` (0.5.13) writes it, without some lines that say what is usual."""


def litgpt_tensors(config, tensors, *, interleaved=False):
    """Name and fuse a model's tensors as LitGPT does."""
    out, parts = {}, {}
    for name, numbers in tensors.items():
        values = numbers.astype(np.float32)
        path, _, kind = name.rpartition(".")
        layer = path.startswith("model.layers.")
        number, inner = path.removeprefix("model.layers.").split(".", 1) if layer else (None, path)
        if inner in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"):
            parts.setdefault((number, kind), {})[inner[10]] = values
            continue
        prefix = f"transformer.h.{number}." if layer else ""
        out[f"{prefix}{NAMES[inner]}.{kind}"] = values
    for (number, kind), found in parts.items():
        module = "attn.attn" if interleaved else "attn.qkv"
        values = [found[letter] for letter in "qkv"]
        if interleaved:
            groups = config["num_key_value_heads"]
            pieces = zip(*(np.split(item, groups) for item in values), strict=True)
            values = [item for group in pieces for item in group]
        out[f"transformer.h.{number}.{module}.{kind}"] = np.concatenate(values)
    return out


def lit_llama_tensors(config, tensors):
    """Name, order and fuse a LLaMA's tensors as Lit-LLaMA does."""
    heads = config["num_attention_heads"]
    paired = {
        name: pairs_from_halves(values, heads)
        if ".q_proj." in name or ".k_proj." in name
        else values
        for name, values in tensors.items()
    }
    out = litgpt_tensors(config, tensors | paired)
    for old, new in LIT_LLAMA_NAMES.items():
        out = {name.replace(old, new): values for name, values in out.items()}
    return out


def model_config(config):
    """LitGPT's words for a tiny model's config."""
    heads = config["num_attention_heads"]
    yes_or_no = {True: "true", False: "false"}
    return CONFIG.format(
        **{
            "num_key_value_heads": heads,
            "head_dim": config["hidden_size"] // heads,
            **config,
            "attn_bias": yes_or_no[config["model_type"] == "qwen2"],
            "bias": yes_or_no[config.get("mlp_bias", False)],
            "norm_qk": yes_or_no[config["model_type"] == "qwen3"],
            "theta": int(config.get("rope_theta", 10000)),
            "window": config.get("sliding_window") or "null",
        }
    )


def write_litgpt(folder, config, *, interleaved=False, wrap=state, key=str):
    """Write a folder of LitGPT's."""
    folder.mkdir()
    tensors = litgpt_tensors(config, random_tensors(config), interleaved=interleaved)
    write_arrays(folder / "lit_model.pth", tensors, wrap=wrap, key=key)
    (folder / "model_config.yaml").write_text(model_config(config))
    return folder


def with_optimizer(entries):
    """Pickle weights as Fabric saves them in the middle of a training."""
    model = state(entries)[2:-1]
    optimizer = b"}" + text("state") + b"}K\x00}" + text("step") + b"K\x03sss"
    return b"\x80\x02}(" + text("model") + model + text("optimizer") + optimizer + b"u."
