"""Model folders: a safetensors file alone, an index with its shards, a config with its model."""

import json
import warnings

import numpy as np
import safetensors
import safetensors.numpy
from support.tiny import CONFIGS, LLAMA, random_tensors

from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.checkpoint.safetensors_file import read_header
from edgellm.converters.huggingface.source import HuggingFaceSource
from edgellm.converters.tensors.recipe import make_recipe
from edgellm.converters.tensors.settings import ConversionSettings
from edgellm.converters.tensors.spelled_source import SpelledSource
from edgellm.memory_plan.budget_planner import make_plan
from edgellm.memory_plan.memory_estimate import estimate_memory
from fuzz.byte_damage import BOUNDARIES, damage_bytes
from fuzz.door import DifferenceError, Door, as_bytes, by_the_library
from fuzz.json_damage import NUMBERS, TEXTS, damage_document, damage_json, encode, junk

SMALL = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "vocab_size": 32}
DTYPES = ["F32", "F16", "BF16", "I8", "U8", "I64", "U32", "F64", "BOOL", "F8_E4M3", "I4", "C64", ""]
INDEX = "model.safetensors.index.json"


def small_model(config=LLAMA):
    """The tensors of a model that fits into 50 KB."""
    return {
        name: values.astype(np.float16) for name, values in random_tensors(config | SMALL).items()
    }


def damage_safetensors(data, random):
    """A safetensors file whose header lies: in its length, its JSON, a type, shape or offset."""
    length = int.from_bytes(data[:8], "little")
    header, rest = data[8 : 8 + length], data[8 + length :]
    kind = random.randrange(8)
    if kind == 0:
        near = [length - 1, length + 1, length - 8, length + 8, len(data), len(data) - 8]
        length = random.choice([*BOUNDARIES, *near]) % (1 << 64)
        return length.to_bytes(8, "little") + header + rest
    if kind == 1:
        return damage_bytes(data, random, head=length)
    if kind == 2:
        header = damage_bytes(header, random)
    elif kind == 3:
        header = damage_json(header, random, values=[0, 1, 2, *DTYPES])
    else:
        header = _damage_entries(json.loads(header), random)
    if random.random() < 0.2:
        header += random.choice((b" ", b"\n", b"\0")) * random.randrange(20)
    if random.random() < 0.1:
        rest = random.choice((rest[:-1], rest + b"\0", rest * 2, b""))
    return len(header).to_bytes(8, "little") + header + rest


def _damage_entries(tensors, random):
    for _ in range(random.randint(1, 3)):
        names = [name for name in tensors if name != "__metadata__"]
        if not names:
            break
        name = random.choice(names)
        tensor = tensors[name]
        if not isinstance(tensor, dict) or not isinstance(tensor.get("shape"), list):
            continue
        shape, offsets = tensor["shape"], tensor["data_offsets"]
        match random.randrange(9):
            case 0:
                offsets[random.randrange(2)] = random.choice(NUMBERS)
            case 1:
                offsets[random.randrange(2)] += random.choice((-4, -2, -1, 1, 2, 4))
            case 2 if shape:
                shape[random.randrange(len(shape))] = random.choice(NUMBERS)
            case 3:
                shape.insert(0, random.choice((0, 1, 1, 1, 2)))
            case 4:
                tensor["dtype"] = random.choice(DTYPES)
            case 5:  # as many bytes, another type
                tensor["dtype"] = random.choice(("F16", "BF16", "I16", "U16"))
            case 6:
                tensors[random.choice(TEXTS)] = tensors.pop(name)
            case 7:
                tensors[name + "x"] = json.loads(json.dumps(tensor))
            case _:
                other = random.choice(names)
                tensors[name], tensors[other] = tensors[other], tensors[name]
    return encode(tensors, random)


