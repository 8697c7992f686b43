"""Folders as other quantizers write them, packed field by field from the published layouts."""

import json

import mlx.core as mx
import numpy as np
from support.gguf_files import arrays
from support.tiny import CONFIGS, random_tensors, write_tokenizer

from edgellm import load
from edgellm.checkpoint.safetensors_file import TensorData, write_tensors
from edgellm.converters import convert

WIDE = CONFIGS["llama-2"] | {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 1,
}
"""Rows of two groups of 128."""

CODES = {
    "float16": "F16",
    "float32": "F32",
    "int32": "I32",
    "int64": "I64",
    "uint8": "U8",
    "int8": "I8",
}
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def words_of(codes, bits, axis):
    """Pack whole numbers along an axis, from the lowest bit of each run of words on."""
    codes = np.moveaxis(np.asarray(codes, np.uint8), axis, -1)
    single = (codes[..., None] >> np.arange(bits) & 1).reshape(*codes.shape[:-1], -1)
    packed = np.packbits(single.astype(np.uint8), axis=-1, bitorder="little")
    return np.moveaxis(np.ascontiguousarray(packed).view("<i4"), -1, axis)


def awq_words(codes):
    """Pack eight outputs a word in AWQ's order."""
    groups = np.asarray(codes, np.int64).reshape(len(codes), -1, 8)
    words = np.zeros(groups.shape[:2], np.int64)
    for place, output in enumerate(AWQ_ORDER):
        words |= groups[..., output] << 4 * place
    return words.astype(np.uint32).view(np.int32)


