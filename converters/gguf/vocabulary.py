"""The tokens in GGUF's metadata: texts, kinds, scores and roles, each checked as it is read."""

from __future__ import annotations

import re

from edgellm.chat_template.end_texts import end_texts
from edgellm.converters.gguf.metadata import Metadata
from edgellm.converters.tokenizers.pretokenizers import known_pre_tokenizer
from edgellm.errors import TokenizerError
from edgellm.files.strict_json import quoted
from edgellm.tokenizer.spm_proto import BYTE, CONTROL, NORMAL, UNUSED

KEY = "tokenizer.ggml."
"""Begins every key of metadata about the tokenizer, except the chat templates'."""


END_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")
"""The keys of tokens that end a completion."""

FILL_KEYS = ("fim_pad_token_id", "fim_rep_token_id", "fim_sep_token_id")
"""Those of models that fill in code; llama.cpp ends there too."""


SENTENCEPIECE = "llama"
"""GGUF's name of this kind of tokenizer."""

USUAL_IDS = {"unknown_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
"""Roles of such a tokenizer where the file names none, as in llama.cpp."""

BYTE_TEXT = re.compile(r"<0x[0-9A-F]{2}>")


class Vocabulary:
    """The tokens of a GGUF file, without those that only pad it to the embedding.

    Attributes:
        model: the kind of tokenizer; ``llama`` and ``gpt2`` are known. None: the file says none.
        tokens: their texts, by id.
        kinds: their types in SentencePiece's numbers, which GGUF has taken over.
        scores: 0.0 where the file has none.
        notes: what a person should know of roles that were asked for, by their keys.

    Raises:
        TokenizerError: the lists do not fit each other or the embedding.
    """

    def __init__(self, metadata: Metadata, vocab_size: int) -> None:
        self._metadata = metadata
        self.notes: dict[str, str] = {}
        self.model: str | None = metadata.text(f"{KEY}model")
        # llama.cpp names tokens without a text so
        tokens = [
            text or f"[EMPTY_{place}]" for place, text in enumerate(metadata.texts(f"{KEY}tokens"))
        ]
        count = len(tokens)
        if count > vocab_size:
            raise TokenizerError(
                f"the GGUF file has {count} tokens and an embedding of {vocab_size} rows"
            )
        kinds = metadata.numbers(f"{KEY}token_type", count, "iu") or self._kinds_by_text(tokens)
        scores = metadata.numbers(f"{KEY}scores", count, "iuf") or [0.0] * count
        while count and kinds[count - 1] == UNUSED:  # padding
            count -= 1
        self.tokens: list[str] = tokens[:count]
        self.kinds: list[int] = kinds[:count]
        self.scores: list[float] = [float(score) for score in scores[:count]]
        if not count:
            raise TokenizerError("the GGUF file has no token that is used")
        if any(not NORMAL <= kind <= BYTE for kind in self.kinds):
            raise TokenizerError("the GGUF file has a token of an unknown type")
        if len(set(self.tokens)) < count:
            raise TokenizerError("the GGUF file has a token twice")
        self._by_text = self._ends_by_text()
        for token_id in self._by_text:  # control, whatever the file says of them, as in llama.cpp
            self.kinds[token_id] = CONTROL

    def flag(self, key: str, default: bool) -> bool:
        """Return a yes or no of the metadata."""
        return self._metadata.flag(KEY + key, default)

    def token_id(self, key: str) -> int | None:
        """Return the id of a token with a role; None: the file names none that it has."""
        default = None
        if self.model == SENTENCEPIECE:
            default = USUAL_IDS.get(key)
        if KEY + key not in self._metadata and (default is None or default >= len(self.tokens)):
            return None
        token_id = self._metadata.integer(KEY + key, default)
        if 0 <= token_id < len(self.tokens):
            return token_id
        self.notes[key] = (
            f"the GGUF file's {KEY}{key} is {token_id}, and there are {len(self.tokens)} tokens: "
            "taken as none"
        )
        return None

    def token(self, key: str) -> str | None:
        """Return the text of a token with a role; None: the file names none."""
        token_id = self.token_id(key)
        if token_id is None:
            return None
        return self.tokens[token_id]

    def end_ids(self) -> list[int]:
        """Return the ids that end a text: those that the file names, then those known by text."""
        named = [self.token_id(key) for key in (*END_KEYS, *FILL_KEYS)]
        ends = [token_id for token_id in named if token_id is not None]
        others = [token_id for token_id in self._by_text if token_id not in ends]
        if others:
            listed = ", ".join(quoted(self.tokens[token_id]) for token_id in others)
            self.notes[END_KEYS[0]] = (
                f"answers end at {listed} too, as in llama.cpp, though the file does not say so"
            )
        return list(dict.fromkeys(ends + others))

    def _kinds_by_text(self, tokens: list[str]) -> list[int]:
        """Return the types of a file that says none: to SentencePiece, <0x0A> is a byte."""
        if self.model != SENTENCEPIECE:
            return [NORMAL] * len(tokens)
        is_byte = [BYTE_TEXT.fullmatch(text) is not None for text in tokens]
        return [BYTE if byte else NORMAL for byte in is_byte]

    def _ends_by_text(self) -> list[int]:
        ids = {token: token_id for token_id, token in enumerate(self.tokens)}
        return [ids[text] for text in end_texts(ids)]

    def merges(self) -> list[str]:
        """Return byte-level BPE's merges, two texts with a space between them each."""
        return self._metadata.texts(f"{KEY}merges")

    def pre_tokenizer(self) -> str:
        """Return how the tokenizer cuts a text, one of ``pretokenizers.PATTERNS``."""
        name = self._metadata.text(f"{KEY}pre")
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
