"""A vocabulary in tokenizer.json (BPE or Unigram), encoded by the library tokenizers.

The library gets the parts of the file that lead from a text to ids. What comes after (special
tokens, padding, truncation, decoding) is done here: the library would follow the file without
bounds, and decodes whole texts only, no streams.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from edgellm.errors import EdgeLLMError, TokenizerError
from edgellm.files.bounded import read_bounded
from edgellm.files.strict_json import loads_strict, quoted
from edgellm.tokenizer.added_tokens import (
    SWITCHES,
    AddedToken,
    Settings,
    read_added,
    within_rows,
)
from edgellm.tokenizer.detokenizer import read_decoding, steps_of
from edgellm.tokenizer.json_components import check_components, read_frame
from edgellm.tokenizer.json_model import (
    build_model,
    document_of_merges,
    library_errors,
    merged_tokens,
)
from edgellm.tokenizer.token_table import TokenTable

MAX_BYTES = 64 << 20
END_OF_TEXT = dict.fromkeys(("unk_token", "eos_token", "pad_token"), "<|endoftext|>")
"""Roles that the classes of transformers for vocab.json give where a folder names none."""

DAMAGED = "tokenizer.json is damaged"


class _Marked(NamedTuple):
    """The library's tokenizer for texts in which control tokens are marked.

    Attributes:
        of: the mark and the control tokens.
        tokenizer: the library's.
        originals: ids of added tokens by those that they have there.
    """

    of: tuple[str, frozenset[int]]
    tokenizer: Any
    originals: Mapping[int, int]


class JsonVocabulary(TokenTable):
    """The tokens of a tokenizer.json and of the files beside it.

    Args:
        document: the parsed file.
        settings: the contents of the files beside it.
        rows: how many ids the model knows.

    Raises:
        TokenizerError: something in it is damaged, or of a kind that no LLaMA-like model uses.
    """

    def __init__(
        self, document: Mapping[str, Any], settings: Settings, rows: int | None = None
    ) -> None:
        model = document.get("model")
        if not isinstance(model, Mapping):
            raise TokenizerError("tokenizer.json has no model")
        check_components(document.get("normalizer"), document.get("pre_tokenizer"))
        self.decoding = read_decoding(document.get("decoder"))
        with library_errors(DAMAGED):
            ids, library_model = build_model(model)
        super().__init__({token_id: token for token, token_id in ids.items()})

        own = within_rows(_added_tokens(document.get("added_tokens")), rows, own=ids)
        _check_order(own, ids)
        self.reserve_ids(own)
        further = {
            token_id: token
            for token_id, token in within_rows(settings.added, rows, own=ids).items()
            if token.content not in self._ids
        }
        self.reserve_ids(further)
        added = own | further
        listed = {token.content: token for token in added.values()}
        special = settings.special_texts
        for text in special:
            if text in self._ids:
                listed.setdefault(text, AddedToken(text, special=True))

        with library_errors(DAMAGED):
            self._tokenizer = _build_tokenizer(document, library_model, listed.values())
        self._check_ids(added, is_normalized=document.get("normalizer") is not None)
        if self.decoding.byte_level:
            with library_errors(DAMAGED):
                literal = _literal_ids(added, ids, document)
            self.decoding = replace(self.decoding, literal=literal)
        self.begin, self.end = read_frame(document.get("post_processor"), self._ids)
        special = special.union(token.content for token in own.values() if token.special)
        self.special_ids: frozenset[int] = frozenset(
            self._ids[text] for text in special if text in self._ids
        )
        self.split_token_ids: frozenset[int] = frozenset(
            self._ids[token.content] for token in listed.values() if token.splits_text
        )
        self.named: dict[str, str | None] = dict(settings.named)
        self.size: int = max(self._tokens) + 1
        self._marked: _Marked | None = None

    @classmethod
    def from_file(cls, path: Path, settings: Settings, rows: int | None) -> JsonVocabulary:
        """Return the vocabulary in a tokenizer.json. Raises TokenizerError."""
        return cls(_parse(path), settings, rows)

    @classmethod
    def from_merges(cls, folder: Path, settings: Settings, rows: int | None) -> JsonVocabulary:
        """Return the vocabulary in vocab.json and merges.txt. Raises TokenizerError."""
        roles = dict(END_OF_TEXT)
        if str(settings.config.get("tokenizer_class")).startswith("GPT2"):
            roles["bos_token"] = roles["eos_token"]
        settings = replace(settings, named=roles | dict(settings.named))
        return cls(read_merges(folder, settings), settings, rows)

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text``."""
        with library_errors("the tokenizer fails"):
            ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def encode_marked(self, text: str, mark: str, control: frozenset[int]) -> list[int]:
        """Return the ids of ``text``, where control tokens are such behind ``mark`` alone."""
        marked = self._marked
        if marked is None or marked.of != (mark, control):
            self._marked = marked = self._with_marks(mark, control)
        originals = marked.originals
        with library_errors("the tokenizer fails"):
            found: list[int] = marked.tokenizer.encode(text, add_special_tokens=False).ids
        self.refuse_control(text, [own for own in found if own not in originals], control)
        return [originals.get(token_id, token_id) for token_id in found]

    def _with_marks(self, mark: str, control: frozenset[int]) -> _Marked:
        """Return the library's tokenizer with marked control tokens."""
        import tokenizers

        with library_errors(DAMAGED):
            marked = tokenizers.Tokenizer(self._tokenizer.model)
            for part in ("normalizer", "pre_tokenizer"):
                if getattr(self._tokenizer, part) is not None:
                    setattr(marked, part, getattr(self._tokenizer, part))
            originals: dict[int, int] = {}
            # one by one: each gets the next free id, whatever it is in the file
            for token_id, token in sorted(self._tokenizer.get_added_tokens_decoder().items()):
                content = mark + token.content if token_id in control else token.content
                switches = {name: getattr(token, name) for name in SWITCHES}
                switches["normalized"] = token.normalized
                marked.add_tokens([tokenizers.AddedToken(content, **switches)])
                own = marked.token_to_id(content)
                assert own is not None, "it was added"
                originals[own] = token_id
        return _Marked((mark, control), marked, originals)

    def _check_ids(self, added: Mapping[int, AddedToken], *, is_normalized: bool) -> None:
        """Refuse added tokens to which the library, which counts them through, gave other ids."""
        given = map(self._tokenizer.token_to_id, [token.content for token in added.values()])
        for (token_id, token), given_id in zip(added.items(), given, strict=True):
            if given_id != token_id:
                raise TokenizerError(
                    f"added token {quoted(token.content)} is said to have the id {token_id}, "
                    "but the ids before it have gaps"
                )
            if is_normalized and token.normalized:
                # as it is found in a text
                self._tokens[token_id] = self._tokenizer.id_to_token(token_id)


