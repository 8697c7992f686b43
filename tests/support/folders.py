"""Model folders: their tensors, changed ones, and what mlx-lm makes of them."""

import json

import mlx.core as mx
import numpy as np
from support.tiny import CONFIGS, LAYERS

from edgellm.checkpoint.folder import read_checksums
from edgellm.files.atomic import file_record

LLAMA = CONFIGS["llama-2"]


PROMPT = [3, 50, 7, 120, 9]


def tensors_of(path):
    """Every tensor of a folder, by MLX's own reader."""
    found = {}
    for file in sorted(path.glob("model*.safetensors")):
        found |= mx.load(str(file))
    return found


def fused(tensors):
    """Name a LLaMA's tensors as phi3 has them: queries, keys and values in one; gate and up."""
    out = dict(tensors)
    for layer in range(LAYERS):
        if f"model.layers.{layer}.mlp.up_proj.weight" not in out:
            break
        for made, path, members in (
            ("qkv_proj", "self_attn", ("q_proj", "k_proj", "v_proj")),
            ("gate_up_proj", "mlp", ("gate_proj", "up_proj")),
        ):
            prefix = f"model.layers.{layer}.{path}."
            parts = [out.pop(f"{prefix}{member}.weight") for member in members]
            out[f"{prefix}{made}.weight"] = np.concatenate(parts)
    return out


def rewritten(folder, made, rename, config):
    """Write a folder again, its tensors under other names; return its place."""
    made.mkdir()
    raw = json.loads((folder / "config.json").read_text())
    (made / "config.json").write_text(json.dumps({**raw, **config}))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (made / name).write_bytes((folder / name).read_bytes())
    tensors = {name: np.array(value) for name, value in tensors_of(folder).items()}
    renamed = {name: mx.array(value) for name, value in rename(tensors).items()}
    mx.save_safetensors(str(made / "model.safetensors"), renamed, metadata={"format": "pt"})
    return made


def change(path, edit, *, config=None):
    """Write a model's weights again after ``edit`` has changed them."""
    tensors = tensors_of(path)
    mx.eval(tensors)
    edit(tensors)
    mx.save_safetensors(str(path / "model.safetensors"), tensors, metadata={"format": "pt"})
    if config is not None:
        (path / "config.json").write_text(
            json.dumps(json.loads((path / "config.json").read_text()) | config)
        )
    return path


class _NoTokenizer:
    """Stands where mlx-lm saves a tokenizer."""

    def save_pretrained(self, path):
        pass


def saved_by_mlx_lm(source, made, **quantization):
    """Have mlx-lm quantize a model as its own conversion does, and save it without a tokenizer."""
    from mlx_lm.utils import load_model, quantize_model, save

    model, config = load_model(source)
    if quantization:
        model, config = quantize_model(model, config, **({"mode": "affine"} | quantization))
    empty = made.with_name(f"{made.name}-empty")
    empty.mkdir()
    save(made, empty, model, _NoTokenizer(), config)
    return made


def logits_by_mlx_lm(path):
    """The logits of a prompt longer than the tiny models' windows, as mlx-lm has them."""
    from mlx_lm.utils import load_model

    model, _ = load_model(path)
    return np.array(model(mx.array([PROMPT * 3]))[0].astype(mx.float32))


def changed_files(path):
    """The files of a folder whose bytes are no longer those recorded, or which are gone."""
    return [
        record.name
        for record in read_checksums(path)
        if not (path / record.name).exists() or file_record(path / record.name) != record
    ]
