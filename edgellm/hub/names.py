"""Names of models on the Hub: a repository, and one of its GGUF files."""

from __future__ import annotations

import re
import string
from dataclasses import dataclass

GGUF_SUFFIX = ".gguf"

ADDRESS = re.compile(
    r"(?:hf://|(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/)(.+?)/?(?:\?.*)?"
)
"""The address of one of the Hub's pages, as people copy it, also for llama.cpp and Ollama."""

_ID_LETTERS = frozenset(string.ascii_letters + string.digits + "-_.")


@dataclass(frozen=True, slots=True)
class HubName:
    """A name's parts: ``OWNER/NAME``, ``OWNER/NAME:QUANT`` or ``OWNER/NAME/FILE.gguf``.

    Attributes:
        text: the name itself.
        repository: ``OWNER/NAME``.
        quant: the quantization of a GGUF file, as its name has it.
        file: a GGUF file's path in the repository.
    """

    text: str
    repository: str
    quant: str | None = None
    file: str | None = None

    @property
    def is_gguf(self) -> bool:
        """Whether it names a GGUF file."""
        return self.quant is not None or self.file is not None


def parse_hub_name(text: str) -> HubName | None:
    """Return what a name says; None where it has not the form of one on the Hub.

    The address of a page may stand for it, if it is of the main branch.
    """
    name = text
    if address := ADDRESS.fullmatch(text):
        name = re.sub("/(?:blob|resolve)/main/", "/", address[1], count=1)
        name = name.removesuffix("/tree/main")
    repository, colon, quant = name.partition(":")
    if is_hub_id(repository):
        if not colon:
            return HubName(name, repository)
        quant = re.sub(r"\.gguf$", "", quant, flags=re.IGNORECASE)
        if quant and _ID_LETTERS.issuperset(quant):
            return HubName(name, repository, quant=quant)
        return None
    owner, _, rest = name.partition("/")
    repository, _, file = rest.partition("/")
    repository = f"{owner}/{repository}"
    if not name.lower().endswith(GGUF_SUFFIX) or not is_hub_id(repository):
        return None
    if not is_path(file):
        return None
    return HubName(name, repository, file=file)


def is_path(file: str) -> bool:
    """Return whether a text is a path inside a repository that can be shown and stays there."""
    return file.isprintable() and not {"", ".", ".."}.intersection(file.split("/"))


def is_hub_id(name: str) -> bool:
    """Return whether a name has the form of a Hub repository, ``owner/name``."""
    owner, _, repository = name.partition("/")
    if not owner or not repository or owner in {".", "..", "~"}:
        return False
    return _ID_LETTERS.issuperset(owner + repository)
