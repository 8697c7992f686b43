"""GGUF files: their bytes, and their structure (keys, types, values, shapes, places)."""

import zlib
from pathlib import Path

import gguf
import mlx.core as mx
import numpy as np
from support.gguf_files import add_byte_level, write_gguf
from support.tiny import CONFIGS, write_model
from support.tiny_families import CONFIGS as OTHERS

from edgellm.converters import export
from edgellm.converters.gguf.architectures.names import huggingface_name, is_permuted, norm_offset
from edgellm.converters.gguf.header import open_gguf
from edgellm.converters.gguf.source import GgufSource
from edgellm.converters.tensors.bit_packing import unpack
from edgellm.converters.tensors.floats import floats
from fuzz.byte_damage import damage_bytes
from fuzz.door import DifferenceError, Door, by_the_library, read_beginnings
from fuzz.gguf_structure import copied, damage, put_together, take_apart

CONFIG = CONFIGS["llama-2"] | {
    "num_hidden_layers": 1,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
QWEN = CONFIGS["qwen3"] | {key: CONFIG[key] for key in ("num_hidden_layers", "hidden_size")}
QWEN |= {"intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1}
EXAMPLES = (
    (CONFIG, "Q4_0", None, None),
    (CONFIG, "F16", add_byte_level, "whole"),
    (CONFIG, "Q8_0", add_byte_level, None),
    (QWEN, "F32", add_byte_level, None),
    (CONFIG, "MXFP4", None, None),
    (CONFIG, "IQ4_NL", None, None),
)
SMALL = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2}
SMALL |= {"num_key_value_heads": 1, "num_hidden_layers": 2}
FAMILIES = {
    "gemma3": OTHERS["gemma3"] | SMALL | {"query_pre_attn_scalar": 24},
    "olmo3": OTHERS["olmo3"] | SMALL | {"layer_types": ["sliding_attention", "full_attention"]},
}
COMPARED = 8
"""Of accepted files, the one in so many that the library reads too: it takes ten times as long."""


class _Gguf(Door):
    compares = "gguf"

    def __init__(self, folder):
        super().__init__(folder)
        self.path = folder / "case.gguf"
        self.examples = []
        self.wholes = []
        for config, kind, vocabulary, more in EXAMPLES:
            write_gguf(
                self.path,
                config,
                kinds=lambda name, kind=kind: kind,
                vocabulary=vocabulary,
                metadata=_more if more else None,
            )
            self._take()
        for name, config in FAMILIES.items():
            self.path.unlink()
            export(write_model(folder / name, config), self.path)
            self._take()

    def _take(self):
        self.examples.append(self.path.read_bytes())
        self.wholes.append(take_apart(self.path))

    def open(self, files):
        self.put(files)
        source = GgufSource(self.path)
        read_beginnings(source)
        return source

    def check(self, opened, files):
        data = files[self.path.name]
        if zlib.crc32(data) % COMPARED:
            return False
        return _compare(self.path, opened)


class GgufBytes(_Gguf):
    name = "gguf-bytes"
    share = 50

    def damage(self, random):
        example, other = random.choice(self.examples), random.choice(self.examples)
        data = damage_bytes(example, random, head=9000, other=other)
        return {self.path.name: data}


class GgufStructure(_Gguf):
    name = "gguf-structure"
    share = 50

    def damage(self, random):
        model = damage(copied(random.choice(self.wholes)), random)
        return {self.path.name: put_together(model)}


def _more(writer):
    """Keys that most files do not have."""
    writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
    writer.add_rope_scaling_factor(2.0)
    writer.add_chat_template("{{ messages }}")
    writer.add_eot_token_id(1)
    writer.add_pad_token_id(1)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(True)
    writer.add_vocab_size(320)


def _compare(path: Path, source):
    """Raise DifferenceError where the library finds other tensors, or other numbers in them."""
    with by_the_library():
        theirs = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    ours = open_gguf(path).tensors
    if ours.keys() != theirs.keys():
        raise DifferenceError(f"the tensors {sorted(ours)} are {sorted(theirs)} in the library")
    data = path.read_bytes()
    for name, tensor in ours.items():
        other = theirs[name]
        place = (tensor.kind, tensor.offset, tensor.nbytes)
        said = (other.tensor_type.name, other.data_offset, other.n_bytes)
        if place != said:
            raise DifferenceError(f"{name} is {place}, and {said} in the library")
        if other.data.tobytes() != data[tensor.offset : tensor.offset + tensor.nbytes]:
            raise DifferenceError(f"{name} has other bytes in the library")
    architecture = open_gguf(path).metadata.text("general.architecture")
    for name, other in theirs.items():
        ours = huggingface_name(name, architecture)
        if ours is None or is_permuted(architecture, ours) or norm_offset(architecture, ours):
            continue
        _compare_values(ours, other, source)
    return True


def _compare_values(name, other, source):
    """Compare the numbers of one tensor, quantized or not, where both have finite ones."""
    stem = name.removesuffix(".weight")
    shape = (-1, other.shape[0])
    with np.errstate(all="ignore"):
        theirs = gguf.quants.dequantize(other.data, other.tensor_type).reshape(shape)
        if f"{stem}.scales" in source.tensors and f"{stem}.biases" not in source.tensors:
            packed, scales = (_rows(source, f"{stem}.{part}") for part in ("weight", "scales"))
            words = packed.view(np.uint32).reshape(len(theirs), -1)
            form = {"group_size": 32, "bits": 4, "mode": "mxfp4"}
            narrow = mx.array(scales.reshape(len(theirs), -1))
            ours = np.array(mx.dequantize(mx.array(words), narrow, **form, dtype=mx.float32))
        elif f"{stem}.scales" in source.tensors:
            parts = [_rows(source, f"{stem}.{part}") for part in ("weight", "scales", "biases")]
            scales, biases = (
                part.view(np.float16).astype(np.float32).reshape(len(theirs), -1)
                for part in parts[1:]
            )
            bits = 8 * parts[0].size // theirs.size
            codes = unpack(parts[0].reshape(len(theirs), -1), bits).reshape(*scales.shape, -1)
            ours = codes * scales[..., None] + biases[..., None]
        else:
            dtype = source.tensors[name].dtype
            ours = floats(_rows(source, name), dtype)
            if dtype == "F16":
                theirs = theirs.astype(np.float16)
        ours, theirs = ours.reshape(-1), theirs.reshape(-1)
        finite = np.isfinite(ours) & np.isfinite(theirs)
        if not np.array_equal(ours[finite], theirs[finite]):
            raise DifferenceError(f"{name} has other numbers in the library")


def _rows(source, name):
    return source.rows(name, 0, source.tensors[name].rows)
