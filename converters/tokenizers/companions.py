"""The tokenizer among a source's files, opened as a reader of the result will open it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from edgellm.errors import TokenizerError
from edgellm.files.atomic import write_file
from edgellm.files.bounded import read_in_parts
from edgellm.files.locations import temporary_folder
from edgellm.tokenizer import Tokenizer
from edgellm.tokenizer.tokenizer import has_vocabulary


def companion_tokenizer(
    companions: Mapping[str, Path | bytes], *, vocab_size: int | None
) -> Tokenizer:
    """Return the tokenizer whose files are among ``companions``.

    Args:
        companions: files by their names.
        vocab_size: how many ids the model knows.

    Raises:
        TokenizerError: there is none, it is damaged, or it does not fit the model.
        TemplateError: a chat template is damaged.
        FormatError, ReadError: a file cannot be read.
    """
    if not has_vocabulary(companions):
        raise TokenizerError(
            "the source has no tokenizer",
            hint="name one with --tokenizer",
        )
    with temporary_folder() as folder:
        for name, content in companions.items():
            (folder / name).parent.mkdir(exist_ok=True)
            write_file(folder / name, companion_parts(content), durable=False)
        try:
            return Tokenizer.from_folder(folder, vocab_size=vocab_size)
        except TokenizerError as error:
            # the folder is gone when this is read
            message = error.message.replace(f"{folder}/", "")
            raise TokenizerError(message, hint=error.hint) from error


def companion_parts(content: Path | bytes) -> Iterator[bytes]:
    """Yield the bytes of a companion, a file to copy or its content.

    Raises FormatError, ReadError.
    """
    if isinstance(content, bytes):
        yield content
    else:
        yield from read_in_parts(content)
