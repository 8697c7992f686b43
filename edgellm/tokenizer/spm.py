"""A SentencePiece vocabulary (tokenizer.model), used as transformers uses LLaMA's.

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
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from edgellm.errors import EdgeLLMError, TokenizerError
from edgellm.files.bounded import read_bounded, refuse_lfs_pointer
from edgellm.tokenizer.added_tokens import AddedToken, Settings, within_rows
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
from edgellm.tokenizer.token_table import TokenTable

MAX_BYTES = 16 << 20
SPACE = "\u2581"  # ▁: SentencePiece writes a space so
TIKTOKEN = re.compile(rb"[A-Za-z0-9+/]+={0,2} \d+\r?\n")


class PieceVocabulary(TokenTable):
    """The tokens of a tokenizer.model and of the files beside it.

    Args:
        model: the checked model.
        settings: the contents of the files beside it.
        rows: how many ids the model knows.

    Raises:
        TokenizerError: the library refuses the model, or the files beside it do not fit it.
    """

    def __init__(self, model: PieceModel, settings: Settings, rows: int | None = None) -> None:
        settings = replace(settings, added=within_rows(settings.added, rows, own=model.pieces))
        self._model = model
        adds_space = model.dummy_prefix and settings.flag("add_prefix_space", True)
        is_legacy = settings.flag("legacy", False)
        # the models for the beginning of a text, and for what follows a special token
        first = inner = without_dummy_prefix(model.data)
        if adds_space:
            first = model.data
        if adds_space and is_legacy:
            inner = model.data
        self._first = self._inner = _processor(first)
        if inner != first:
            self._inner = _processor(inner)

        super().__init__(dict(enumerate(model.pieces)))
        self.reserve_ids(settings.added)
        self.named: dict[str, str | None] = self._named(settings)
        special = settings.special_texts.union(filter(None, self.named.values()))
        self._added = self._added_tokens(settings, special)
        self._find = _AddedTokens(self._added.values())

        control = {at for at, kind in enumerate(model.kinds) if kind in (CONTROL, UNKNOWN)}
        self.special_ids: frozenset[int] = frozenset(
            control.union(self._ids[token] for token in special if token in self._ids)
        )
        self.split_token_ids: frozenset[int] = frozenset(
            self._ids[text]
            for text, token in self._added.items()
            if not (token.lstrip or token.single_word)
        )
        self.size: int = max(self._tokens) + 1
        self.decoding: Decoding = Decoding(
            replacements=((SPACE, " "),), byte_fallback=True, strip=" ", strip_count=int(adds_space)
        )
        self.begin: list[int] = []
        self.end: list[int] = []
        if settings.flag("add_bos_token", True):
            self.begin = self._role("bos_token")
        if settings.flag("add_eos_token", False):
            self.end = self._role("eos_token")

    @classmethod
    def from_file(cls, path: Path, settings: Settings, rows: int | None) -> PieceVocabulary:
        """Return the vocabulary in a tokenizer.model. Raises TokenizerError."""
        try:
            data = read_bounded(path, MAX_BYTES)
        except EdgeLLMError as error:
            raise TokenizerError(error.message) from error
        if TIKTOKEN.match(data):
            raise TokenizerError(
                f"{path} holds tiktoken ranks (the form of Meta's own Llama 3 folders), "
                "not a SentencePiece model",
                hint="convert the folder: edgellm convert SOURCE DEST",
            )
        refuse_lfs_pointer(path, data, TokenizerError)
        model = read_piece_model(data)
        for table in model.charsmaps:
            check_charsmap(table)
        if model.suffix:
            raise TokenizerError(
                f"{path} puts white space at the end of words, which edgellm does not know"
            )
        return cls(model, settings, rows)

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text``."""
        ids: list[int] = []
        for part in self._parts(text, self._find):
            if isinstance(part, str):
                ids.append(self._ids[part])
            else:
                ids += self._encode_plain(part.text, first=part.first)
        return ids

    def encode_marked(self, text: str, mark: str, control: frozenset[int]) -> list[int]:
        """Return the ids of ``text``, where control tokens are such behind ``mark`` alone."""
        tokens = [
            token._replace(content=mark + text) if self._ids[text] in control else token
            for text, token in self._added.items()
        ]
        ids: list[int] = []
        for part in self._parts(text, _AddedTokens(tokens)):
            if isinstance(part, str):
                ids.append(self._ids[part.removeprefix(mark)])
            else:
                ids += self._as_text(part, control)
        return ids

    def _as_text(self, part: _Between, control: frozenset[int]) -> list[int]:
        """Return the ids of a text in which what spells a control token is text.

        The library cuts out tokens that a user has defined; it does not see those that are given to
        it in two parts.
        """
        ids = self._encode_plain(part.text, first=part.first)
        texts = [text for text in self._added if self._ids[text] in control and len(text) > 1]
        if control.isdisjoint(ids) or not texts:
            return ids
        inside = "|".join(f"(?<={re.escape(text[0])})(?={re.escape(text[1:])})" for text in texts)
        ids = []
        for piece in re.split(inside, part.text):
            ids += self._encode_plain(piece, first=part.first and not ids)
        self.refuse_control(part.text, ids, control)
        return ids

    def _parts(self, text: str, find: _AddedTokens) -> Iterator[str | _Between]:
        """Yield added tokens as they are written, and what lies between."""
        start = 0
        for token, begin, end in find.places(text):
            between = text[start:begin]
            if token.lstrip:
                between = between.rstrip()
            yield _Between(between, first=start == 0)
            yield token.content
            start = end
            while token.rstrip and text[start : start + 1].isspace():
                start += 1
        yield _Between(text[start:], first=start == 0)

    def _encode_plain(self, text: str, *, first: bool) -> list[int]:
        """Return the ids of a text without added tokens; ``first``: nothing stands before it."""
        processor = self._inner
        if first:
            processor = self._first
        ids: list[int] = processor.encode(text)
        return ids

    def _role(self, role: str) -> list[int]:
        """Return the id of the token with a role, or nothing where there is no such token."""
        token = self.named.get(role)
        if not token:
            return []
        if token not in self._ids:
            raise TokenizerError(f"the {role} {token!r} is not in the vocabulary")
        return [self._ids[token]]

    def _named(self, settings: Settings) -> dict[str, str | None]:
        """Return the tokens with roles: those of the files beside the model go before its own."""
        return {
            "bos_token": self._tokens.get(self._model.bos_id),
            "eos_token": self._tokens.get(self._model.eos_id),
            "unk_token": "<unk>",
            **settings.named,
        }

    def _added_tokens(self, settings: Settings, special: frozenset[str]) -> dict[str, AddedToken]:
        """Return by their texts the tokens that are cut out of a text before it is encoded."""
        added = {token.content: token for token in settings.added.values()}
        for piece, kind in zip(self._model.pieces, self._model.kinds, strict=True):
            if kind in (CONTROL, USER_DEFINED):
                added.setdefault(piece, AddedToken(piece))
        for text in special:
            if text in self._ids:
                added.setdefault(text, AddedToken(text))
        return added


