"""Damaged model folders by the thousand: headers, configs, indexes.

Each is refused in our own error, in bounded time and memory.

python tests/fuzz_folders.py --count 100000
"""

import json
import random
import tempfile
from pathlib import Path

from fuzz_tokenizers import MEMORY, SECONDS, damage_bytes, damage_json
from support.fuzzing import measured, show
from support.tiny import CONFIGS, LLAMA, write_model

from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.converters.huggingface.source import HuggingFaceSource
from edgellm.converters.tensors.recipe import ConversionSettings, make_recipe
from edgellm.errors import EdgeLLMError
from edgellm.plan.budget_planner import make_plan
from edgellm.plan.memory_estimate import estimate_memory

NUMBERS = [-1, 0, 1, 2, 3, 7, 2**31, 2**32, 2**63, 2**64, 10**40, 1e308, float("nan"), float("inf")]
NUMBERS += [True, "8", None, [8], {"a": 1}]


def damage_header(data, rng):
    """A safetensors file whose header lies: in length, JSON, a type, a shape or an offset."""
    length = int.from_bytes(data[:8], "little")
    header, rest = data[8 : 8 + length], data[8 + length :]
    match rng.randrange(5):
        case 0:
            length = rng.choice(
                [0, 1, 7, length - 1, length + 1, len(data), 2**31, 2**63, 2**64 - 1]
            )
            return length.to_bytes(8, "little") + header + rest
        case 1:
            header = damage_bytes(header, rng)
        case 2:
            header = damage_json(json.loads(header), rng)
        case 3:
            tensors = json.loads(header)
            for _ in range(rng.randint(1, 3)):
                tensor = tensors.get(rng.choice(list(tensors)))
                if isinstance(tensor, dict) and "shape" in tensor:
                    offsets, shape = tensor["data_offsets"], tensor["shape"]
                    near = [
                        value + step for value in offsets if type(value) is int for step in (-1, 1)
                    ]
                    match rng.randrange(3):
                        case 0:
                            offsets[rng.randrange(2)] = rng.choice([*NUMBERS, *near])
                        case 1 if shape:
                            shape[rng.randrange(len(shape))] = rng.choice(NUMBERS)
                        case _:
                            tensor["dtype"] = rng.choice(
                                ["F16", "F64", "I4", "", None, 7, "F8_E4M3", "BOOL"]
                            )
            header = json.dumps(tensors).encode()
        case 4:
            return damage_bytes(data, rng)
    return len(header).to_bytes(8, "little") + header + rest


def damage_config(config, rng):
    """Numbers that no model has, and JSON that is none."""
    config = dict(config)
    for _ in range(rng.randint(1, 3)):
        key = rng.choice(
            [
                *config,
                "quantization",
                "rope_scaling",
                "head_dim",
                "sliding_window",
                "num_experts",
                "layer_types",
            ]
        )
        config[key] = rng.choice(
            [*NUMBERS, {"bits": rng.choice(NUMBERS), "group_size": rng.choice(NUMBERS)}]
        )
    text = json.dumps(config)
    if rng.random() < 0.3:
        return damage_json(config, rng)
    if rng.random() < 0.1:
        return b"[" * rng.randrange(200_000)
    return text.encode()


def run(rng, folder, whole):
    """One case; returns what came of it."""
    kind = rng.choice(["header", "header", "config", "config", "index"])
    names = {
        "header": "model.safetensors",
        "config": "config.json",
        "index": "model.safetensors.index.json",
    }
    for path in folder.iterdir():
        path.unlink()
    for name, data in whole.items():
        (folder / name).write_bytes(data)
    file = folder / names[kind]
    if kind == "header":
        file.write_bytes(damage_header(whole[file.name], rng))
    elif kind == "config":
        file.write_bytes(damage_config(rng.choice([LLAMA, *CONFIGS.values()]), rng))
    else:
        index = {
            "metadata": {"total_size": 1},
            "weight_map": {"model.norm.weight": "model.safetensors"},
        }
        damaged = damage_json(index, rng)
        if rng.random() < 0.3:
            name = rng.choice(
                [
                    "../x.safetensors",
                    "/etc/passwd",
                    "a/b",
                    "",
                    "\x00",
                    "model-00001-of-00002.safetensors",
                ]
            )
            damaged = json.dumps({"weight_map": {"model.norm.weight": name}}).encode()
        file.write_bytes(damaged)
    try:
        checkpoint = read_checkpoint(folder)
        make_plan(
            estimate_memory(checkpoint, item_bytes=4, window=None, fused_attention=True),
            budget=1 << 30,
            ring_buffers=2,
        )
        make_recipe(HuggingFaceSource(folder), ConversionSettings(bits=4))
    except EdgeLLMError as error:
        return f"{kind}: {type(error).__name__}"
    return f"{kind}: whole"


def fuzz(count, seed):
    """Run ``count`` cases, count what came of them; a broken limit is an AssertionError."""
    with tempfile.TemporaryDirectory(prefix="edgellm-fuzz-") as made:
        model = write_model(Path(made) / "model", LLAMA | {"num_hidden_layers": 1}, tokenizer=False)
        whole = {path.name: path.read_bytes() for path in model.iterdir()}
        folder = Path(made) / "case"
        folder.mkdir()
        run(random.Random(0), folder, whole)  # what a first call imports is not the input's doing
        numbers = range(seed, seed + count)
        return measured(
            lambda rng: run(rng, folder, whole), numbers, seconds=SECONDS, memory=MEMORY
        )


if __name__ == "__main__":
    show(fuzz, __doc__, count=100_000)
