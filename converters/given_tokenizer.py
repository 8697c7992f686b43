"""A source with a tokenizer that was named for it, in place of its own or where it has none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgellm.checkpoint.folder import inside
from edgellm.converters.huggingface.source import TOKENIZER_FILES
from edgellm.converters.llama2c.tokenizer import tokenizer_files as llama2c_files
from edgellm.converters.meta.tokenizer import tokenizer_files as meta_files
from edgellm.converters.tensors.file_rows import files_fingerprint
from edgellm.converters.tensors.source import DerivedSource, Source
from edgellm.converters.tokenizers.named_templates import with_named_templates
from edgellm.converters.tokenizers.tekken import TEKKEN, tekken_companions, with_tekken
from edgellm.errors import ConfigError, TokenizerError
from edgellm.settings import is_int
from edgellm.tokenizer.tokenizer import has_vocabulary


class GivenTokenizer(DerivedSource):
    """A source with the tokenizer at a path: tokenizer.json, .model, .bin, or a folder.

    Args:
        base: the source; its own tokenizer's files are left out.
        path: the file or the folder.

    Raises:
        ConfigError: nothing at the path is a tokenizer.
        FormatError, ReadError: it is damaged, or cannot be read.
    """

    def __init__(self, base: Source, path: Path) -> None:
        super().__init__(base)
        self._path = path
        vocab_size = base.config.get("vocab_size")
        if not is_int(vocab_size):
            vocab_size = 0
        self._companions = {
            **_companions_without_tokenizer(base),
            **_tokenizer_files(path, vocab_size),
        }

    @property
    def companions(self) -> Mapping[str, Path | bytes]:
        """The base's, with the given tokenizer's files in place of its own."""
        return self._companions

    @property
    def fingerprint(self) -> str:
        """The base's and the tokenizer's."""
        files = [self._path]
        if self._path.is_dir():
            files = [item for item in self.companions.values() if isinstance(item, Path)]
        return self._base.fingerprint + files_fingerprint(files)


def _companions_without_tokenizer(base: Source) -> dict[str, Path | bytes]:
    try:
        companions = base.companions
    except TokenizerError:  # it has none: that is why one was named
        return {}
    return {name: file for name, file in companions.items() if name not in TOKENIZER_FILES}


def _tokenizer_files(path: Path, vocab_size: int) -> Mapping[str, Path | bytes]:
    if path.is_dir():
        found = {name: inside(path, name) for name in TOKENIZER_FILES if (path / name).is_file()}
        files, _ = with_tekken(path, with_named_templates(path, found))
        if not has_vocabulary(files):
            raise ConfigError(
                f"{path} has no tokenizer.json and no tokenizer.model",
                hint="name the tokenizer's file",
            )
        return files
    if path.suffix == ".bin" and path.is_file():
        return llama2c_files(path, vocabulary=vocab_size)
    if path.suffix == ".model" and path.is_file():
        return meta_files(path, scaled=False)[0]
    if path.name == TEKKEN and path.is_file():
        return tekken_companions(path)[0]
    if path.suffix == ".json" and path.is_file():
        return {"tokenizer.json": path}
    raise ConfigError(
        f"{path} is not a tokenizer",
        hint="name a tokenizer.json, tokenizer.model or tokenizer.bin, or a folder",
    )
