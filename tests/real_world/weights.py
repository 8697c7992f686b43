"""Random weights under the names and in the shapes of a family, written as releases are."""

import json

import mlx.core as mx
import numpy as np
from support.tiny import tensor_shapes
from support.torch_files import write_arrays

DTYPES = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}


def family_shapes(config):
    """Every tensor of a model as its family names it."""
    kind = config["model_type"]
    if kind in ("llama", "mistral", "qwen2", "qwen3"):
        return tensor_shapes(config)
    plain = config | {"model_type": "llama"}
    tied_by_default = kind in ("ernie4_5", "granitemoehybrid")
    plain["tie_word_embeddings"] = config.get("tie_word_embeddings", tied_by_default)
    if kind == "seed_oss":
        plain |= {"model_type": "qwen2"}
    if kind == "granitemoehybrid":
        plain["intermediate_size"] = config["shared_intermediate_size"]
    if kind in ("ernie4_5", "helium"):
        plain["attention_bias"] = config.get("use_bias") or config.get("attention_bias")
    shapes = tensor_shapes(plain)
    if kind == "phi3":
        return _fused(shapes, {"self_attn.qkv_proj": "qkv", "mlp.gate_up_proj": ("gate", "up")})
    if kind == "granitemoehybrid":
        shapes = _fused(shapes, {"shared_mlp.input_linear": ("gate", "up")})
        return {
            name.replace("mlp.down_proj", "shared_mlp.output_linear"): shape
            for name, shape in shapes.items()
        }
    return shapes


def _fused(shapes, parts):
    """Join matrices of a layer by rows: new names, and the letters of those that lie in them."""
    shapes, layers = dict(shapes), {name.split(".")[2] for name in shapes if ".layers." in name}
    for layer in sorted(layers):
        for fused, members in parts.items():
            names = [
                name
                for name in shapes
                if name.startswith(f"model.layers.{layer}.")
                and any(name.endswith(f".{member}_proj.weight") for member in members)
            ]
            rows = sum(shapes[name][0] for name in names)
            shapes[f"model.layers.{layer}.{fused}.weight"] = (rows, shapes[names[0]][1])
            for name in names:
                del shapes[name]
    return shapes


def random_weights(config, seed=0, shapes=None):
    """Random tensors that keep the scale of what passes through them, as float32 arrays."""
    random = np.random.RandomState(seed)
    tied = "lm_head.weight" not in (shapes or family_shapes(config))
    tensors = {}
    for name, shape in (shapes or family_shapes(config)).items():
        noise = random.standard_normal(shape).astype(np.float32)
        if "norm" in name:
            tensors[name] = 1 + 0.2 * noise
        elif len(shape) == 1:
            tensors[name] = 0.3 * noise
        elif "embed" in name:
            tensors[name] = noise * (0.3 if tied else 1.0)
        else:
            tensors[name] = noise * np.float32(1.4 / np.sqrt(shape[1]))
    return tensors


def rotary_buffers(config):
    """The frequencies that releases of 2023 carry in every layer."""
    size = config["hidden_size"] // config["num_attention_heads"]
    turns = (1 / 10000 ** (np.arange(0, size, 2) / size)).astype(np.float32)
    return {
        f"model.layers.{index}.self_attn.rotary_emb.inv_freq": turns
        for index in range(config["num_hidden_layers"])
    }


def save_safetensors(folder, tensors, dtype="bfloat16", shards=1, metadata=True):
    """Write tensors to one file, or to shards with an index."""
    stored = {name: mx.array(values).astype(DTYPES[dtype]) for name, values in tensors.items()}
    about = {"format": "pt"} if metadata else {}
    if shards == 1:
        mx.save_safetensors(str(folder / "model.safetensors"), stored, metadata=about)
        return
    places = {}
    names = list(stored)
    for number in range(shards):
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        part = names[number * len(names) // shards : (number + 1) * len(names) // shards]
        places |= dict.fromkeys(part, file)
        mx.save_safetensors(
            str(folder / file), {name: stored[name] for name in part}, metadata=about
        )
    _write_index(folder / "model.safetensors.index.json", stored, places)


def save_bin(folder, tensors, dtype="float16", shards=1):
    """Write PyTorch pickles, one file or shards with an index."""
    stored = {name: values.astype(dtype) for name, values in tensors.items()}
    if shards == 1:
        write_arrays(folder / "pytorch_model.bin", stored)
        return
    places = {}
    names = list(stored)
    for number in range(shards):
        file = f"pytorch_model-{number + 1:05d}-of-{shards:05d}.bin"
        part = names[number * len(names) // shards : (number + 1) * len(names) // shards]
        places |= dict.fromkeys(part, file)
        write_arrays(folder / file, {name: stored[name] for name in part})
    _write_index(folder / "pytorch_model.bin.index.json", stored, places)


def _write_index(path, stored, places):
    size = sum(values.nbytes for values in stored.values())
    path.write_text(json.dumps({"metadata": {"total_size": size}, "weight_map": places}, indent=2))
