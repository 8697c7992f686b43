"""A vocabulary in a SentencePiece model (tokenizer.model), used as LLaMA's tokenizer in transformers uses it.

Special, added and user-defined tokens are cut out of a text first, longest first; SentencePiece
encodes what lies between. Only the beginning of a text gets SentencePiece's dummy prefix (a space
before the first word), not what follows such a token, unless tokenizer_config.json says ``"legacy":
true``.

Where transformers 5 drops one leading space (" Hello" becomes the ids of "Hello"), this keeps it,
as SentencePiece, the models' training and transformers 4 do. A model that collapses spaces
(``remove_extra_whitespaces``, no LLaMA's does) also loses those beside such tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgellm.errors import EdgeLLMError, TokenizerError
from edgellm.files.strict_json import require_regular_file, shown
from edgellm.tokenizer.added_tokens import AddedToken, Settings
from edgellm.tokenizer.detokenizer import Decoding
from edgellm.tokenizer.spm_charsmap import check_charsmap
from edgellm.tokenizer.spm_proto import (
    CONTROL,
    UNKNOWN,
    USER_DEFINED,
    PieceModel,
    read_piece_model,
    without_dummy_prefix,
)

MAX_BYTES = 16 << 20
SPACE = "\u2581"
TIKTOKEN = re.compile(rb"[A-Za-z0-9+/]+={0,2} \d+\r?\n")
DEFAULT_TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


class PieceVocabulary:
    """The tokens of a tokenizer.model and of the files beside it.

    Args:
        model: the checked model.
        settings: what the files beside it say.
    """

    def __init__(self, model: PieceModel, settings: Settings) -> None:
        self._model = model
        self._legacy = settings.flag("legacy", False)
        prefix = model.dummy_prefix and settings.flag("add_prefix_space", True)
        self._outer = _processor(model.data if prefix else without_dummy_prefix(model.data))
        self._inner = (
            self._outer
            if self._legacy or not prefix
            else _processor(without_dummy_prefix(model.data))
        )
        self._tokens: dict[int, str] = dict(enumerate(model.pieces))
        self._ids = {piece: at for at, piece in enumerate(model.pieces)}
        for token_id, token in settings.added.items():
            self._add(token_id, token)
        self.named = self._named(settings)
        special = settings.special_texts.union(token for token in self.named.values() if token)
        added = {token.content: token for token in settings.added.values()}
        for piece, kind in zip(model.pieces, model.kinds, strict=True):
            if kind in (CONTROL, USER_DEFINED):
                added.setdefault(piece, AddedToken(piece))
        for text in special:
            if text in self._ids:
                added.setdefault(text, AddedToken(text))
        self._added = added
        self._lengths = sorted({len(text) for text in added}, reverse=True)
        self._starts = re.compile(
            "[" + "".join(re.escape(start) for start in {text[0] for text in added}) + "]"
            if added
            else "(?!)"
        )
        control = {at for at, kind in enumerate(model.kinds) if kind in (CONTROL, UNKNOWN)}
        self.special_ids = frozenset(
            control.union(self._ids[token] for token in special if token in self._ids)
        )
        self.split_token_ids = frozenset(
            self._ids[text]
            for text, token in added.items()
            if not (token.lstrip or token.single_word)
        )
        self.size = max(self._tokens) + 1
        self.decoding = Decoding(
            replacements=((SPACE, " "),),
            byte_fallback=True,
            strip=" ",
            strip_count=1 if prefix else 0,
        )
        self._begin = self._role("bos_token") if settings.flag("add_bos_token", True) else []
        self._end = self._role("eos_token") if settings.flag("add_eos_token", False) else []

    @classmethod
    def from_file(cls, path: Path, settings: Settings) -> PieceVocabulary:
        """Return the vocabulary in a tokenizer.model. Raises TokenizerError."""
        try:
            if require_regular_file(path) > MAX_BYTES:
                raise TokenizerError(f"{path} is larger than {MAX_BYTES} bytes")
            data = path.read_bytes()
        except OSError as error:
            raise TokenizerError(f"{path} cannot be read: {error.strerror}") from error
        except EdgeLLMError as error:
            raise TokenizerError(error.message) from error
        if TIKTOKEN.match(data):
            raise TokenizerError(
                f"{path} holds tiktoken ranks (the form of Meta's own Llama 3 folders), not a SentencePiece model",
                hint="convert the folder: edgellm convert SOURCE DEST",
            )
        if data.startswith(b"version https://git-lfs"):
            raise TokenizerError(
                f"{path} is a pointer of git-lfs, not the file",
                hint="download it again, or git lfs pull",
            )
        model = read_piece_model(data)
        for table in model.charsmaps:
            check_charsmap(table)
        if model.suffix:
            raise TokenizerError(
                f"{path} puts white space at the end of words, which edgellm does not know"
            )
        return cls(model, settings)

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Return the ids of ``text``."""
        ids = list(self._begin) if add_special_tokens else []
        start = 0
        for token, begin, end in self._added_in(text):
            between = text[start:begin]
            ids += self._encode(between.rstrip() if token.lstrip else between, first=start == 0)
            ids.append(self._ids[token.content])
            start = end
            while token.rstrip and text[start : start + 1].isspace():
                start += 1
        ids += self._encode(text[start:], first=start == 0)
        return ids + self._end if add_special_tokens else ids

    def token_of(self, token_id: int) -> str | None:
        """Return the token of an id, ``None`` where there is none."""
        return self._tokens.get(token_id)

    def id_of(self, token: str) -> int | None:
        """Return the id of a token, ``None`` where there is none."""
        return self._ids.get(token)

    def _added_in(self, text: str) -> Iterator[tuple[AddedToken, int, int]]:
        """Each added token in a text with its begin and end: the first, and of those the longest, then on behind it."""
        at = 0
        while match := self._starts.search(text, at):
            begin, at = match.start(), match.end()
            for length in self._lengths:
                token = self._added.get(text[begin : begin + length])
                if token is None:
                    continue
                end = begin + len(token.content)
                if not (token.single_word and _inside_word(text, begin, end)):
                    yield token, begin, end
                    at = end
                    break

    def _encode(self, text: str, *, first: bool) -> list[int]:
        processor = self._outer if first else self._inner
        return processor.encode(text) if text else []

    def _role(self, role: str) -> list[int]:
        token = self.named.get(role)
        if not token:
            return []
        if token not in self._ids:
            raise TokenizerError(f"the {role} {token!r} is not in the vocabulary")
        return [self._ids[token]]

    def _named(self, settings: Settings) -> dict[str, str | None]:
        own = {"bos_token": self._model.bos_id, "eos_token": self._model.eos_id}
        named: dict[str, str | None] = {}
        for role, token in DEFAULT_TOKENS.items():
            named[role] = self._tokens.get(own[role]) if role in own else token
        return named | dict(settings.named)

    def _add(self, token_id: int, token: AddedToken) -> None:
        text = token.content
        if self._tokens.get(token_id, text) != text or self._ids.get(text, token_id) != token_id:
            raise TokenizerError(
                f"added token {shown(text)} has the id {token_id}, which belongs to another token"
            )
        self._tokens[token_id], self._ids[text] = text, token_id


def _inside_word(text: str, start: int, end: int) -> bool:
    before, after = text[start - 1 : start] if start else "", text[end : end + 1]
    return bool(re.fullmatch(r"\w", before) or re.fullmatch(r"\w", after))


def _processor(data: bytes) -> Any:
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(data)
    except Exception as error:  # the library raises plain RuntimeError and ValueError
        raise TokenizerError(
            f"the SentencePiece model is damaged: {' '.join(str(error).split())[:200]}"
        ) from error
    return processor
