"""The tokens in GGUF's metadata: texts, kinds, scores and roles, each checked as it is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgellm.converters.tokenizers.pretokenizers import known_pre_tokenizer
from edgellm.errors import TokenizerError
from edgellm.files.strict_json import quoted
from edgellm.tokenizer.spm_proto import BYTE, NORMAL, UNUSED

KEY = "tokenizer.ggml."
"""Begins every key of metadata about the tokenizer, save the chat templates'."""


class Vocabulary:
    """The tokens of a GGUF file, without those that only pad it to the embedding.

    Attributes:
        model: the kind of tokenizer; ``llama`` and ``gpt2`` are known. None: the file says none.
        tokens: their texts, by id.
        kinds: their types in SentencePiece's numbers, which GGUF has taken over.
        scores: 0.0 where the file has none.

    Raises:
        TokenizerError: the lists do not fit each other or the embedding.
    """

    def __init__(self, metadata: Mapping[str, Any], vocab_size: int) -> None:
        self._metadata = metadata
        self.model = _text(metadata, "model")
        tokens = metadata.get(f"{KEY}tokens")
        if not isinstance(tokens, list) or not tokens:
            raise TokenizerError("the GGUF file has no list of tokens")
        count = len(tokens)
        if count > vocab_size:
            raise TokenizerError(
                f"the GGUF file has {count} tokens and an embedding of {vocab_size} rows"
            )
        kinds = [int(kind) for kind in self._numbers("token_type", NORMAL, count, "iu")]
        scores = [float(score) for score in self._numbers("scores", 0.0, count, "iuf")]
        while count and kinds[count - 1] == UNUSED:  # padding
            count -= 1
        self.tokens: list[str] = tokens[:count]
        self.kinds = kinds[:count]
        self.scores = scores[:count]
        if not count:
            raise TokenizerError("the GGUF file has no token that is used")
        if any(not NORMAL <= kind <= BYTE for kind in self.kinds):
            raise TokenizerError("the GGUF file has a token of an unknown type")
        if len(set(self.tokens)) < count:
            raise TokenizerError("the GGUF file has a token twice")

    def _numbers(self, key: str, default: float, count: int, types: str) -> Sequence[float]:
        """Return one number for each of ``count`` tokens; ``types`` are NumPy's letters."""
        values = self._metadata.get(KEY + key)
        if values is None:
            return [default] * count
        values = np.atleast_1d(values)
        if values.dtype.kind not in types or len(values) != count:
            raise TokenizerError(
                f"the GGUF file's {KEY}{key} is not one number for each of {count} tokens"
            )
        numbers: list[float] = values.tolist()
        return numbers

    def flag(self, key: str, default: bool) -> bool:
        """Return a yes or no of the metadata."""
        value = self._metadata.get(KEY + key, default)
        if not isinstance(value, bool):
            raise TokenizerError(
                f"the GGUF file's {KEY}{key} is {quoted(value)}; it must be true or false"
            )
        return value

    def token_id(self, key: str) -> int | None:
        """Return the id of a token with a role; None: the file names none."""
        value = self._metadata.get(KEY + key)
        if value is None:
            return None
        if type(value) is not int or not 0 <= value < len(self.tokens):
            raise TokenizerError(
                f"the GGUF file's {KEY}{key} is {quoted(value)}, which is no token"
            )
        return value

    def token(self, key: str) -> str | None:
        """Return the text of a token with a role; None: the file names none."""
        token_id = self.token_id(key)
        if token_id is None:
            return None
        return self.tokens[token_id]

    def merges(self) -> list[str]:
        """Return byte-level BPE's merges, two texts with a space between them each."""
        merges = self._metadata.get(f"{KEY}merges")
        if not isinstance(merges, list):
            raise TokenizerError(f"the GGUF file has no {KEY}merges")
        return merges

    def pre_tokenizer(self) -> str:
        """Return how the tokenizer cuts a text, one of ``pretokenizers.PATTERNS``."""
        name = _text(self._metadata, "pre")
        if name is None or name == "default":
            raise TokenizerError(
                f"the GGUF file does not say how its tokenizer cuts a text ({KEY}pre)",
                hint="it was made before llama.cpp knew; take a newer one, or the original model",
            )
        known = known_pre_tokenizer(name)
        if known is None:
            raise TokenizerError(
                f"the GGUF file's tokenizer cuts texts as {quoted(name)}, "
                "which edgellm does not know",
                hint="convert the original model instead",
            )
        return known


def _text(metadata: Mapping[str, Any], key: str) -> str | None:
    value = metadata.get(KEY + key)
    if value is not None and not isinstance(value, str):
        raise TokenizerError(f"the GGUF file's {KEY}{key} is {quoted(value)}, which is no text")
    return value
