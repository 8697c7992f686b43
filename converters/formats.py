"""The formats that a model can be converted from: their marks, and their sources."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from edgellm.checkpoint.folder import CONFIG
from edgellm.converters.tensors.file_rows import (
    GGUF_MAGIC,
    LIT_LLAMA_FILE,
    LITGPT_ADAPTER,
    LITGPT_FILE,
    LLAMA2C_MAGIC,
    LLAMA2C_NUMBERS,
    META_SHARDS,
    MISTRAL_FILES,
    begins_with,
)
from edgellm.converters.tensors.source import Source
from edgellm.converters.tensors.spelled_source import SpelledSource

PARAMS = "params.json"


@dataclass(frozen=True, slots=True)
class SourceFormat:
    """One format.

    Attributes:
        name: what people call it.
        matches: whether a path, file or folder, is in this format, from names and first bytes
            alone.
        source: ``module:name`` in this package, imported on use: what takes the path.
        depends_on_bits: whether it also takes ``unquantized``, which changes what it shows.
    """

    name: str
    matches: Callable[[Path], bool]
    source: str
    depends_on_bits: bool = False


def _is_gguf(path: Path) -> bool:
    if path.is_dir():
        return not (path / CONFIG).exists() and any(path.glob("*.gguf"))
    return path.suffix == ".gguf" or begins_with(path, GGUF_MAGIC)


def _is_meta(path: Path) -> bool:
    return path.is_dir() and not (path / CONFIG).exists() and any(path.glob(META_SHARDS))


def _is_litgpt(path: Path) -> bool:
    """Return whether it is LitGPT's; a folder that also has Hugging Face's weights is theirs.

    LitGPT leaves them there when it makes its own of them.
    """
    if path.is_file():
        return path.suffix == ".pth" and not path.match(META_SHARDS)
    if _has_hugging_faces_weights(path):
        return False
    return any((path / name).exists() for name in (LITGPT_FILE, LITGPT_ADAPTER, LIT_LLAMA_FILE))


def _is_mistral(path: Path) -> bool:
    """Return whether it is Mistral's; repositories often hold Hugging Face's form too."""
    if not path.is_dir() or not (path / PARAMS).exists() or not any(path.glob(MISTRAL_FILES)):
        return False
    return not (path / CONFIG).exists() or not _has_hugging_faces_weights(path)


def _has_hugging_faces_weights(path: Path) -> bool:
    return any(any(path.glob(pattern)) for pattern in ("model*.safetensors", "pytorch_model*.bin"))


def _is_llama2c(path: Path) -> bool:
    """Return whether it is llama2.c's; version 0 has no mark but seven numbers in a .bin file."""
    if begins_with(path, LLAMA2C_MAGIC):
        return True
    if path.suffix != ".bin" or not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            head = file.read(LLAMA2C_NUMBERS.size)
    except OSError:
        return False
    if len(head) < LLAMA2C_NUMBERS.size:
        return False
    return all(0 < abs(number) < 1 << 22 for number in LLAMA2C_NUMBERS.unpack(head))


FORMATS = (
    SourceFormat("GGUF", _is_gguf, "gguf.source:GgufSource", depends_on_bits=True),
    SourceFormat("Meta's own", _is_meta, "meta.source:MetaSource"),
    SourceFormat("LitGPT", _is_litgpt, "litgpt.source:LitGPTSource"),
    SourceFormat("Mistral's own", _is_mistral, "mistral.source:MistralSource"),
    SourceFormat("llama2.c", _is_llama2c, "llama2c.source:Llama2cSource"),
    SourceFormat("Hugging Face", Path.is_dir, "quantizers.source:open_folder"),
)
"""The most specific first: the first that matches is taken."""


def open_format(path: Path, *, unquantized: bool = False) -> Source | None:
    """Open a file or folder as a source; return None where it is in no known format.

    Args:
        path: the file or folder.
        unquantized: whether the model is to become unquantized.

    Raises:
        FormatError, ReadError, UnsupportedModelError: as the format's source does.
    """
    for known in FORMATS:
        if known.matches(path):
            module, _, name = known.source.partition(":")
            make: Callable[..., Source] = getattr(import_module(f".{module}", __package__), name)
            if known.depends_on_bits:
                return SpelledSource(make(path, unquantized=unquantized))
            return SpelledSource(make(path))
    return None
