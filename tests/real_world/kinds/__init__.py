"""The table of releases: each module adds its own."""

from real_world.kinds import (
    adapters,
    folded,
    forms,
    gguf,
    gguf_families,
    habits,
    later,
    llama2,
    llama3,
    mistral,
    mlx,
    own_blocks,
    packed,
    phi,
    qwen,
    tokenizers,
)
from real_world.release import RELEASES

__all__ = [
    "RELEASES",
    "adapters",
    "folded",
    "forms",
    "gguf",
    "gguf_families",
    "habits",
    "later",
    "llama2",
    "llama3",
    "mistral",
    "mlx",
    "own_blocks",
    "packed",
    "phi",
    "qwen",
    "tokenizers",
]