class Safetensors(Door):
    name = "safetensors"
    share = 270
    compares = "safetensors"

    def __init__(self, folder):
        super().__init__(folder)
        some = {
            "model.norm.weight": np.arange(8, dtype=np.float16),
            "a": np.arange(6, dtype=np.float32).reshape(2, 3),
            "b": np.array(5, np.int64),
            "empty": np.zeros((0, 4), np.float16),
            "c": np.arange(5, dtype=np.uint8),
        }
        self.examples = [
            safetensors.numpy.save(some, {"format": "pt"}),
            safetensors.numpy.save({"x": np.arange(4, dtype=np.float32)}),
            safetensors.numpy.save({f"{n}": np.full(2, n, np.float16) for n in range(12)}),
        ]
        self.path = folder / "model.safetensors"

    def damage(self, random):
        return {self.path.name: damage_safetensors(random.choice(self.examples), random)}

    def open(self, files):
        self.put(files)
        return read_header(self.path)

    def check(self, opened, files):
        tensors, _ = opened
        data = files[self.path.name]
        with by_the_library():
            theirs = dict(safetensors.deserialize(data))
        ours = {
            name: (list(info.shape), info.dtype, data[info.offset : info.offset + info.nbytes])
            for name, info in tensors.items()
        }
        said = {
            name: (info["shape"], info["dtype"], bytes(info["data"]))
            for name, info in theirs.items()
        }
        if ours != said:
            raise DifferenceError(f"{ours} is {said} in the library")
        return True


class Index(Door):
    """An index, its shards, and what lies beside them."""

    name = "index"
    share = 60
    compares = "safetensors"

    def __init__(self, folder):
        super().__init__(folder)
        tensors = small_model()
        names = sorted(tensors)
        self.weight_map = {}
        for number in (1, 2):
            file = f"model-{number:05d}-of-00002.safetensors"
            part = {name: tensors[name] for name in names[number - 1 :: 2]}
            self.keep({file: safetensors.numpy.save(part)})
            self.weight_map |= dict.fromkeys(part, file)
        self.tensors = tensors
        self.keep({"config.json": as_bytes(LLAMA | SMALL), INDEX: self._index(self.weight_map)})
        self.files = sorted({*self.weight_map.values(), "config.json", INDEX, "gone.safetensors"})

    def _index(self, weight_map):
        return as_bytes({"metadata": {"total_size": 1}, "weight_map": weight_map})

    def damage(self, random):
        values = [*self.files, "../x.safetensors", "/etc/hostname", "a/b", "model-00003-of-00002"]
        if random.random() < 0.5:
            weight_map = dict(self.weight_map)
            for _ in range(random.randint(1, 3)):
                weight_map[random.choice(list(weight_map))] = random.choice([*values, junk(random)])
            return {INDEX: encode({"weight_map": weight_map}, random)}
        return {INDEX: damage_json(self._index(self.weight_map), random, values=values)}

    def open(self, files):
        self.put(files)
        return read_checkpoint(self.folder)

    def check(self, opened, files):
        for name, info in opened.folder.tensors.items():
            data = info.file.read_bytes()[info.offset : info.offset + info.nbytes]
            if data != self.tensors[name].tobytes():
                raise DifferenceError(f"{name} of {info.file}")
        return True


