"""A model folder's tokenizer as GGUF's metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.chat_template.template import find_templates
from edgellm.converters.gguf.pretokenizers import splitting_in
from edgellm.converters.gguf.tokenizer import ENDS, KEY, TEMPLATE
from edgellm.converters.tokenizers.spm_file import Piece
from edgellm.errors import UnsupportedModelError
from edgellm.tokenizer import Tokenizer
from edgellm.tokenizer.added_tokens import Settings, read_settings
from edgellm.tokenizer.detokenizer import BYTE_TOKEN, steps_of
from edgellm.tokenizer.spm_proto import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    read_piece_model,
)

ADDED_SCORE = -1000.0
"""Of tokens that are never merged; what llama.cpp's own converter writes."""

ADD_SPACE = f"{KEY}add_space_prefix"
NO_SPLITTING = "llama.cpp knows no tokenizer that cuts texts like this one"


def vocabulary_metadata(folder: Path, vocabulary: int, ends: frozenset[int]) -> dict[str, Any]:
    """What a GGUF file says of a folder's tokenizer, a token for each of the embedding's ``vocabulary`` rows.

    Args:
        folder: the model folder.
        vocabulary: rows of the embedding.
        ends: ids that end an answer, by the model's config.

    Raises:
        TokenizerError: it is missing or damaged, or does not fit the model.
        UnsupportedModelError: llama.cpp has no such tokenizer.
    """
    tokenizer = Tokenizer.from_folder(folder, vocab_size=vocabulary)
    settings = read_settings(folder)
    if (folder / "tokenizer.json").exists():
        document = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        metadata, pieces = _from_json(document, settings)
    else:
        metadata, pieces = _from_model((folder / "tokenizer.model").read_bytes(), settings)
    listed = [
        pieces.get(place) or Piece(f"[PAD{place}]", ADDED_SCORE, UNUSED)
        for place in range(vocabulary)
    ]
    metadata[f"{KEY}tokens"] = [piece.text for piece in listed]
    metadata[f"{KEY}token_type"] = np.array([piece.kind for piece in listed], np.int32)
    if metadata[f"{KEY}model"] == "llama":
        metadata[f"{KEY}scores"] = np.array([piece.score for piece in listed], np.float32)
    begin, around = tokenizer.bos_token_id, tokenizer.encode("")
    if begin is not None:
        metadata[f"{KEY}bos_token_id"] = begin
    metadata[f"{KEY}add_bos_token"] = around[:1] == [begin]
    own = [*sorted(tokenizer.eos_token_ids), *sorted(ends)]
    metadata |= {f"{KEY}{key}": place for key, place in zip(ENDS, dict.fromkeys(own), strict=False)}
    metadata[f"{KEY}add_eos_token"] = bool(around[1:] if around[:1] == [begin] else around)
    unknown = next((place for place, piece in pieces.items() if piece.kind == UNKNOWN), None)
    if unknown is not None:
        metadata[f"{KEY}unknown_token_id"] = unknown
    for name, text in find_templates(folder, settings.config).items():
        metadata[TEMPLATE if name == "default" else f"{TEMPLATE}.{name}"] = text
    return metadata


def _from_model(data: bytes, settings: Settings) -> tuple[dict[str, Any], dict[int, Piece]]:
    """A SentencePiece model; added tokens replace its pieces and come behind them."""
    model = read_piece_model(data)
    if not model.merging:
        raise UnsupportedModelError(
            "llama.cpp merges pieces, and this SentencePiece model is not made for that"
        )
    pieces = dict(enumerate(map(Piece, model.pieces, model.scores, model.kinds)))
    metadata: dict[str, Any] = {f"{KEY}model": "llama", f"{KEY}pre": "default"}
    metadata |= {ADD_SPACE: model.dummy_prefix and settings.flag("add_prefix_space", True)}
    return metadata, pieces | _added(settings, pieces)


def _from_json(
    document: Mapping[str, Any], settings: Settings
) -> tuple[dict[str, Any], dict[int, Piece]]:
    model = document["model"]
    if not isinstance(model.get("vocab"), dict):
        raise UnsupportedModelError(
            "llama.cpp merges pieces, and this tokenizer.json is not made for that"
        )
    merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    steps = steps_of(document.get("pre_tokenizer"), "pretokenizers")
    byte_level = any(step.get("type") == "ByteLevel" for step in steps)
    unknown = model.get("unk_token")
    ranks: dict[str, int] = {}
    for rank, (first, second) in enumerate(merges):
        ranks.setdefault(first + second, rank)
    pieces = {
        place: Piece(
            token,
            -float(ranks.get(token, len(merges))),
            _kind(token, unknown, bytes_too=not byte_level),
        )
        for token, place in model["vocab"].items()
    }
    for token in document.get("added_tokens") or []:
        kind = (
            UNKNOWN
            if token["content"] == unknown
            else CONTROL
            if token.get("special")
            else USER_DEFINED
        )
        pieces[token["id"]] = Piece(token["content"], ADDED_SCORE, kind)
    pieces |= _added(settings, pieces)
    if not byte_level:
        metadata: dict[str, Any] = {f"{KEY}model": "llama", f"{KEY}pre": "default"}
        return metadata | {ADD_SPACE: _has_prefix(document, steps)}, pieces
    # where nothing merges, no cut shows
    splitting = splitting_in(steps) or (None if merges else "gpt-2")
    if splitting is None or any(len(part.split()) != 1 for merge in merges for part in merge):
        raise UnsupportedModelError(NO_SPLITTING)
    joined = [f"{first} {second}" for first, second in merges]
    return {f"{KEY}model": "gpt2", f"{KEY}pre": splitting, f"{KEY}merges": joined}, pieces


def _kind(token: str, unknown: Any, *, bytes_too: bool) -> int:
    if token == unknown:
        return UNKNOWN
    return BYTE if bytes_too and BYTE_TOKEN.fullmatch(token) else NORMAL


def _added(settings: Settings, pieces: Mapping[int, Piece]) -> dict[int, Piece]:
    """The tokens of the small files; one that the vocabulary has as unknown stays so."""
    special = settings.special_texts
    return {
        place: Piece(
            token.content,
            ADDED_SCORE,
            CONTROL if token.special or token.content in special else USER_DEFINED,
        )
        for place, token in settings.added.items()
        if place not in pieces or pieces[place].kind in (NORMAL, UNUSED)
    }


def _has_prefix(document: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a text gets a space in front."""
    normalizers = steps_of(document.get("normalizer"), "normalizers")
    return any(step.get("type") == "Prepend" for step in normalizers) or any(
        step.get("type") == "Metaspace" and step.get("prepend_scheme", "always") != "never"
        for step in steps
    )
