"""A SentencePiece model written from its pieces: the few fields that byte-pair encoding needs."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from edgellm.tokenizer.spm_proto import BYTE, BYTES, FIXED32, NORMAL, VARINT

# Fields of ModelProto, TrainerSpec and NormalizerSpec in sentencepiece_model.proto.
PIECES, TRAINER, NORMALIZER = 1, 2, 3
MODEL_TYPE, BYTE_FALLBACK, UNK_ID, BOS_ID, EOS_ID, PAD_ID = 3, 35, 40, 41, 42, 43
NAME, ADD_DUMMY_PREFIX, REMOVE_EXTRA_WHITESPACES = 1, 3, 4
BPE = 2
MASK = (1 << 64) - 1
"""Protobuf writes a negative number with 64 bits."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A token: how it is spelled, with ``▁`` for a space; its score; its kind, as in ``edgellm.tokenizer.spm_proto``."""

    text: str
    score: float
    kind: int


def piece_model(
    pieces: Sequence[Piece], *, dummy_prefix: bool = True, roles: tuple[int, int, int] = (0, 1, 2)
) -> bytes:
    """The bytes of a ``tokenizer.model``; ``roles`` are the ids of unknown, beginning and end (-1: none).

    Bytes that no piece has become byte pieces if all 256 are there; else what looks like one is
    plain text.
    """
    fallback = len({piece.text for piece in pieces if piece.kind == BYTE}) == 256
    written = []
    for piece in pieces:
        kind = piece.kind if fallback or piece.kind != BYTE else NORMAL
        content = (
            _bytes(1, piece.text.encode())
            + _key(2, FIXED32)
            + struct.pack("<f", piece.score)
            + _number(3, kind)
        )
        written.append(_bytes(PIECES, content))
    trainer = _number(MODEL_TYPE, BPE) + _number(BYTE_FALLBACK, fallback)
    trainer += b"".join(
        _number(*field)
        for field in zip((UNK_ID, BOS_ID, EOS_ID, PAD_ID), (*roles, -1), strict=True)
    )
    normalizer = (
        _bytes(NAME, b"identity")
        + _number(ADD_DUMMY_PREFIX, dummy_prefix)
        + _number(REMOVE_EXTRA_WHITESPACES, 0)
    )
    return b"".join([*written, _bytes(TRAINER, trainer), _bytes(NORMALIZER, normalizer)])


def _key(field: int, wire: int) -> bytes:
    return _varint(field << 3 | wire)


def _number(field: int, value: int) -> bytes:
    return _key(field, VARINT) + _varint(int(value) & MASK)


def _bytes(field: int, content: bytes) -> bytes:
    return _key(field, BYTES) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])
