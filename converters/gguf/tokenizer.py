"""The tokenizer in GGUF's metadata as the files of a model folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from edgellm.chat_template.template import DEFAULT
from edgellm.converters.gguf.pretokenizers import (
    BEGUN,
    COMPOSED,
    WHOLE_WORDS,
    pre_tokenizer_of,
    splitting_of,
)
from edgellm.converters.tokenizers.byte_level import byte_level_document
from edgellm.converters.tokenizers.spm_file import Piece, piece_model
from edgellm.errors import TokenizerError
from edgellm.files.atomic import write_file
from edgellm.files.strict_json import quoted
from edgellm.tokenizer import Tokenizer
from edgellm.tokenizer.spm_proto import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED

KEY = "tokenizer.ggml."
TEMPLATE = "tokenizer.chat_template"
ENDS = ("eos_token_id", "eot_token_id", "eom_token_id")
"""The keys of tokens that end an answer."""


def tokenizer_files(
    metadata: Mapping[str, Any], vocabulary: int
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The tokenizer's files, checked to load, and the config's bos_token_id and eos_token_id.

    Args:
        metadata: the file's.
        vocabulary: rows of the embedding.

    Raises:
        TokenizerError: the tokenizer is damaged, does not fit the model, or is of a kind that
            edgellm does not know.
        TemplateError: the chat template is too large.
    """
    said = _Said(metadata, vocabulary)
    kind = metadata.get(f"{KEY}model")
    if kind == "llama":
        files, config = _pieces(said)
    elif kind == "gpt2":
        files, config = _byte_level(said)
    else:
        raise TokenizerError(
            f"the GGUF file's tokenizer is of the kind {quoted(kind)}",
            hint="edgellm knows llama (SentencePiece) and gpt2 (BPE)",
        )
    ends = list(dict.fromkeys(end for key in ENDS if (end := said.place(key)) is not None))
    config |= {"bos_token": said.named("bos_token_id"), "eos_token": said.named("eos_token_id")}
    config |= (
        {"pad_token": said.named("padding_token_id")}
        if said.place("padding_token_id") is not None
        else {}
    )
    templates = _templates(metadata)
    if len(templates) > 1 or (templates and DEFAULT not in templates):
        config["chat_template"] = [
            {"name": name, "template": text} for name, text in templates.items()
        ]
    elif templates:
        files["chat_template.jinja"] = templates[DEFAULT].encode()
    files["tokenizer_config.json"] = (json.dumps(config, indent=2) + "\n").encode()
    with TemporaryDirectory(prefix="edgellm-") as folder:  # looked at as it will be read
        for name, content in files.items():
            write_file(Path(folder) / name, [content])
        Tokenizer.from_folder(folder, vocab_size=vocabulary)
    ids = {
        "bos_token_id": said.place("bos_token_id"),
        "eos_token_id": ends[0] if len(ends) == 1 else ends or None,
    }
    return files, {name: value for name, value in ids.items() if value is not None}


class _Said:
    """What metadata say of the tokens."""

    def __init__(self, metadata: Mapping[str, Any], vocabulary: int) -> None:
        self._metadata = metadata
        tokens = metadata.get(f"{KEY}tokens")
        if not isinstance(tokens, list) or not tokens:
            raise TokenizerError("the GGUF file has no list of tokens")
        if len(tokens) > vocabulary:
            raise TokenizerError(
                f"the GGUF file has {len(tokens)} tokens and an embedding of {vocabulary} rows"
            )
        self.tokens: list[str] = tokens
        kinds = [int(kind) for kind in self._numbers("token_type", NORMAL)]
        scores = [float(score) for score in self._numbers("scores", 0.0)]
        count = len(tokens)
        while count and kinds[count - 1] == UNUSED:  # what pads the vocabulary to the embedding
            count -= 1
        self.tokens, self.kinds, self.scores = tokens[:count], kinds[:count], scores[:count]
        if any(not NORMAL <= kind <= BYTE for kind in self.kinds):
            raise TokenizerError("the GGUF file has a token of an unknown type")
        if len(set(self.tokens)) < len(self.tokens):
            raise TokenizerError("the GGUF file has a token twice")

    def _numbers(self, key: str, default: float) -> Sequence[float]:
        values = self._metadata.get(KEY + key)
        if values is None:
            return [default] * len(self.tokens)
        values = np.atleast_1d(values)
        if values.dtype.kind not in "iuf" or len(values) != len(self.tokens):
            raise TokenizerError(
                f"the GGUF file's {KEY}{key} is not one number for each of {len(self.tokens)} tokens"
            )
        return values.tolist()  # type: ignore[no-any-return]

    def flag(self, key: str, default: bool) -> bool:
        value = self._metadata.get(KEY + key, default)
        if not isinstance(value, bool):
            raise TokenizerError(
                f"the GGUF file's {KEY}{key} is {quoted(value)}; it must be true or false"
            )
        return value

    def place(self, key: str) -> int | None:
        """The id of a token with a role; None: the file names none."""
        value = self._metadata.get(KEY + key)
        if value is None:
            return None
        if type(value) is not int or not 0 <= value < len(self.tokens):
            raise TokenizerError(
                f"the GGUF file's {KEY}{key} is {quoted(value)}, which is no token"
            )
        return value

    def named(self, key: str) -> str | None:
        place = self.place(key)
        return None if place is None else self.tokens[place]

    def listed(self, key: str) -> list[str]:
        values = self._metadata.get(KEY + key)
        if not isinstance(values, list):
            raise TokenizerError(f"the GGUF file has no {KEY}{key}")
        return values

    def splitting(self) -> str:
        name = self._metadata.get(f"{KEY}pre")
        if name is None or name == "default":
            raise TokenizerError(
                f"the GGUF file does not say how its tokenizer cuts a text ({KEY}pre)",
                hint="it was made before llama.cpp knew; take a newer one, or the original model",
            )
        known = splitting_of(name) if isinstance(name, str) else None
        if known is None:
            raise TokenizerError(
                f"the GGUF file's tokenizer cuts texts as {quoted(name)}, which edgellm does not know",
                hint="convert the original model instead",
            )
        return known


