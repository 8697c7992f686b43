"""First bytes and names of foreign files, by which formats are told apart."""

from __future__ import annotations

from pathlib import Path
from struct import Struct

GGUF_MAGIC = b"GGUF"
"""The first bytes of a GGUF file."""

LLAMA2C_MAGIC = b"24ka"
"""The first bytes of llama2.c's file from version 1 on (``ak42``, as a little-endian number)."""

LLAMA2C_NUMBERS = Struct("<7i")
"""llama2.c's sizes: dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, seq_len."""

META_SHARDS = "consolidated*.pth"
"""Names of the weight files of a model in Meta's own form."""


def begins_with(path: Path, magic: bytes) -> bool:
    """Return whether a plain file begins with these bytes; False where it cannot be read."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(len(magic)) == magic
    except OSError:
        return False