def read_merges(folder: Path, settings: Settings) -> dict[str, Any]:
    """Return vocab.json and merges.txt as a tokenizer.json. Raises TokenizerError."""
    return document_of_merges(_parse(folder / "vocab.json"), folder / "merges.txt", settings)


def _added_tokens(listed: Any) -> dict[int, AddedToken]:
    """Return the added tokens of a tokenizer.json by their ids."""
    if listed is None:
        return {}
    is_list = isinstance(listed, list) and {*map(type, listed)} <= {dict}
    if not is_list or not {type(token.get("id")) for token in listed} <= {int}:
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

    The library gives those that are not tokens of the model the next free ids in the order of the
    list, whatever ids it says: it and the file would disagree.
    """
    new = [token_id for token_id, token in added.items() if token.content not in ids]
    if new != sorted(new):
        raise TokenizerError(
            "the added tokens of tokenizer.json are not in the order of their ids",
            hint="put them in order: other programs number them as they are listed",
        )


def _literal_ids(
    added: Mapping[int, AddedToken], ids: Mapping[str, int], document: Mapping[str, Any]
) -> frozenset[int]:
    """Return the added tokens whose letters are text, where those of others stand for bytes.

    A token that merging can make too is one of bytes, and so is one that is looked for in a text
    whose letters stand for bytes already.
    """
    steps = steps_of(document.get("normalizer"), "normalizers")
    letters_are_bytes = any(step["type"] == "ByteLevel" for step in steps)
    # ASCII is the same either way
    beyond = {key: token for key, token in added.items() if not token.content.isascii()}
    in_model = {token.content for token in beyond.values()} & ids.keys()
    if in_model and "merges" in document["model"]:
        in_model &= merged_tokens(document["model"])
    return frozenset(
        key
        for key, token in beyond.items()
        if token.content not in in_model and not (letters_are_bytes and token.normalized)
    )


def _build_tokenizer(document: Mapping[str, Any], model: Any, added: Collection[AddedToken]) -> Any:
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
    written = {each: _switches(*each) for each in {token[1:] for token in added}}
    tokenizer.add_tokens(
        [tokenizers.AddedToken(token.content, **written[token[1:]]) for token in added]
    )
    return tokenizer


def _switches(special: bool, *others: bool) -> dict[str, bool]:
    """Return the switches of an added token without those that the library takes anyway."""
    token = AddedToken("", special, *others)._asdict()
    usual = AddedToken("", normalized=not special)._asdict()
    return dict(token.items() - usual.items())


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
        raise TokenizerError(f"{path} is not valid JSON: {reason}") from error
    if not isinstance(document, dict):
        raise TokenizerError(f"{path} is not a JSON object")
    return document
