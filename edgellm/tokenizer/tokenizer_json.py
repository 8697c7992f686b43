"""A vocabulary in tokenizer.json (BPE or Unigram), encoded by the Rust library ``tokenizers``.

The file is parsed and checked here; the library gets the checked parts and never sees the file, and
what it would do after encoding (special tokens, padding, truncation, decoding) is done here too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from operator import add
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from edgellm.errors import EdgeLLMError, TokenizerError
from edgellm.files.strict_json import require_regular_file, shown
from edgellm.tokenizer.added_tokens import MAX_ID, AddedToken, Settings, read_added
from edgellm.tokenizer.detokenizer import read_decoding
from edgellm.tokenizer.json_components import check_components, read_frame

MAX_BYTES = 64 << 20
Result = TypeVar("Result")


class JsonVocabulary:
    """The tokens of a tokenizer.json and of the files beside it.

    Args:
        document: the parsed file.
        settings: what the files beside it say.
    """

    def __init__(self, document: Mapping[str, Any], settings: Settings) -> None:
        model = document.get("model")
        if not isinstance(model, Mapping):
            raise TokenizerError("tokenizer.json has no model")
        normalizer, pre_tokenizer = document.get("normalizer"), document.get("pre_tokenizer")
        check_components(normalizer, pre_tokenizer)
        self.decoding = read_decoding(document.get("decoder"))
        self._ids, built = _build(model)
        self._tokens = {token_id: token for token, token_id in self._ids.items()}
        added = _listed(document.get("added_tokens"))
        self._check_added(added)
        further = {
            token_id: token
            for token_id, token in settings.added.items()
            if token.content not in self._ids
        }
        self._check_added(further)
        special = settings.special_texts
        listed = {token.content: token for token in (*added.values(), *further.values())}
        roles = [
            AddedToken(token, special=True)
            for token in special
            if token in self._ids and token not in listed
        ]
        self._tokenizer = rust(
            lambda: _assemble(normalizer, pre_tokenizer, built, [*listed.values(), *roles])
        )
        for token_id, token in (*added.items(), *further.items()):
            if self._tokenizer.token_to_id(token.content) != token_id:
                raise TokenizerError(
                    f"added token {shown(token.content)} is said to have the id {token_id}, but the ids before it have gaps"
                )
            # normalized, as it is found in a text
            self._tokens[token_id] = self._tokenizer.id_to_token(token_id)
        self._begin, self._end = read_frame(document.get("post_processor"), self._ids)
        texts = special.union(token.content for token in added.values() if token.special)
        self.special_ids = frozenset(self._ids[text] for text in texts if text in self._ids)
        self.split_token_ids = frozenset(
            self._ids[token.content] for token in (*listed.values(), *roles) if token.is_border
        )
        self.named: dict[str, str | None] = dict(settings.named)
        self.size = max(self._tokens) + 1

    @classmethod
    def from_file(cls, path: Path, settings: Settings) -> JsonVocabulary:
        """Return the vocabulary in a tokenizer.json. Raises TokenizerError."""
        return cls(_parse(path), settings)

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Return the ids of ``text``."""
        ids: list[int] = rust(lambda: self._tokenizer.encode(text, add_special_tokens=False).ids)
        return [*self._begin, *ids, *self._end] if add_special_tokens else ids

    def token_of(self, token_id: int) -> str | None:
        """Return the token of an id, ``None`` where there is none."""
        return self._tokens.get(token_id)

    def id_of(self, token: str) -> int | None:
        """Return the id of a token, ``None`` where there is none."""
        return self._ids.get(token)

    def _check_added(self, added: Mapping[int, AddedToken]) -> None:
        for token_id, token in added.items():
            content = token.content
            if (
                self._tokens.get(token_id, content) != content
                or self._ids.get(content, token_id) != token_id
            ):
                raise TokenizerError(
                    f"added token {shown(content)} has the id {token_id}, which belongs to another token"
                )
            self._tokens[token_id], self._ids[content] = content, token_id


def rust(work: Callable[[], Result]) -> Result:
    """Return ``work()``; whatever the Rust library raises, its panics included, becomes a TokenizerError."""
    try:
        return work()
    except EdgeLLMError:
        raise
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise TokenizerError(
                f"the tokenizer fails: {' '.join(str(error).split())[:200]}"
            ) from error
        raise


def _build(model: Mapping[str, Any]) -> tuple[dict[str, int], Callable[[], Any]]:
    """Return the vocabulary of a checked model, and what makes the library's model of it."""
    kind = model.get("type") or ("BPE" if "merges" in model else "Unigram")
    if kind == "BPE":
        return _bpe(model)
    if kind == "Unigram":
        return _unigram(model)
    raise TokenizerError(
        f"tokenizer.json holds a model of type {shown(kind)}; edgellm knows BPE and Unigram"
    )