def numbers(random, outputs, inputs, *, bits, group, symmetric):
    """Random codes (I, O), zeros (G, O), and scales (G, O) of float16."""
    groups = -(-inputs // group)
    codes = random.randint(0, 1 << bits, (inputs, outputs))
    zeros = np.full((groups, outputs), 1 << bits - 1)
    if not symmetric:
        zeros = random.randint(0, 1 << bits, (groups, outputs))
    scales = random.uniform(0.5, 1.5, (groups, outputs)) * 2.4 / np.sqrt(inputs) / (1 << bits)
    return codes, zeros, scales.astype(np.float16)


def gptq_parts(
    random, outputs, inputs, *, bits=4, group=128, symmetric=True, version="gptq", shuffled=False
):
    """Return GPTQ's tensors of a random matrix, and the matrix."""
    if group == -1:
        group = inputs
    codes, zeros, scales = numbers(
        random, outputs, inputs, bits=bits, group=group, symmetric=symmetric
    )
    order = np.arange(inputs) // group
    if shuffled:
        order = random.permutation(order)
    packed = words_of(zeros, bits, 1)
    if version == "gptq":
        packed = (packed.view(np.uint32) - np.uint32(sum(1 << i for i in range(0, 32, bits)))).view(
            np.int32
        )
    matrix = (codes - zeros[order]).astype(np.float32) * scales[order].astype(np.float32)
    return {
        "qweight": words_of(codes, bits, 0),
        "qzeros": packed,
        "scales": scales,
        "g_idx": order.astype(np.int32),
    }, matrix.T


def awq_parts(random, outputs, inputs, *, group=128):
    """Return AWQ's tensors of a random matrix, and the matrix."""
    if group == -1:
        group = inputs
    codes, zeros, scales = numbers(random, outputs, inputs, bits=4, group=group, symmetric=False)
    order = np.arange(inputs) // group
    matrix = (codes - zeros[order]).astype(np.float32) * scales[order].astype(np.float32)
    return {"qweight": awq_words(codes), "qzeros": awq_words(zeros), "scales": scales}, matrix.T


def bitsandbytes_parts(random, outputs, inputs, *, kind, nested, storage):
    """Return bitsandbytes' tensors of a random matrix in four bits, and the matrix."""
    table = np.sort(random.uniform(-1, 1, 16)).astype(np.float32)
    codes = random.randint(0, 16, outputs * inputs).astype(np.uint8)
    blocks = outputs * inputs // 64
    state = {"quant_type": kind, "blocksize": 64, "dtype": "float16", "shape": [outputs, inputs]}
    packed = (codes[::2] << 4 | codes[1::2]).reshape(-1, 1)
    made = {"weight": packed, "weight.quant_map": table}
    if storage == "BF16":
        made["weight"] = ("BF16", (len(packed) // 2, 1), packed.tobytes())
    if nested:
        sizes = random.randint(0, 256, blocks).astype(np.uint8)
        nested_table = np.sort(random.uniform(-1, 1, 256)).astype(np.float32)
        nested_sizes = random.uniform(0, 0.05, -(-blocks // 256)).astype(np.float32)
        state |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.1}
        made |= {
            "weight.absmax": sizes,
            "weight.nested_absmax": nested_sizes,
            "weight.nested_quant_map": nested_table,
        }
        sizes = nested_table[sizes] * np.repeat(nested_sizes, 256)[:blocks] + np.float32(0.1)
    else:
        sizes = random.uniform(0.05, 0.2, blocks).astype(np.float32)
        made["weight.absmax"] = sizes
    text = json.dumps(state).encode()
    made[f"weight.quant_state.bitsandbytes__{kind}"] = np.frombuffer(text, np.uint8)
    return made, (table[codes] * np.repeat(sizes, 64)).reshape(outputs, inputs)


def float8_parts(random, outputs, inputs, *, part, shape):
    """Random bytes without the two that are no numbers, their scales, and the matrix."""
    codes = random.randint(0, 254, (outputs, inputs)).astype(np.uint8)
    codes[codes >= 127] += 1
    grid = shape(outputs, inputs)
    scales = random.uniform(1, 2, grid).astype(np.float32) / 2**12
    wide = scales
    if len(grid) == 2:
        rows, columns = -(-outputs // grid[0]), -(-inputs // grid[1])
        if part == "weight_scale_inv":
            rows, columns = 128, 128
        wide = np.repeat(np.repeat(scales, rows, 0), columns, 1)[:outputs, :inputs]
    values = np.array(mx.from_fp8(mx.array(codes), dtype=mx.float32)) * wide
    return {"weight": ("F8_E4M3", codes.shape, codes.tobytes()), part: scales}, values


def int8_parts(random, outputs, inputs, *, part):
    """Random int8 with a scale a row, or with the largest value a row; and the matrix."""
    codes = random.randint(-127, 128, (outputs, inputs)).astype(np.int8)
    scales = random.uniform(1, 2, (outputs, 1)).astype(np.float32) / 2**10
    if part == "SCB":
        scales = (scales * 127).reshape(-1)
        # bitsandbytes: row by row, times the largest value, over 127
        values = codes * (scales / np.float32(127))[:, None]
        return {"weight": codes, part: scales, "weight_format": np.zeros((), np.uint8)}, values
    return {"weight": codes, part: scales}, codes * scales


def compressed_parts(random, outputs, inputs, *, bits, group, symmetric, shuffled=False):
    """A random matrix in the layout of compressed-tensors, and its values."""
    half = 1 << bits - 1
    groups = inputs // group
    codes = random.randint(-half, half, (outputs, inputs))
    scales = (random.uniform(1, 2, (outputs, groups)) / 2**bits / 16).astype(np.float16)
    zeros = np.zeros((outputs, groups), int)
    if not symmetric:
        zeros = random.randint(-half, half, (outputs, groups))
    order = np.arange(inputs) // group
    if shuffled:
        order = random.permutation(order)
    made = {
        "weight_packed": words_of(codes + half, bits, 1),
        "weight_scale": scales,
        "weight_shape": np.array([outputs, inputs], np.int64),
    }
    if not symmetric:
        padded = np.pad(zeros + half, ((0, -outputs % 32), (0, 0)))
        made["weight_zero_point"] = words_of(padded, bits, 0)[: -(-outputs * bits // 32)]
    if shuffled:
        made["weight_g_idx"] = order.astype(np.int32)
    return made, (codes - zeros[:, order]).astype(np.float32) * scales.astype(np.float32)[:, order]


def float4_parts(random, outputs, inputs, *, group, divisor=None):
    """Random four-bit floats with a scale a group, as compressed-tensors packs them; the values."""
    table = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
    codes = random.randint(0, 16, (outputs, inputs)).astype(np.uint8)
    values = np.concatenate([table, -table])[codes]
    made = {"weight_packed": codes[:, 0::2] | codes[:, 1::2] << 4}
    shape = (outputs, inputs // group)
    if group == 32:
        exponents = random.randint(118, 122, shape).astype(np.uint8)
        made["weight_scale"] = exponents
        scales = np.exp2(exponents.astype(np.float32) - 127)
    else:
        levels = random.randint(8, 40, shape).astype(np.uint8)
        made["weight_scale"] = ("F8_E4M3", shape, levels.tobytes())
        scales = np.array(mx.from_fp8(mx.array(levels), dtype=mx.float32))
    if divisor is not None:
        made["weight_global_scale"] = np.full(1, divisor, np.float32)
        made["input_global_scale"] = np.full(1, 100, np.float32)
        scales = scales / np.float32(divisor)
    return made, values * np.repeat(scales, group, axis=1)


def write_packed(path, block, parts, *, config=WIDE, extra=None, dtype=np.float16):
    """Write a folder whose layers' matrices are ``parts(random, outputs, inputs)``.

    Returns the values as ``packed_tensors`` does.
    """
    stored, values = packed_tensors(parts, config=config, dtype=dtype)
    path.mkdir(parents=True)
    stored |= extra or {}
    write_folder(path, config | {"quantization_config": block, "dtype": "float16"}, stored)
    return values


def packed_tensors(parts, *, config=WIDE, dtype=np.float16):
    """Return a folder's tensors, and every tensor's values in float32 by Hugging Face's name."""
    random = np.random.RandomState(1)
    stored, values = {}, {}
    for name, tensor in random_tensors(config).items():
        if "_proj.weight" in name:
            made, matrix = parts(random, *tensor.shape)
            prefix = name.removesuffix(".weight")
            stored |= {f"{prefix}.{part}": array for part, array in made.items()}
            values[name] = matrix
        else:
            stored[name] = tensor.astype(dtype)
            values[name] = stored[name].astype(np.float32)
    return stored, values


def write_folder(path, config, stored):
    """Write a config, tensors (arrays, or types and shapes with bytes) and a tokenizer."""
    data = []
    for name, array in stored.items():
        if isinstance(array, tuple):
            data.append(TensorData(name, *array))
        else:
            # a view of bytes keeps axes of length one and none
            content = np.ascontiguousarray(array).tobytes()
            data.append(TensorData(name, CODES[array.dtype.name], array.shape, content))
    write_tensors(path / "model.safetensors", data, metadata={"format": "pt"})
    (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    write_tokenizer(path)


def converted(tmp_path, block, parts, **settings):
    """A packed folder's values, those of the folder made of it, the report, and what was said."""
    values = write_packed(tmp_path / "packed", block, parts)
    said = []
    report = convert(
        tmp_path / "packed",
        tmp_path / "made",
        progress=lambda step: said.append(step.message),
        **settings,
    )
    load(tmp_path / "made").close()
    return values, arrays(tmp_path / "made"), report, [text for text in said if text]
