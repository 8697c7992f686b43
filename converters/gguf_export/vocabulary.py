"""A model folder's tokenizer as GGUF's metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.chat_template.end_texts import END_TEXTS
from edgellm.chat_template.template import DEFAULT, find_templates
from edgellm.converters.gguf.tokenizer import TEMPLATE
from edgellm.converters.gguf.vocabulary import END_KEYS, KEY
from edgellm.converters.gguf_export.token_notes import (
    added_notes,
    byte_level_notes,
    frame_notes,
    piece_json_notes,
    sentencepiece_notes,
)
from edgellm.converters.tokenizers.pretokenizers import pre_tokenizer_of
from edgellm.converters.tokenizers.spm_file import SPACE, Piece
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
from edgellm.tokenizer.tokenizer_json import read_merges

ADDED_SCORE = -1000.0
"""Of tokens that are never merged; what llama.cpp's own converter writes."""

ADD_SPACE = f"{KEY}add_space_prefix"

SHARE_FOLDER = "share the folder itself: edgellm and mlx-lm open it"
"""The next step where llama.cpp has nothing like a model or its tokenizer."""


def vocabulary_metadata(
    folder: Path, vocab_size: int, ends: frozenset[int]
) -> tuple[dict[str, Any], list[str]]:
    """Return GGUF's metadata of a folder's tokenizer, and where llama.cpp differs from it.

    Args:
        folder: the model folder.
        vocab_size: rows of the embedding, each of which becomes a token.
        ends: ids that end a completion, by the model's config.

    Raises:
        TokenizerError: it is missing or damaged, or does not fit the model.
        UnsupportedModelError: llama.cpp has no such tokenizer, or needs what it lacks.
    """
    tokenizer = Tokenizer.from_folder(folder, vocab_size=vocab_size)
    settings = read_settings(folder)
    if (folder / "tokenizer.json").exists():
        document = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        metadata, pieces, notes = _from_json(document, settings)
    elif not (folder / "tokenizer.model").exists():
        metadata, pieces, notes = _from_json(read_merges(folder, settings), settings)
    else:
        data = (folder / "tokenizer.model").read_bytes()
        metadata, pieces, notes = _from_sentencepiece(data, settings)
    rows = []
    for token_id in range(vocab_size):
        piece = pieces.get(token_id) or Piece(f"[PAD{token_id}]", ADDED_SCORE, UNUSED)
        if piece.kind == USER_DEFINED and metadata[f"{KEY}model"] == "llama":
            # which llama.cpp finds before it marks the spaces of a text
            piece = replace(piece, text=piece.text.replace(SPACE, " "))
        rows.append(piece)
    _require_usable([piece.text for piece in rows], metadata[f"{KEY}model"])
    metadata[f"{KEY}tokens"] = [piece.text for piece in rows]
    metadata[f"{KEY}token_type"] = np.array([piece.kind for piece in rows], np.int32)
    if metadata[f"{KEY}model"] == "llama":
        metadata[f"{KEY}scores"] = np.array([piece.score for piece in rows], np.float32)
    metadata |= _special_tokens(tokenizer, ends)
    for token_id, piece in pieces.items():
        if piece.kind == UNKNOWN:
            metadata[f"{KEY}unknown_token_id"] = token_id
            break
    for name, text in find_templates(folder, settings.config).items():
        key = TEMPLATE
        if name != DEFAULT:
            key = f"{TEMPLATE}.{name}"
        metadata[key] = text
    return metadata, notes + frame_notes(tokenizer, metadata)


def _require_usable(texts: Sequence[str], kind: str) -> None:
    """Raise UnsupportedModelError where tokens lack what llama.cpp takes for granted."""
    if len(set(texts)) < len(texts):
        raise UnsupportedModelError(
            "two tokens of this model are written alike, and llama.cpp tells tokens by their text",
            hint=SHARE_FOLDER,
        )
    if kind == "llama" and not {f"<0x{byte:02X}>" for byte in range(256)} <= set(texts):
        raise UnsupportedModelError(
            "llama.cpp needs a token for each of the 256 bytes, and this tokenizer lacks some",
            hint=SHARE_FOLDER,
        )


def _special_tokens(tokenizer: Tokenizer, ends: frozenset[int]) -> dict[str, Any]:
    """Return the tokens that begin and end a text, and whether they are put around every one."""
    metadata: dict[str, Any] = {}
    begin = tokenizer.bos_token_id
    if begin is not None:
        metadata[f"{KEY}bos_token_id"] = begin
    around = tokenizer.encode("")
    starts = around[:1] == [begin]
    metadata[f"{KEY}add_bos_token"] = starts
    # GGUF has a key for each of three: the tokenizer's own first, then what llama.cpp does not know
    known = {tokenizer.token_to_id(text) for text in END_TEXTS}
    others = sorted(ends, key=lambda token_id: (token_id in known, token_id))
    own = dict.fromkeys([*sorted(tokenizer.eos_token_ids), *others])
    for key, token_id in zip(END_KEYS, own, strict=False):
        metadata[f"{KEY}{key}"] = token_id
    metadata[f"{KEY}add_eos_token"] = len(around) > int(starts)
    return metadata


