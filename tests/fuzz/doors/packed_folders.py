"""Folders that other quantizers wrote: their config's block, their tensors' types and shapes."""

import json
import tempfile
from functools import partial
from pathlib import Path

from support.packed_models import (
    awq_parts,
    bitsandbytes_parts,
    compressed_parts,
    float4_parts,
    float8_parts,
    gptq_parts,
    int8_parts,
    write_packed,
)
from support.tiny import LLAMA

from edgellm.converters.formats import open_format
from edgellm.converters.tensors.recipe import make_recipe
from edgellm.converters.tensors.settings import ConversionSettings
from edgellm.converters.tensors.weight_stream import float_rows
from fuzz.byte_damage import damage_bytes
from fuzz.door import Door
from fuzz.doors.folders import damage_safetensors
from fuzz.json_damage import damage_document, encode, junk

SMALL = LLAMA | {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 1,
    "vocab_size": 32,
}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"}
COMPRESSED = {"quant_method": "compressed-tensors", "format": "mixed-precision"}
FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}
BITSANDBYTES = {"quant_method": "bitsandbytes"}

FOLDERS = (
    (GPTQ, partial(gptq_parts, group=32, symmetric=False)),
    (GPTQ | {"desc_act": True}, partial(gptq_parts, group=32, shuffled=True)),
    (AWQ, partial(awq_parts, group=32)),
    (FP8, partial(float8_parts, part="weight_scale_inv", shape=lambda outputs, inputs: (1, 1))),
    (COMPRESSED, partial(compressed_parts, bits=4, group=32, symmetric=False)),
    (COMPRESSED, partial(compressed_parts, bits=4, group=32, symmetric=True, shuffled=True)),
    (COMPRESSED, partial(float4_parts, group=16, divisor=2.5)),
    (COMPRESSED, partial(float4_parts, group=32)),
    (COMPRESSED, partial(int8_parts, part="weight_scale")),
    (BITSANDBYTES, partial(int8_parts, part="SCB")),
    (BITSANDBYTES, partial(bitsandbytes_parts, kind="nf4", nested=True, storage="U8")),
)
KEYS = ("bits", "group_size", "format", "version", "weight_block_size", "config_groups")


class PackedFolders(Door):
    """Conversions from what GPTQ, AWQ and others wrote."""

    name = "packed folders"
    share = 30

    def __init__(self, folder):
        super().__init__(folder)
        self.examples = []
        with tempfile.TemporaryDirectory() as place:
            for number, (block, parts) in enumerate(FOLDERS):
                path = Path(place) / str(number)
                write_packed(path, block, parts, config=SMALL)
                self.examples.append(
                    (
                        json.loads((path / "config.json").read_bytes()),
                        (path / "model.safetensors").read_bytes(),
                    )
                )

    def damage(self, random):
        config, data = random.choice(self.examples)
        config = json.loads(json.dumps(config))
        match random.randrange(4):
            case 0:
                block = config["quantization_config"]
                block[random.choice([*block, *KEYS])] = junk(random)
                content = encode(config, random)
            case 1:
                content = encode(damage_document(config, random), random)
            case _:
                content = json.dumps(config).encode()
                damaged = damage_safetensors if random.random() < 0.5 else retyped
                data = damaged(data, random)
        if random.random() < 0.1:
            data = damage_bytes(data, random)
        return {"config.json": content, "model.safetensors": data}

    def open(self, files):
        self.put(files)
        source = open_format(self.folder)
        recipe = make_recipe(source, ConversionSettings())
        for matrix in recipe.matrices.values():
            float_rows(source, matrix, 0, matrix.shape[0])
        return recipe


def retyped(data, random):
    """The file with a tensor's type, shape or place changed so that the header stays whole."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    names = [name for name in header if "_proj" in name]
    for _ in range(random.choice((1, 1, 2))):
        name, other = random.choice(names), random.choice(names)
        tensor = header[name]
        match random.randrange(3):
            case 0:
                header[name], header[other] = header[other], tensor
            case 1:
                tensor["shape"] = random.choice((tensor["shape"][::-1], [*tensor["shape"], 1]))
            case _:
                alike = (("I32", "F32", "U32"), ("F16", "BF16", "I16"), ("U8", "I8", "F8_E4M3"))
                kinds = next((kinds for kinds in alike if tensor["dtype"] in kinds), ("I64", "F64"))
                tensor["dtype"] = random.choice(kinds)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]