def _pieces(said: _Said) -> tuple[dict[str, bytes], dict[str, Any]]:
    """A SentencePiece model. After special tokens too a text begins with a space, as llama.cpp has it."""
    unknown = said.place("unknown_token_id")
    if unknown is None:
        unknown = said.kinds.index(UNKNOWN) if UNKNOWN in said.kinds else 0
    kinds = [UNKNOWN if place == unknown else kind for place, kind in enumerate(said.kinds)]
    pieces = [Piece(*piece) for piece in zip(said.tokens, said.scores, kinds, strict=True)]
    if any(not abs(piece.score) < 1e30 for piece in pieces):
        raise TokenizerError("the GGUF file has a token with an impossible score")
    begin, end = said.place("bos_token_id"), said.place("eos_token_id")
    roles = (unknown, -1 if begin is None else begin, -1 if end is None else end)
    data = piece_model(pieces, dummy_prefix=said.flag("add_space_prefix", True), roles=roles)
    config = {
        "tokenizer_class": "LlamaTokenizer",
        "unk_token": said.tokens[unknown],
        "add_bos_token": said.flag("add_bos_token", True) and begin is not None,
        "add_eos_token": said.flag("add_eos_token", False) and end is not None,
        "clean_up_tokenization_spaces": False,
        "legacy": True,
    }
    return {"tokenizer.model": data}, config


def _byte_level(said: _Said) -> tuple[dict[str, bytes], dict[str, Any]]:
    splitting = said.splitting()
    begin = said.place("bos_token_id") if said.flag("add_bos_token", splitting in BEGUN) else None
    end = said.place("eos_token_id") if said.flag("add_eos_token", False) else None
    document = byte_level_document(
        said.tokens,
        [merge.split(" ") for merge in said.listed("merges")],
        added=[
            (place, token, kind in (CONTROL, UNKNOWN))
            for place, (token, kind) in enumerate(zip(said.tokens, said.kinds, strict=True))
            if kind in (CONTROL, UNKNOWN, USER_DEFINED)
        ],
        splitting=pre_tokenizer_of(splitting),
        frame=_frame(said.tokens, begin, end),
        normalizer={"type": "NFC"} if splitting in COMPOSED else None,
        whole_words=splitting in WHOLE_WORDS,
    )
    content = json.dumps(document, ensure_ascii=False).encode()
    return {"tokenizer.json": content}, {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
    }


def _frame(tokens: Sequence[str], begin: int | None, end: int | None) -> dict[str, Any] | None:
    """The post-processor that puts tokens around a text."""
    if begin is None and end is None:
        return None
    text = [{"Sequence": {"id": "A", "type_id": 0}}]
    before, after = (
        [] if place is None else [{"SpecialToken": {"id": tokens[place], "type_id": 0}}]
        for place in (begin, end)
    )
    special = {
        tokens[place]: {"id": tokens[place], "ids": [place], "tokens": [tokens[place]]}
        for place in (begin, end)
        if place is not None
    }
    pair = [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}]
    return {
        "type": "TemplateProcessing",
        "single": [*before, *text, *after],
        "pair": pair,
        "special_tokens": special,
    }


def _templates(metadata: Mapping[str, Any]) -> dict[str, str]:
    """The chat templates by name."""
    found = {DEFAULT: metadata[TEMPLATE]} if TEMPLATE in metadata else {}
    found |= {
        key.removeprefix(f"{TEMPLATE}."): text
        for key, text in metadata.items()
        if key.startswith(f"{TEMPLATE}.")
    }
    if not all(isinstance(text, str) for text in found.values()):
        raise TokenizerError("the GGUF file has a chat template that is no text")
    return found
