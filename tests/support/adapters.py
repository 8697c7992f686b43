"""LoRA adapters as PEFT and mlx-lm write them."""

import json

import mlx.core as mx
import numpy as np
from support.tiny import CONFIGS, random_tensors

RANK = 4
LLAMA = CONFIGS["llama-2"]
TIED = LLAMA | {"tie_word_embeddings": True}

PATHS = [
    "model.layers.0.self_attn.q_proj",
    "model.layers.1.self_attn.v_proj",
    "model.layers.3.mlp.down_proj",
    "lm_head",
]


def write_peft(folder, tensors, **config):
    folder.mkdir()
    said = {
        "peft_type": "LORA",
        "r": RANK,
        "lora_alpha": 16,
        "target_modules": ["q_proj"],
        "bias": "none",
        "fan_in_fan_out": False,
    }
    (folder / "adapter_config.json").write_text(json.dumps(said | config))
    named = {f"base_model.model.{name}": mx.array(values) for name, values in tensors.items()}
    mx.save_safetensors(str(folder / "adapter_model.safetensors"), named)
    return folder


def factors(shape, seed, rank=RANK):
    random = np.random.RandomState(seed)
    down = (random.standard_normal((rank, shape[1])) / np.sqrt(shape[1])).astype(np.float32)
    return down, random.standard_normal((shape[0], rank)).astype(np.float32) / 8


def peft_tensors(paths=PATHS, rank=RANK):
    values, tensors = random_tensors(LLAMA), {}
    for seed, path in enumerate(paths):
        down, up = factors(values[f"{path}.weight"].shape, seed, rank)
        tensors |= {f"{path}.lora_A.weight": down, f"{path}.lora_B.weight": up}
    return tensors


def merged(path, tensors, scale):
    change = tensors[f"{path}.lora_B.weight"].astype(np.float64) @ tensors[f"{path}.lora_A.weight"]
    return random_tensors(LLAMA)[f"{path}.weight"] + scale * change


def trained_by_peft(peft, base, **config):
    """A model with an adapter by PEFT, whose numbers are no longer those it begins with."""
    import torch
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = peft.get_peft_model(plain, peft.LoraConfig(r=RANK, lora_alpha=16, **config))
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                noise = torch.randn_like(parameter) / 20
                parameter.mul_(1 + noise.abs()) if "magnitude" in name else parameter.add_(noise)
    return model


def write_mlx(folder, tensors, **config):
    folder.mkdir()
    mx.save_safetensors(str(folder / "adapters.safetensors"), tensors)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def trained_by_mlx_lm(base, folder, keys=None, kind="lora"):
    """A model with an adapter by mlx-lm, which is written to a folder too."""
    from mlx.utils import tree_flatten, tree_unflatten
    from mlx_lm.tuner.utils import linear_to_lora_layers
    from mlx_lm.utils import load_model

    model, _ = load_model(base)
    model.freeze()
    parameters = {"rank": RANK, "scale": 7.0, "dropout": 0.0}
    if keys is not None:
        parameters["keys"] = keys
    linear_to_lora_layers(model, 2, parameters, use_dora=kind == "dora")
    trained = dict(tree_flatten(model.trainable_parameters()))
    random = np.random.RandomState(0)
    for name, values in trained.items():
        if name.endswith("lora_b"):
            trained[name] = mx.array(random.standard_normal(values.shape).astype(np.float32) / 30)
    model.update(tree_unflatten(list(trained.items())))
    write_mlx(folder, trained, fine_tune_type=kind, num_layers=2, lora_parameters=parameters)
    return model
