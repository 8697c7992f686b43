"""LoRA adapters as PEFT writes them."""

import json

import mlx.core as mx

RANK = 4


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
