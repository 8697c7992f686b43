"""LoRA adapters, PEFT's and mlx-lm's: their config, and the matrices beside it."""

import json

import numpy as np
import safetensors.numpy
from support.tiny import LLAMA

from edgellm.converters.huggingface.source import HuggingFaceSource
from edgellm.converters.lora.merged_source import MergedSource
from fuzz.byte_damage import damage_bytes
from fuzz.door import DifferenceError, Door, as_bytes
from fuzz.doors.folders import SMALL, damage_safetensors, small_model
from fuzz.json_damage import NUMBERS, damage_document, encode, junk

RANK = 2
LAYER = "model.layers.0.self_attn"
PEFT = {
    "peft_type": "LORA", "r": RANK, "lora_alpha": 16, "target_modules": ["q_proj"], "bias": "none",
    "fan_in_fan_out": False, "use_rslora": False, "use_dora": False, "lora_dropout": 0.0,
    "alpha_pattern": {}, "rank_pattern": {}, "modules_to_save": None, "init_lora_weights": True,
    "layers_to_transform": None, "task_type": "CAUSAL_LM", "inference_mode": True,
}  # fmt: skip
MLX = {"fine_tune_type": "lora", "num_layers": 1, "lora_parameters": {"rank": RANK, "scale": 8.0}}
FURTHER = [
    "layer_replication", "lora_bias", "alora_invocation_tokens", "megatron_config", "eva_config",
    "trainable_token_indices", "target_parameters", "exclude_modules", "qalora_group_size",
    "layers_pattern", "corda_config", "use_qalora", "arrow_config", "unknown_to_everybody",
]  # fmt: skip
PATTERNS = ["q_proj", ".*", "(", "(?i)Q_PROJ", "[qv]_proj", "(a+)+$", "\\\\", "(?P<a>q)_proj"]
VALUES = [*NUMBERS, "LORA", "IA3", "pissa", "olora", "all", "lora_only", [[0, 1]], [0], True]


class Adapters(Door):
    name = "adapters"
    share = 30
    compares = "W + scale * B A, computed here"

    def __init__(self, folder):
        super().__init__(folder)
        self.adapter = folder / "adapter"
        self.adapter.mkdir()
        base = folder / "base"
        base.mkdir()
        weights = small_model()
        (base / "model.safetensors").write_bytes(safetensors.numpy.save(weights))
        (base / "config.json").write_bytes(as_bytes(LLAMA | SMALL | {"num_attention_heads": 4}))
        self.base = HuggingFaceSource(base)
        self.weight = weights[f"{LAYER}.q_proj.weight"].astype(np.float32)
        random = np.random.default_rng(0)
        self.down = random.standard_normal((RANK, 32)).astype(np.float32)
        self.up = random.standard_normal((32, RANK)).astype(np.float32)
        name = f"base_model.model.{LAYER}.q_proj"
        tensors = {f"{name}.lora_A.weight": self.down, f"{name}.lora_B.weight": self.up}
        self.peft = safetensors.numpy.save(tensors)
        rows = random.standard_normal((2, 32)).astype(np.float32)
        place = "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"
        self.with_rows = safetensors.numpy.save(tensors | {place: rows})
        self.mlx = safetensors.numpy.save(
            {
                f"{LAYER}.q_proj.lora_a": self.down.T.copy(),
                f"{LAYER}.q_proj.lora_b": self.up.T.copy(),
            }
        )

    def damage(self, random):
        config, file, weights = PEFT, "adapter/adapter_model.safetensors", self.peft
        if random.random() < 0.3:
            config, file, weights = MLX, "adapter/adapters.safetensors", self.mlx
        if random.random() < 0.4:
            return {
                "adapter/adapter_config.json": as_bytes(config),
                file: damage_safetensors(weights, random),
            }
        config = json.loads(json.dumps(config))
        if random.random() < 0.5:
            key = random.choice([*config, *FURTHER])
            config[key] = random.choice([*VALUES, junk(random)])
            if random.random() < 0.1:
                config["alpha_pattern"] = {random.choice(PATTERNS): random.choice(VALUES)}
            if random.random() < 0.1:
                rows = [[0, 1], [3, 3], [-1, 0], [40, 9999], {"embed_tokens": [1, 2]}, {"": [0]}]
                config["trainable_token_indices"] = random.choice(rows)
                weights = self.with_rows
            text = (
                as_bytes(config)
                if random.random() < 0.9
                else damage_bytes(as_bytes(config), random)
            )
        else:
            text = encode(damage_document(config, random, values=VALUES), random)
        return {"adapter/adapter_config.json": text, file: weights}

    def open(self, files):
        self.put(files)
        source = MergedSource(self.base, self.adapter)
        source.rows("model.embed_tokens.weight", 0, 4)
        name = f"{LAYER}.q_proj.weight"
        return source.rows(name, 0, source.tensors[name].rows), source.tensors[name].dtype

    def check(self, opened, files):
        if files.get("adapter/adapter_model.safetensors") != self.peft:
            return False
        config = json.loads(files["adapter/adapter_config.json"])
        changed = {key for key in {*config, *PEFT} if config.get(key) != PEFT.get(key)}
        if changed - {"lora_alpha", "use_rslora"}:
            return False
        rows, dtype = opened
        scale = config.get("lora_alpha", 8) / (RANK**0.5 if config.get("use_rslora") else RANK)
        with np.errstate(all="ignore"):
            expected = (self.weight + np.float32(scale) * self.up @ self.down).astype(np.float16)
        ours = rows.view(np.float16 if dtype == "F16" else np.float32).reshape(32, 32)
        if not np.allclose(ours, expected, rtol=2e-3, atol=2e-3, equal_nan=True):
            raise DifferenceError(f"a change of {changed} is merged otherwise")
        return True
