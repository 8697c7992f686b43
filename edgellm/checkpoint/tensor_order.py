"""The order of one layer's tensors, in a file and in memory.

Matrices that read the same input stand next to each other (weights with weights, scales with
scales), so that their bytes *are* the stacked matrix and one product serves them all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

ALIGNMENT = 16
"""Bytes; what every tensor's place in a buffer is a multiple of."""

STACKS: Mapping[str, tuple[str, ...]] = {
    "self_attn.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attn.o_proj": ("self_attn.o_proj",),
    "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.down_proj": ("mlp.down_proj",),
}
"""The four products of a layer, each with the checkpoint's own matrices that make it up."""

LINEAR_PARTS = ("weight", "scales", "biases", "bias")


def tensor_order(sizes: Mapping[str, int]) -> list[str]:
    """The names of one layer's tensors in the order in which they are stored.

    Args:
        sizes: bytes of each tensor, by its name inside the layer (``self_attn.q_proj.weight``).

    Runs of tensors that belong together stay together; runs whose size is no multiple of 16 come
    last, so that those before them are aligned without holes (which safetensors forbids).
    """
    runs = stack_runs(sizes)
    taken = {name for run in runs for name in run}
    runs += [[name] for name in sorted(sizes) if name not in taken]
    runs.sort(key=lambda run: any(sizes[name] % ALIGNMENT for name in run))
    return [name for run in runs for name in run]


def stack_runs(names: Iterable[str]) -> list[list[str]]:
    """The parts of each stack, in order: ``[[q.weight, k.weight, v.weight], [q.scales, ...], ...]``."""
    present = set(names)
    runs = []
    for members in STACKS.values():
        for part in LINEAR_PARTS:
            run = [f"{member}.{part}" for member in members if f"{member}.{part}" in present]
            if run:
                runs.append(run)
    return runs
