"""Adapters of the tiny model in files, and the changes that files hold."""

import json

import mlx.core as mx
import numpy as np
from support.adapters import LLAMA, peft_tensors, write_peft
from support.tiny import random_tensors

from edgellm.adapters.stored import open_stored

MODULES = [f"self_attn.{part}_proj" for part in "qkvo"]
MODULES += [f"mlp.{part}_proj" for part in ("gate", "up", "down")]
ALL = [f"model.layers.{layer}.{module}" for layer in range(4) for module in MODULES]
SOME = [path for path in ALL if path.endswith(("q_proj", "v_proj", "down_proj"))]
UNEVEN = {
    "use_rslora": True,
    "alpha_pattern": {"v_proj": 3, r"layers\.[23]\..*q_proj": 40},
}


def peft_adapter(folder, paths=SOME, rank=4, **config):
    """A folder of PEFT's with random factors."""
    return write_peft(folder, peft_tensors(paths, rank), **config)


def dora_adapter(folder, paths=SOME):
    """A DoRA in PEFT's form, whose lengths are not those of the base."""
    tensors, weights = peft_tensors(paths), random_tensors(LLAMA)
    for path in paths:
        weight = weights[f"{path}.weight"].astype(np.float32)
        lengths = np.linalg.norm(weight, axis=1)
        tensors[f"{path}.lora_magnitude_vector"] = lengths * np.linspace(0.8, 1.3, len(lengths))
    tensors = {name: values.astype(np.float32) for name, values in tensors.items()}
    return write_peft(folder, tensors, use_dora=True)


def products(folder):
    """Each change of a folder as one matrix, in float64."""
    stored = open_stored(folder)
    found = {}
    for path in stored.adapter.changes:
        change = stored.change(path)
        found[path] = change.scale * (change.up.astype(np.float64) @ change.down)
    return found


def config_of(folder):
    """What ``adapter_config.json`` says."""
    return json.loads((folder / "adapter_config.json").read_text())


def tuned_model(base, folder, changes, others=()):
    """A copy of a model in Hugging Face's form with changes added to its tensors."""
    folder.mkdir()
    for file in base.iterdir():
        if file.suffix != ".safetensors" and file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    tensors = {}
    for file in base.glob("*.safetensors"):
        tensors |= mx.load(str(file))
    added = {f"{path}.weight": change for path, change in changes.items()} | dict(others)
    for name, change in added.items():
        values = np.array(tensors[name].astype(mx.float32)).astype(np.float64) + change
        tensors[name] = mx.array(values.astype(np.float32))
    (folder / "model.safetensors.index.json").unlink(missing_ok=True)
    mx.save_safetensors(str(folder / "model.safetensors"), tensors)
    return folder
