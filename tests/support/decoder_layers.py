"""One decoder layer: its tensors, its input, and the distance of two outputs."""

import mlx.core as mx
import numpy as np

from edgellm.checkpoint.tensor_order import STACKS


def tensors_of(config, quantizations, dtype=mx.float16, seed=0):
    """A layer's tensors by name; members of a stack that are stored alike stacked as well."""
    key = mx.random.key(seed)
    tensors = {}
    for name, shape in config.tensor_shapes().items():
        key, part = mx.random.split(key)
        numbers = mx.random.normal(shape, key=part) * (
            shape[-1] ** -0.5 if len(shape) == 2 else 0.2
        )
        path, _, kind = name.rpartition(".")
        if len(shape) == 1:
            tensors[name] = (numbers + (1 if "norm" in name else 0)).astype(dtype)
        elif quantizations(path) is None:
            tensors[name] = numbers.astype(dtype)
        else:
            how = quantizations(path)
            parts = mx.quantize(
                numbers.astype(dtype), group_size=how.group_size, bits=how.bits, mode=how.mode
            )
            for part_name, array in zip((kind, "scales", "biases"), parts, strict=False):
                tensors[f"{path}.{part_name}"] = array
    for stack, members in STACKS.items():
        for kind in ("weight", "scales", "biases", "bias"):
            found = [
                tensors[f"{member}.{kind}"] for member in members if f"{member}.{kind}" in tensors
            ]
            if (
                len(found) == len(members) > 1
                and len({(array.dtype, array.shape[1:]) for array in found}) == 1
            ):
                tensors[f"{stack}.{kind}"] = mx.concatenate(found)
    mx.eval(tensors)
    return tensors


def hidden_of(config, length, seed=0):
    hidden = mx.random.normal((1, length, config.hidden_size), key=mx.random.key(length + seed))
    mx.eval(hidden)
    return hidden


def distance(found, expected):
    found, expected = np.array(found, np.float64), np.array(expected, np.float64)
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
