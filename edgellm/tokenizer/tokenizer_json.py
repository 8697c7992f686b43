"""A vocabulary in tokenizer.json (BPE or Unigram), encoded by the library tokenizers.

The library gets the parts of the file that lead from a text to ids. What comes after (special
tokens, padding, truncation, decoding) is done here: the library would follow the file without
bounds, and decodes whole texts only, no streams.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgellm.errors import EdgeLLMError, TokenizerError
from edgellm.files.bounded import read_bounded
from edgellm.files.strict_json import loads_strict, quoted
from edgellm.tokenizer.added_tokens import MAX_ID, AddedToken, Settings, read_added
from edgellm.tokenizer.detokenizer import read_decoding
from edgellm.tokenizer.json_components import check_components, read_frame
from edgellm.tokenizer.token_table import TokenTable

MAX_BYTES = 64 << 20
MAX_SCORE = 1e30  # of a piece; sums of these stay finite
DAMAGED = "tokenizer.json is damaged"
BPE_SWITCHES = ("fuse_unk", "byte_fallback", "ignore_merges")
ADDED_SWITCHES = ("special", "lstrip", "rstrip", "single_word", "normalized")


class JsonVocabulary(TokenTable):
    """The tokens of a tokenizer.json and of the files beside it.

    Args:
        document: the parsed file.
        settings: the contents of the files beside it.

    Raises:
        TokenizerError: something in it is damaged, or of a kind that no LLaMA-like model uses.
    """

    def __init__(self, document: Mapping[str, Any], settings: Settings) -> None:
        model = document.get("model")
        if not isinstance(model, Mapping):
            raise TokenizerError("tokenizer.json has no model")
        check_components(document.get("normalizer"), document.get("pre_tokenizer"))
        self.decoding = read_decoding(document.get("decoder"))
        with library_errors(DAMAGED):
            ids, library_model = _build_model(model)
        super().__init__({token_id: token for token, token_id in ids.items()})

        own = _added_tokens(document.get("added_tokens"))
        _check_order(own, ids)
        self.reserve_ids(own)
        further = {
            token_id: token
            for token_id, token in settings.added.items()
            if token.content not in self._ids
        }
        self.reserve_ids(further)
        added = own | further
        listed = {token.content: token for token in added.values()}
        for text in settings.special_texts:
            if text in self._ids:
                listed.setdefault(text, AddedToken(text, special=True))

        with library_errors(DAMAGED):
            self._tokenizer = _build_tokenizer(document, library_model, listed.values())
        self._check_ids(added)
        self.begin, self._end = read_frame(document.get("post_processor"), self._ids)
        special = settings.special_texts.union(
            token.content for token in own.values() if token.special
        )
        self.special_ids = frozenset(self._ids[text] for text in special if text in self._ids)
        self.split_token_ids = frozenset(
            self._ids[token.content] for token in listed.values() if token.splits_text
        )
        self.named: dict[str, str | None] = dict(settings.named)
        self.size = max(self._tokens) + 1

    @classmethod
    def from_file(cls, path: Path, settings: Settings) -> JsonVocabulary:
        """Return the vocabulary in a tokenizer.json. Raises TokenizerError."""
        return cls(_parse(path), settings)

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Return the ids of ``text``."""
        with library_errors("the tokenizer fails"):
            ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        if add_special_tokens:
            return [*self.begin, *ids, *self._end]
        return ids

    def _check_ids(self, added: Mapping[int, AddedToken]) -> None:
        """Refuse added tokens to which the library, which counts them through, gave other ids."""
        for token_id, token in added.items():
            if self._tokenizer.token_to_id(token.content) != token_id:
                raise TokenizerError(
                    f"added token {quoted(token.content)} is said to have the id {token_id}, "
                    "but the ids before it have gaps"
                )
            # normalized, as it is found in a text
            self._tokens[token_id] = self._tokenizer.id_to_token(token_id)


@contextmanager
def library_errors(prefix: str) -> Iterator[None]:
    """Turn whatever the Rust library raises inside, its panics included, into a TokenizerError.

    Args:
        prefix: the beginning of its message.
    """
    try:
        yield
    except EdgeLLMError:
        raise
    except BaseException as error:
        # a panic is no Exception, and its class has no public name
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = " ".join(str(error).split())[:200]
        raise TokenizerError(f"{prefix}: {reason}") from error


def _build_model(model: Mapping[str, Any]) -> tuple[dict[str, int], Any]:
    """Return the ids of the tokens, and the library's model of them."""
    kind = model.get("type")  # old files do not say it
    if kind == "BPE" or (not kind and "merges" in model):
        return _build_bpe(model)
    if kind == "Unigram" or not kind:
        return _build_unigram(model)
    raise TokenizerError(
        f"tokenizer.json holds a model of type {quoted(kind)}; edgellm knows BPE and Unigram"
    )


