"""Tiny random models of families that mlx-lm runs, in its own form and in Hugging Face's."""

import json
from importlib import import_module

import mlx.core as mx
from mlx.utils import tree_flatten
from support import tiny

BASE = {
    "vocab_size": tiny.VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
    "eos_token_id": tiny.END,
}

CONFIGS = {
    # a window of 16 tokens in every other layer, and experts
    "gpt_oss": BASE
    | {
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "sliding_window": 16,
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_scaling": None,
    },
    "qwen3_moe": BASE
    | {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "moe_intermediate_size": 64,
        "norm_topk_prob": True,
    },
    # its caches hold latents, not heads
    "deepseek_v3": BASE
    | {
        "moe_intermediate_size": 64,
        "n_shared_experts": 1,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "kv_lora_rank": 32,
        "q_lora_rank": 32,
        "qk_rope_head_dim": 16,
        "qk_nope_head_dim": 16,
        "v_head_dim": 16,
        "first_k_dense_replace": 1,
    },
    # a state that sums up all tokens, from which none can be taken away
    "mamba2": {
        "vocab_size": tiny.VOCABULARY,
        "num_heads": 4,
        "head_dim": 16,
        "hidden_size": 32,
        "intermediate_size": 64,
        "state_size": 16,
        "num_hidden_layers": 2,
        "layer_norm_epsilon": 1e-5,
        "conv_kernel": 4,
        "n_groups": 1,
        "use_bias": False,
        "use_conv_bias": True,
        "tie_word_embeddings": True,
        "time_step_limit": [0.0, 100.0],
        "time_step_rank": "auto",
        "eos_token_id": tiny.END,
    },
}


def write_mlx_lm_model(path, family, *, seed=0, bits=None, hugging_face=False, config=None):
    """Write the folder of a tiny model; with ``bits`` as ``mlx_lm.convert -q`` does."""
    from mlx import nn

    config = CONFIGS[family] | {"model_type": family} | (config or {})
    module = import_module(f"mlx_lm.models.{family}")
    model = module.Model(module.ModelArgs.from_dict(config))
    mx.random.seed(seed)
    for name, array in tree_flatten(model.parameters()):
        model.load_weights([(name, _random(name, array.shape))], strict=False)
    if bits is not None:
        config["quantization"] = {"group_size": 32, "bits": bits, "mode": "affine"}
        nn.quantize(model, group_size=32, bits=bits)
    tensors = dict(tree_flatten(model.parameters()))
    if hugging_face:
        tensors = _experts_apart(tensors)
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    mx.save_safetensors(str(path / "model.safetensors"), tensors, metadata={"format": "pt"})
    tiny.write_tokenizer(path)
    return path


def _random(name, shape):
    noise = mx.random.normal(shape)
    if len(shape) == 1 or "norm" in name:
        return 1 + 0.2 * noise
    return noise * (0.3 if "embed" in name else 1.4 / shape[-1] ** 0.5)


def _experts_apart(tensors):
    """Qwen's checkpoints have a matrix an expert, where mlx-lm has one stack of them."""
    apart = {}
    for name, array in tensors.items():
        if "switch_mlp" not in name:
            apart[name] = array
            continue
        for number in range(array.shape[0]):
            apart[name.replace("switch_mlp", f"experts.{number}")] = array[number]
    return apart
