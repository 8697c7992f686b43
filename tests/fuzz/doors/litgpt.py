"""LitGPT's folders: a config in YAML or JSON, the weight file, and its LoRA."""

import json

import numpy as np
import yaml
from support.litgpt_files import litgpt_tensors, model_config
from support.tiny import CONFIGS, random_tensors
from support.torch_files import pickled_tensor, state

from edgellm.converters.formats import open_format
from edgellm.converters.lora.merged_source import MergedSource
from fuzz.byte_damage import damage_bytes
from fuzz.door import DifferenceError, Door, read_beginnings
from fuzz.doors.folders import SMALL
from fuzz.json_damage import damage_json
from fuzz.pickle_damage import as_zip, damage_pickle, damage_views

CONFIG = CONFIGS["llama-2"] | SMALL | {"num_attention_heads": 4}
WEIGHTS, YAML, JSON = "lit_model.pth", "model_config.yaml", "lit_config.json"
LORA, TOLD = "lit_model.pth.lora", "hyperparameters.yaml"
FUSED = "transformer.h.0.attn.qkv"
SETTINGS = "lora_r: 2\nlora_alpha: 16\nlora_query: true\nlora_key: false\nlora_value: true\n"
QUERIES = "model.layers.0.self_attn.q_proj.weight"


def _pickled(arrays):
    return state(
        {
            name: pickled_tensor(str(index), array)
            for index, (name, array) in enumerate(arrays.items())
        }
    )


class LitGPT(Door):
    name = "litgpt"
    share = 20
    compares = "the tensors that were fused"

    def __init__(self, folder):
        super().__init__(folder)
        self.tensors = random_tensors(CONFIG)
        self.arrays = litgpt_tensors(CONFIG, self.tensors)
        self.lora = {
            f"{FUSED}.lora_A": np.ones((4, 32), np.float32),
            f"{FUSED}.lora_B": np.ones((48, 2), np.float32),
        }
        self.config = model_config(CONFIG).replace("1.0e-05", "0.001")  # which JSON writes so, too
        self.keep(
            {
                WEIGHTS: as_zip(_pickled(self.arrays), self.arrays),
                YAML: self.config.encode(),
                LORA: as_zip(_pickled(self.lora), self.lora),
                TOLD: SETTINGS.encode(),
            }
        )

    def damage(self, random):
        match random.randrange(6):
            case 0:
                return {YAML: damage_bytes(self.config.encode(), random)}
            case 1 | 2:
                return {YAML: damage_json(json.dumps(yaml.safe_load(self.config)), random)}
            case 3:
                return {TOLD: damage_json(json.dumps(yaml.safe_load(SETTINGS)), random)}
            case 4:
                pickled = state(damage_views(self.lora, random))
                return {LORA: as_zip(pickled, self.lora)}
            case _:
                pickled = damage_pickle(_pickled(self.arrays), random)
                return {WEIGHTS: as_zip(pickled, self.arrays)}

    def open(self, files):
        self.put(files)
        source = open_format(self.folder)
        read_beginnings(source)
        if files.keys() & {LORA, TOLD}:
            source = MergedSource(source, self.folder)
            read_beginnings(source)
        return source

    def check(self, opened, files):
        if YAML not in files or opened.config["num_attention_heads"] != 4:
            return False
        found = opened.rows(QUERIES, 0, 32).view(np.float32).reshape(32, 32)
        if not np.array_equal(found, self.tensors[QUERIES].astype(np.float32)):
            raise DifferenceError("queries are other rows")
        return True
