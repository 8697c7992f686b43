"""The tokenizer in GGUF's metadata as the files of a model folder."""

from __future__ import annotations

import json
from typing import Any

from edgellm.chat_template.template import DEFAULT
from edgellm.converters.gguf.metadata import Metadata
from edgellm.converters.gguf.vocabulary import Vocabulary
from edgellm.converters.tokenizers.byte_level import byte_level_document, post_processor
from edgellm.converters.tokenizers.pretokenizers import (
    NFC_NORMALIZED,
    STARTS_WITH_BOS,
    WHOLE_WORDS,
    pre_tokenizer_json,
)
from edgellm.converters.tokenizers.spm_file import SPACE, Piece, piece_model
from edgellm.errors import TokenizerError
from edgellm.files.strict_json import quoted
from edgellm.tokenizer.spm_proto import CONTROL, UNKNOWN, USER_DEFINED

TEMPLATE = "tokenizer.chat_template"

MAX_SCORE = 1e30
"""Scores are logarithms of probabilities, or ranks below zero."""


def tokenizer_files(
    metadata: Metadata, vocab_size: int
) -> tuple[dict[str, bytes], dict[str, Any], list[str]]:
    """Return the tokenizer's files, the config's bos and eos token ids, and what to say.

    Args:
        metadata: the file's.
        vocab_size: rows of the embedding.

    Raises:
        TokenizerError: the tokenizer is damaged, does not fit the model, or is of a kind that
            edgellm does not know.
    """
    vocabulary = Vocabulary(metadata, vocab_size)
    if vocabulary.model == "llama":
        files, config = _sentencepiece(vocabulary)
    elif vocabulary.model == "gpt2":
        files, config = _byte_level(vocabulary)
    else:
        raise TokenizerError(
            f"the GGUF file's tokenizer is of the kind {quoted(vocabulary.model)}",
            hint="edgellm knows llama (SentencePiece) and gpt2 (BPE)",
        )
    config["bos_token"] = vocabulary.token("bos_token_id")
    config["eos_token"] = vocabulary.token("eos_token_id")
    padding = vocabulary.token("padding_token_id")
    if padding is not None:
        config["pad_token"] = padding
    templates = _templates(metadata)
    if templates.keys() <= {DEFAULT}:
        for text in templates.values():
            files["chat_template.jinja"] = text.encode()
    else:
        config["chat_template"] = [
            {"name": name, "template": text} for name, text in templates.items()
        ]
    files["tokenizer_config.json"] = (json.dumps(config, indent=2) + "\n").encode()
    token_ids = _token_ids(vocabulary)
    return files, token_ids, list(vocabulary.notes.values())


def _token_ids(vocabulary: Vocabulary) -> dict[str, Any]:
    """Return the config's token ids: one end is a number, several are a list."""
    ids: dict[str, Any] = {}
    begin = vocabulary.token_id("bos_token_id")
    if begin is not None:
        ids["bos_token_id"] = begin
    unique = vocabulary.end_ids()
    if len(unique) == 1:
        ids["eos_token_id"] = unique[0]
    elif unique:
        ids["eos_token_id"] = unique
    return ids


def _sentencepiece(vocabulary: Vocabulary) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return a SentencePiece model and its settings.

    ``legacy``: after special tokens too a text begins with a space, as llama.cpp has it.
    """
    unknown = vocabulary.token_id("unknown_token_id")
    if unknown is None:
        unknown = 0
        if UNKNOWN in vocabulary.kinds:
            unknown = vocabulary.kinds.index(UNKNOWN)
    kinds = list(vocabulary.kinds)
    kinds[unknown] = UNKNOWN
    pieces = [
        Piece(with_marked_spaces(token, kind), score, kind)
        for token, score, kind in zip(vocabulary.tokens, vocabulary.scores, kinds, strict=True)
    ]
    if any(not abs(piece.score) < MAX_SCORE for piece in pieces):
        raise TokenizerError("the GGUF file has a token with an impossible score")
    begin = vocabulary.token_id("bos_token_id")
    end = vocabulary.token_id("eos_token_id")
    model = piece_model(
        pieces,
        dummy_prefix=vocabulary.flag("add_space_prefix", True),
        roles=(unknown, _spm_id(begin), _spm_id(end)),
    )
    config = {
        "tokenizer_class": "LlamaTokenizer",
        "unk_token": vocabulary.tokens[unknown],
        "add_bos_token": vocabulary.flag("add_bos_token", True) and begin is not None,
        "add_eos_token": vocabulary.flag("add_eos_token", False) and end is not None,
        "clean_up_tokenization_spaces": False,
        "legacy": True,
    }
    return {"tokenizer.model": model}, config


def with_marked_spaces(token: str, kind: int) -> str:
    """Return a piece as SentencePiece spells it.

    llama.cpp finds user-defined ones (Gemma's runs of spaces) before it marks the spaces of a text.
    """
    if kind == USER_DEFINED:
        return token.replace(" ", SPACE)
    return token


def _spm_id(token_id: int | None) -> int:
    """Return the id as SentencePiece writes it, which has -1 for none."""
    if token_id is None:
        return -1
    return token_id


def _byte_level(vocabulary: Vocabulary) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return a tokenizer.json of byte-level BPE and its settings."""
    pre_tokenizer = vocabulary.pre_tokenizer()
    begin = end = None
    if vocabulary.flag("add_bos_token", pre_tokenizer in STARTS_WITH_BOS):
        begin = vocabulary.token_id("bos_token_id")
    if vocabulary.flag("add_eos_token", False):
        end = vocabulary.token_id("eos_token_id")
    normalizer = None
    if pre_tokenizer in NFC_NORMALIZED:
        normalizer = {"type": "NFC"}
    document = byte_level_document(
        vocabulary.tokens,
        [merge.split(" ") for merge in vocabulary.merges()],
        added=[
            (token_id, token, kind in (CONTROL, UNKNOWN))
            for token_id, (token, kind) in enumerate(
                zip(vocabulary.tokens, vocabulary.kinds, strict=True)
            )
            if kind in (CONTROL, UNKNOWN, USER_DEFINED)
        ],
        splitting=pre_tokenizer_json(pre_tokenizer),
        frame=post_processor(vocabulary.tokens, begin, end),
        normalizer=normalizer,
        whole_words=pre_tokenizer in WHOLE_WORDS,
    )
    content = json.dumps(document, ensure_ascii=False).encode()
    return {"tokenizer.json": content}, {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
    }


def _templates(metadata: Metadata) -> dict[str, str]:
    """Return the chat templates by name."""
    templates = {}
    for key in metadata:
        name = DEFAULT
        if key.startswith(f"{TEMPLATE}."):
            name = key.removeprefix(f"{TEMPLATE}.")
        elif key != TEMPLATE:
            continue
        text = metadata.text(key)
        if text is not None:
            templates[name] = text
    return templates