def _build_bpe(model: Mapping[str, Any]) -> tuple[dict[str, int], Any]:
    from tokenizers import models

    vocabulary, merges = model.get("vocab"), model.get("merges")
    # the library takes a text in their place for the name of a file, and no tokens for a model
    if not isinstance(vocabulary, dict) or not vocabulary:
        raise TokenizerError("tokenizer.json has no vocabulary")
    if not isinstance(merges, list):
        raise TokenizerError("tokenizer.json has no list of merges")
    # with these the library would look for other tokens than are decoded here
    for affix in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(affix):
            raise TokenizerError(
                f"tokenizer.json marks words by {affix}, which edgellm does not know"
            )
    options = {name: model.get(name, False) for name in BPE_SWITCHES}
    unknown = model.get("unk_token")
    if unknown is not None:
        if unknown not in vocabulary:  # the library minds only when a text needs it
            raise TokenizerError(
                f"the unknown token {quoted(unknown)} of tokenizer.json is not in its vocabulary"
            )
        options["unk_token"] = unknown
    split = [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]
    pairs = [tuple(pair) for pair in split]
    built = models.BPE(vocab=vocabulary, merges=pairs, **options)

    # types and merges are right, or the library had refused them; it takes any ids
    ids = set(vocabulary.values())
    if max(ids) >= MAX_ID:
        raise TokenizerError(f"tokenizer.json has the id {max(ids)}; ids go from 0 to {MAX_ID - 1}")
    if len(ids) < len(vocabulary):
        raise TokenizerError("tokenizer.json gives one id to two tokens")
    return dict(vocabulary), built


def _build_unigram(model: Mapping[str, Any]) -> tuple[dict[str, int], Any]:
    from tokenizers import models

    listed = model.get("vocab")
    if not isinstance(listed, list):
        raise TokenizerError("tokenizer.json has no vocabulary")
    pieces = [tuple(entry) for entry in listed]
    built = models.Unigram(pieces, model.get("unk_id"), model.get("byte_fallback", False))

    # types are right, or the library had refused them; it takes any texts and scores
    for piece, score in pieces:
        if not piece or abs(score) >= MAX_SCORE:
            raise TokenizerError(
                f"tokenizer.json has an impossible piece: {quoted([piece, score])}"
            )
    vocabulary = {piece: at for at, (piece, _) in enumerate(pieces)}
    if len(vocabulary) < len(pieces):
        raise TokenizerError("tokenizer.json has a piece twice")
    return vocabulary, built


def _added_tokens(listed: Any) -> dict[int, AddedToken]:
    """Return the added tokens of a tokenizer.json by their ids."""
    if listed is None:
        return {}
    if not isinstance(listed, list) or not all(
        isinstance(token, Mapping) and type(token.get("id")) is int for token in listed
    ):
        raise TokenizerError(
            "the added tokens of tokenizer.json must be a list of objects with an id"
        )
    by_id = {token["id"]: token for token in listed}
    if len(by_id) < len(listed) or min(by_id, default=0) < 0:
        raise TokenizerError("tokenizer.json gives one id to two added tokens, or a negative one")
    added = read_added(by_id)
    return {token_id: added[token_id] for token_id in by_id if token_id in added}


def _check_order(added: Mapping[int, AddedToken], ids: Mapping[str, int]) -> None:
    """Refuse added tokens that are not listed in the order of their ids.

    The library gives those that are no tokens of the model the next free ids in the order of the
    list, whatever ids it says: it and the file would disagree.
    """
    new = [token_id for token_id, token in added.items() if token.content not in ids]
    if new != sorted(new):
        raise TokenizerError(
            "the added tokens of tokenizer.json are not in the order of their ids",
            hint="put them in order: other programs count them through as they are listed",
        )


def _build_tokenizer(document: Mapping[str, Any], model: Any, added: Iterable[AddedToken]) -> Any:
    """Return the library's tokenizer, without anything that works after the model."""
    import tokenizers

    frame: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": document.get("normalizer"),
        "pre_tokenizer": document.get("pre_tokenizer"),
        "post_processor": None,
        "decoder": None,
        "model": {"type": "BPE", "vocab": {}, "merges": []},
    }
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(frame))
    tokenizer.model = model
    tokenizer.add_tokens(
        [
            tokenizers.AddedToken(
                token.content, **{name: getattr(token, name) for name in ADDED_SWITCHES}
            )
            for token in added
        ]
    )
    return tokenizer


def _parse(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    ``read_json`` looks at each value, which takes seconds for the 500,000 of a large vocabulary.
    """
    try:
        text = read_bounded(path, MAX_BYTES).decode("utf-8").strip()
        if text[:1] != "{" or text[-1:] != "}":  # cut off, or something else: not worth parsing
            raise TokenizerError(f"{path} is cut off, or is no JSON object")
        document = loads_strict(text)
    except TokenizerError:
        raise
    except EdgeLLMError as error:
        raise TokenizerError(error.message) from error
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise TokenizerError(f"{path} is no valid JSON: {reason}") from error
    if not isinstance(document, dict):
        raise TokenizerError(f"{path} holds no JSON object")
    return document