class _Between(NamedTuple):
    """A text between added tokens; ``first``: nothing stands before it."""

    text: str
    first: bool


class _AddedTokens:
    """Finds added tokens in texts."""

    def __init__(self, tokens: Iterable[AddedToken]) -> None:
        self._added = {token.content: token for token in tokens}
        self._lengths = sorted({len(text) for text in self._added}, reverse=True)
        self._starts = _any_of({text[0] for text in self._added})

    def places(self, text: str) -> Iterator[tuple[AddedToken, int, int]]:
        """Yield each added token in a text with its begin and end.

        From each place the longest is taken, and the search goes on behind it.
        """
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


def _any_of(characters: set[str]) -> re.Pattern[str]:
    """Return a pattern that finds one of ``characters``."""
    if not characters:
        return re.compile("(?!)")
    return re.compile("[" + "".join(map(re.escape, characters)) + "]")


def _inside_word(text: str, start: int, end: int) -> bool:
    """Whether a letter or digit stands right before ``start`` or at ``end``."""
    neighbours = text[max(start - 1, 0) : start] + text[end : end + 1]
    return re.search(r"\w", neighbours) is not None


def _processor(data: bytes) -> Any:
    """Return the library's processor of a serialized model. Raises TokenizerError."""
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(data)
    except Exception as error:  # the library raises plain RuntimeError and ValueError
        reason = " ".join(str(error).split())[:200]
        raise TokenizerError(f"the SentencePiece model is damaged: {reason}") from error
    return processor