class Config(Door):
    """A config.json and generation_config.json, up to the plan and the recipe."""

    name = "config"
    share = 70
    compares = "the JSON itself"

    def __init__(self, folder):
        super().__init__(folder)
        self.configs = [config | SMALL for config in CONFIGS.values()]
        self.configs += [self.configs[0] | dialect for dialect in DIALECTS]
        self.configs.append({"model_type": "mistral3", "text_config": self.configs[0]})
        self.keep({"model.safetensors": safetensors.numpy.save(small_model())})
        self.keep({"config.json": as_bytes(self.configs[0])})
        self.values = [
            *NUMBERS,
            *({"bits": bits, "group_size": size} for bits in (2, 4, 7, 8) for size in (32, 64, 0)),
            {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0},
            {"type": "linear", "factor": -1}, {"rope_type": "yarn", "factor": 2}, {"type": 5},
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
            {"rope_type": "yarn", "original_max_position_embeddings": 1, "beta_fast": 1e-9},
            {"rope_type": "dynamic", "factor": 2.0},
        ]  # fmt: skip

    def damage(self, random):
        if random.random() < 0.1:
            whole = {"eos_token_id": [1, 2], "temperature": 0.5, "top_p": 0.9}
            document = damage_document(whole, random, values=self.values)
            return {"generation_config.json": encode(document, random)}
        config = json.loads(json.dumps(random.choice(self.configs)))
        if random.random() < 0.5:
            for _ in range(random.choice((1, 1, 2, 3))):
                config[random.choice([*config, *OPTIONAL])] = random.choice(
                    [*self.values, junk(random)]
                )
            return {"config.json": encode(config, random)}
        document = damage_document(config, random, values=self.values)
        return {"config.json": encode(document, random)}

    def open(self, files):
        self.put(files)
        make_recipe(SpelledSource(HuggingFaceSource(self.folder)), ConversionSettings(bits=4))
        with warnings.catch_warnings():  # of ids that are no tokens
            warnings.simplefilter("ignore", UserWarning)
            checkpoint = read_checkpoint(self.folder)
        memory = estimate_memory(
            checkpoint, item_bytes=4, window=None, fused_attention=True, lazy=True, layer_kv_bytes=4
        )
        make_plan(memory, budget=1 << 30, ring_buffers=2)
        return checkpoint.config

    def check(self, opened, files):
        said = json.loads(files.get("config.json", b"null") or b"null")
        if said and said["model_type"] == "mistral3":
            said = said["text_config"]
        for key in ("hidden_size", "num_hidden_layers", "vocab_size", "num_attention_heads"):
            if said and getattr(opened, key) != said[key]:
                raise DifferenceError(
                    f"{key} is {getattr(opened, key)}, and {said[key]} in the file"
                )
        return bool(said)


DIALECTS = [
    {"model_type": "phi3"},
    {"model_type": "phi3", "partial_rotary_factor": 0.5},
    {"model_type": "helium"},
    {"model_type": "granite", "residual_multiplier": 0.22, "logits_scaling": 8.0},
    {
        "model_type": "granitemoehybrid",
        "layer_types": ["attention"],
        "shared_intermediate_size": 32,
    },
    {"model_type": "seed_oss", "attention_out_bias": False},
    {"model_type": "ernie4_5", "use_bias": False},
    {"model_type": "smollm3", "no_rope_layers": [1, 0], "no_rope_layer_interval": 2},
    {"model_type": "olmo3", "sliding_window": 4, "rope_parameters": {"sliding_attention": {}}},
    {"model_type": "exaone4", "sliding_window": 4, "sliding_window_pattern": "LLLG"},
    {"model_type": "hunyuan_v1_dense", "rope_scaling": {"type": "dynamic", "alpha": 1000.0}},
]
OPTIONAL = [
    "attention_factor", "beta_fast", "mscale", "truncate", "original_max_position_embeddings",
    "residual_multiplier", "attention_multiplier", "embedding_multiplier", "use_bias",
    "text_config", "no_rope_layers", "no_rope_layer_interval", "sliding_window_pattern",
    "attention_out_bias", "position_embedding_type", "layers_block_type", "clip_qkv",
    "quantization", "quantization_config", "rope_scaling", "rope_parameters", "head_dim",
    "sliding_window", "num_experts", "layer_types", "eos_token_id", "bos_token_id", "dtype",
    "torch_dtype", "attention_bias", "mlp_bias", "use_sliding_window", "max_window_layers",
    "partial_rotary_factor", "tie_word_embeddings", "num_key_value_heads", "rope_theta",
    "attention_multiplier", "logits_scaling", "pretraining_tp", "architectures", "model_type",
]  # fmt: skip
