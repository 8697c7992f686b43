"""A source with a tokenizer that was named for it, in place of its own or where it has none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgellm.checkpoint.folder import inside
from edgellm.checkpoint.quantization import Quantization
from edgellm.converters.huggingface.source import TOKENIZER_FILES
from edgellm.converters.llama2c.tokenizer import tokenizer_files as llama2c_files
from edgellm.converters.meta.tokenizer import tokenizer_files as meta_files
from edgellm.converters.tensors.file_rows import files_fingerprint
from edgellm.converters.tensors.source import Bytes, Source, SourceTensor
from edgellm.errors import ConfigError, TokenizerError
from edgellm.settings import is_int


class GivenTokenizer:
    """A source and, as its tokenizer, a file (tokenizer.json, tokenizer.model, tokenizer.bin) or a folder that has one.

    Raises:
        ConfigError: nothing at the path is a tokenizer.
        FormatError, ReadError: it is damaged, or cannot be read.
    """

    def __init__(self, base: Source, path: Path) -> None:
        self._base = base
        self._path = path
        self.config: Mapping[str, Any] = base.config
        self.tensors: Mapping[str, SourceTensor] = base.tensors
        self.forms: Mapping[str, Quantization] = base.forms
        self.notes: Sequence[str] = base.notes
        try:
            kept = {
                name: file for name, file in base.companions.items() if name not in TOKENIZER_FILES
            }
        except TokenizerError:  # it has none: that is why one was named
            kept = {}
        vocabulary = base.config.get("vocab_size")
        self.companions: Mapping[str, Path | bytes] = kept | _files(
            path, vocabulary if is_int(vocabulary) else 0
        )

    @property
    def fingerprint(self) -> str:
        """The base's and the tokenizer's."""
        files = (
            [self._path]
            if self._path.is_file()
            else [item for item in self.companions.values() if isinstance(item, Path)]
        )
        return self._base.fingerprint + files_fingerprint(files)

    def rows(self, name: str, start: int, stop: int) -> Bytes:
        """The base's own."""
        return self._base.rows(name, start, stop)


def _files(path: Path, vocabulary: int) -> dict[str, Path | bytes]:
    if path.is_dir():
        found: dict[str, Path | bytes] = {
            name: inside(path, name) for name in TOKENIZER_FILES if (path / name).is_file()
        }
        if not {"tokenizer.json", "tokenizer.model"} & found.keys():
            raise ConfigError(
                f"{path} has no tokenizer.json and no tokenizer.model",
                hint="name the tokenizer's file",
            )
        return found
    if path.suffix == ".bin" and path.is_file():
        return llama2c_files(path, vocabulary=vocabulary)
    if path.suffix == ".model" and path.is_file():
        return meta_files(path, scaled=False)[0]
    if path.suffix == ".json" and path.is_file():
        return {"tokenizer.json": path}
    raise ConfigError(
        f"{path} is no tokenizer",
        hint="name a tokenizer.json, tokenizer.model or tokenizer.bin, or a folder",
    )
