"""The order of one layer's tensors, in a file and in memory.

Matrices that read the same input stand next to each other (weights with weights, scales with
scales), so that their bytes *are* the stacked matrix and one product serves them all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from edgellm.checkpoint.quantization import QUANTIZED_PARTS

ALIGNMENT = 16
"""Bytes; every tensor's offset in a buffer is a multiple of it."""

STACKS: Mapping[str, tuple[str, ...]] = {
    "self_attn.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attn.o_proj": ("self_attn.o_proj",),
    "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.down_proj": ("mlp.down_proj",),
}
"""The four products of a layer, each with the checkpoint's own matrices that make it up."""

LINEAR_PARTS = (*QUANTIZED_PARTS, "bias")
"""The tensors that a product may have, by the last part of their names."""


def tensor_order(sizes: Mapping[str, int]) -> list[str]:
    """Return the names of one layer's tensors in the order in which they are stored.

    Runs of tensors that belong together stay together; runs whose size is not a multiple of 16 come
    last, so that those before them are aligned without holes (which safetensors forbids).

    Args:
        sizes: bytes of each tensor, by its name inside the layer (``self_attn.q_proj.weight``).
    """
    runs = stack_runs(sizes)
    in_stacks = {name for run in runs for name in run}
    runs += [[name] for name in sorted(sizes) if name not in in_stacks]
    # a stable sort: false comes before true, else the order stays
    runs.sort(key=lambda run: any(sizes[name] % ALIGNMENT for name in run))
    return [name for run in runs for name in run]


def stack_runs(names: Iterable[str]) -> list[list[str]]:
    """Return each stack's tensors, part by part: ``[[q.weight, k.weight, v.weight], ...]``."""
    present = set(names)
    runs = []
    for members in STACKS.values():
        for part in LINEAR_PARTS:
            tensors = [f"{member}.{part}" for member in members]
            run = [tensor for tensor in tensors if tensor in present]
            if run:
                runs.append(run)
    return runs