def _bpe(model: Mapping[str, Any]) -> tuple[dict[str, int], Callable[[], Any]]:
    vocabulary, unknown = model.get("vocab"), model.get("unk_token")
    if not isinstance(vocabulary, dict) or not vocabulary:
        raise TokenizerError("tokenizer.json has no vocabulary")
    if set(map(type, vocabulary.values())) != {int}:
        raise TokenizerError("the vocabulary of tokenizer.json must map tokens to ids")
    ids = set(vocabulary.values())
    if min(ids) < 0 or max(ids) >= MAX_ID:
        raise TokenizerError(
            f"tokenizer.json has the id {min(ids) if min(ids) < 0 else max(ids)}; ids go from 0 to {MAX_ID - 1}"
        )
    if len(ids) < len(vocabulary):
        raise TokenizerError("tokenizer.json gives one id to two tokens")
    for affix in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(affix):
            raise TokenizerError(
                f"tokenizer.json marks words by {affix}, which edgellm does not know"
            )
    if unknown is not None and (not isinstance(unknown, str) or unknown not in vocabulary):
        raise TokenizerError(
            f"the unknown token {shown(unknown)} of tokenizer.json is not in its vocabulary"
        )
    merges = _merges(model.get("merges"), vocabulary)
    switches = {name: _flag(model, name) for name in ("fuse_unk", "byte_fallback", "ignore_merges")}
    given = {**switches, "unk_token": unknown} if unknown is not None else switches

    def make() -> Any:
        from tokenizers import models

        return models.BPE(vocab=dict(vocabulary), merges=merges, **given)

    return dict(vocabulary), make


def _merges(listed: Any, vocabulary: Mapping[str, int]) -> list[tuple[str, str]]:
    """Return the pairs of tokens to merge; the library panics on one whose parts or whole are no tokens."""
    if not isinstance(listed, list):
        raise TokenizerError("tokenizer.json has no list of merges")
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in listed]
    if set(map(type, pairs)) - {list} or set(map(len, pairs)) - {2}:
        raise TokenizerError("a merge in tokenizer.json does not name two tokens")
    firsts, seconds = [first for first, _ in pairs], [second for _, second in pairs]
    if (
        set(map(type, firsts)) - {str}
        or set(map(type, seconds)) - {str}
        or "" in firsts
        or "" in seconds
    ):
        raise TokenizerError("a merge in tokenizer.json does not name two tokens")
    needed = {*firsts, *seconds, *map(add, firsts, seconds)}
    if missing := needed - vocabulary.keys():
        raise TokenizerError(
            f"tokenizer.json merges {shown(min(missing))}, which is not in its vocabulary"
        )
    return list(zip(firsts, seconds, strict=True))


def _unigram(model: Mapping[str, Any]) -> tuple[dict[str, int], Callable[[], Any]]:
    listed, unknown = model.get("vocab"), model.get("unk_id")
    if not isinstance(listed, list) or not listed:
        raise TokenizerError("tokenizer.json has no vocabulary")
    pieces: list[tuple[str, float]] = []
    for entry in listed:
        match entry:
            case [str(piece), int() | float() as score] if piece and abs(score) < 1e30:
                pieces.append((piece, float(score)))
            case _:
                raise TokenizerError(f"tokenizer.json has an impossible piece: {shown(entry)}")
    vocabulary = {piece: at for at, (piece, _) in enumerate(pieces)}
    if len(vocabulary) < len(pieces):
        raise TokenizerError("tokenizer.json has a piece twice")
    if unknown is not None and (type(unknown) is not int or not 0 <= unknown < len(pieces)):
        raise TokenizerError(f"the unknown piece of tokenizer.json is {shown(unknown)}")
    byte_fallback = _flag(model, "byte_fallback")

    def make() -> Any:
        from tokenizers import models

        return models.Unigram(pieces, unknown, byte_fallback)

    return vocabulary, make


def _flag(model: Mapping[str, Any], name: str) -> bool:
    value = model.get(name, False)
    if not isinstance(value, bool):
        raise TokenizerError(f"tokenizer.json: {name} is {shown(value)}; it must be true or false")
    return value


def _listed(added: Any) -> dict[int, AddedToken]:
    if added is None:
        return {}
    if not isinstance(added, list) or not all(
        isinstance(token, Mapping) and type(token.get("id")) is int for token in added
    ):
        raise TokenizerError(
            "the added tokens of tokenizer.json must be a list of objects with an id"
        )
    by_id = {token["id"]: token for token in added}
    if len(by_id) < len(added) or min(by_id, default=0) < 0:
        raise TokenizerError("tokenizer.json gives one id to two added tokens, or a negative one")
    return read_added(by_id)


def _assemble(
    normalizer: Any, pre_tokenizer: Any, model: Callable[[], Any], added: list[AddedToken]
) -> Any:
    """Return the library's tokenizer, without anything that works after the model."""
    import tokenizers

    frame = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": None,
        "model": {"type": "BPE", "vocab": {}, "merges": []},
    }
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(frame))
    tokenizer.model = model()
    for token in added:
        switches = {
            name: getattr(token, name)
            for name in ("special", "lstrip", "rstrip", "single_word", "normalized")
        }
        tokenizer.add_tokens([tokenizers.AddedToken(token.content, **switches)])
    return tokenizer


def _parse(path: Path) -> dict[str, Any]:
    try:
        if require_regular_file(path) > MAX_BYTES:
            raise TokenizerError(f"{path} is larger than {MAX_BYTES} bytes")
        text = path.read_bytes().decode("utf-8").strip()
        if text[:1] != "{" or text[-1:] != "}":  # cut off, or something else: not worth parsing
            raise TokenizerError(f"{path} is cut off, or is no JSON object")
        document = json.loads(
            text, object_pairs_hook=_object, parse_constant=_refuse, parse_float=_finite
        )
    except OSError as error:
        raise TokenizerError(f"{path} cannot be read: {error.strerror}") from error
    except TokenizerError:
        raise
    except EdgeLLMError as error:
        raise TokenizerError(error.message) from error
    except (ValueError, RecursionError) as error:
        raise TokenizerError(
            f"{path} is no valid JSON: {' '.join(str(error).split())[:200]}"
        ) from error
    if not isinstance(document, dict):
        raise TokenizerError(f"{path} holds no JSON object")
    return document


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("an object has a key twice")
    return value


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value