def _from_sentencepiece(
    data: bytes, settings: Settings
) -> tuple[dict[str, Any], dict[int, Piece], list[str]]:
    """Return a SentencePiece model's metadata, pieces and notes; added tokens come on top."""
    model = read_piece_model(data)
    if not model.merging:
        raise UnsupportedModelError(
            "llama.cpp merges pieces, and this SentencePiece model is not made for that",
            hint=SHARE_FOLDER,
        )
    pieces = dict(enumerate(map(Piece, model.pieces, model.scores, model.kinds)))
    add_space = model.dummy_prefix and settings.flag("add_prefix_space", True)
    notes = sentencepiece_notes(model, settings, adds_space=add_space)
    return _llama_metadata(add_space), pieces | _added(settings, pieces), notes


def _from_json(
    document: Mapping[str, Any], settings: Settings
) -> tuple[dict[str, Any], dict[int, Piece], list[str]]:
    """Return a tokenizer.json's metadata, pieces and notes."""
    model = document["model"]
    if not isinstance(model.get("vocab"), dict):
        raise UnsupportedModelError(
            "llama.cpp merges pieces, and this tokenizer.json is not made for that",
            hint=SHARE_FOLDER,
        )
    merges = [_pair(merge) for merge in model["merges"]]
    steps = steps_of(document.get("pre_tokenizer"), "pretokenizers")
    byte_level = any(step.get("type") == "ByteLevel" for step in steps)
    pieces = _json_pieces(document, merges, byte_level=byte_level)
    pieces |= _added(settings, pieces)
    notes = added_notes(document)
    if not byte_level:
        add_space = _adds_space(document, steps)
        notes += piece_json_notes(document, merges, adds_space=add_space)
        return _llama_metadata(add_space), pieces, notes
    pre_tokenizer = pre_tokenizer_of(steps)
    if pre_tokenizer is None and not merges:
        pre_tokenizer = "gpt-2"  # where nothing merges, no cut shows
    # GGUF parts the two tokens of a merge by a space
    spaced = any(len(token.split()) != 1 for merge in merges for token in merge)
    if pre_tokenizer is None or spaced:
        raise UnsupportedModelError(
            "llama.cpp knows no tokenizer that cuts texts like this one", hint=SHARE_FOLDER
        )
    metadata = {
        f"{KEY}model": "gpt2",
        f"{KEY}pre": pre_tokenizer,
        f"{KEY}merges": [f"{first} {second}" for first, second in merges],
    }
    return metadata, pieces, notes + byte_level_notes(document, pre_tokenizer)


def _llama_metadata(add_space: bool) -> dict[str, Any]:
    return {f"{KEY}model": "llama", f"{KEY}pre": "default", ADD_SPACE: add_space}


def _pair(merge: str | list[str]) -> list[str]:
    """Return a merge's two tokens; older files have them in one text."""
    if isinstance(merge, str):
        return merge.split(" ")
    return merge


def _json_pieces(
    document: Mapping[str, Any], merges: Sequence[Sequence[str]], *, byte_level: bool
) -> dict[int, Piece]:
    """Return a tokenizer.json's tokens by id; the earlier one is merged, the higher its score."""
    model = document["model"]
    unknown = model.get("unk_token")
    ranks: dict[str, int] = {}
    for rank, (first, second) in enumerate(merges):
        ranks.setdefault(first + second, rank)
    pieces = {}
    for token, token_id in model["vocab"].items():
        kind = NORMAL
        if token == unknown:
            kind = UNKNOWN
        elif not byte_level and BYTE_TOKEN.fullmatch(token):
            kind = BYTE
        pieces[token_id] = Piece(token, -float(ranks.get(token, len(merges))), kind)
    for added in document.get("added_tokens") or []:
        kind = USER_DEFINED
        if added["content"] == unknown:
            kind = UNKNOWN
        elif added.get("special"):
            kind = CONTROL
        pieces[added["id"]] = Piece(added["content"], ADDED_SCORE, kind)
    return pieces


def _added(settings: Settings, pieces: Mapping[int, Piece]) -> dict[int, Piece]:
    """Return the tokens of the small files; one that the vocabulary has as unknown stays so."""
    added = {}
    special = settings.special_texts
    for token_id, token in settings.added.items():
        if token_id in pieces and pieces[token_id].kind not in (NORMAL, UNUSED):
            continue
        kind = USER_DEFINED
        if token.special or token.content in special:
            kind = CONTROL
        added[token_id] = Piece(token.content, ADDED_SCORE, kind)
    return added


def _adds_space(document: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a text gets a space in front."""
    normalizers = steps_of(document.get("normalizer"), "normalizers")
    if any(step.get("type") == "Prepend" for step in normalizers):
        return True
    return any(
        step.get("type") == "Metaspace" and step.get("prepend_scheme", "always") != "never"
        for step in steps
    )
