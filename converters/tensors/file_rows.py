"""Bytes of files by their place, first ones by format, and whether files have changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from struct import Struct
from typing import TypeVar

import numpy as np

from edgellm.converters.tensors.source import Bytes
from edgellm.errors import ReadError

Piece = TypeVar("Piece")

GGUF_MAGIC = b"GGUF"
"""The first bytes of a GGUF file."""

LLAMA2C_MAGIC = b"24ka"
"""The first bytes of llama2.c's file from version 1 on (``ak42``, as a little-endian number)."""

LLAMA2C_NUMBERS = Struct("<7i")
"""llama2.c's sizes: dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, seq_len."""

META_SHARDS = "consolidated*.pth"
"""Names of the weight files of a model in Meta's own form."""

MISTRAL_FILES = "consolidated*.safetensors"
MISTRAL_INDEX = "consolidated.safetensors.index.json"
"""Names of those of a model in Mistral's own form."""

LITGPT_FILE = "lit_model.pth"
"""LitGPT's weight file."""

LITGPT_ADAPTER = "lit_model.pth.lora"
"""The weight file of a LoRA of LitGPT's."""

LIT_LLAMA_FILE = "lit-llama.pth"
"""Lit-LLaMA's weight file, as its own scripts call it."""


def begins_with(path: Path, magic: bytes) -> bool:
    """Return whether a plain file begins with these bytes; False where it cannot be read."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(len(magic)) == magic
    except OSError:
        return False


def read_span(path: Path, offset: int, length: int) -> Bytes:
    """Read ``length`` bytes of a file from ``offset`` on. Raises ReadError."""
    content = np.empty(length, np.uint8)
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(offset)
            done = 0
            while done < length:
                count = file.readinto(memoryview(content)[done:])
                if not count:
                    raise ReadError(
                        f"{path} ends at byte {offset + done}; it was cut short while it was read"
                    )
                done += count
    except OSError as error:
        raise ReadError(f"{path} cannot be read at byte {offset}: {error.strerror}") from error
    return content


def made_ahead(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """Yield the same pieces, each made in a thread while the one before it is used."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(next, pieces, None)
        while (piece := future.result()) is not None:
            future = pool.submit(next, pieces, None)
            yield piece


def files_fingerprint(files: Iterable[Path]) -> str:
    """Return a digest of names, sizes and times of files: it changes when one of them does."""
    digest = hashlib.sha256()
    for file in sorted(files):
        status = file.stat()
        digest.update(f"{file.name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return digest.hexdigest()
