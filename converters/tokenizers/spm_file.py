"""A SentencePiece model written from its pieces: the fields that byte-pair encoding needs."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from edgellm.tokenizer.spm_proto import (
    BOS_ID,
    BPE,
    BYTE,
    BYTE_FALLBACK,
    BYTES,
    DUMMY_PREFIX,
    EOS_ID,
    FIXED32,
    KIND,
    MODEL_TYPE,
    NORMAL,
    NORMALIZER,
    PIECES,
    SCORE,
    TEXT,
    TRAINER,
    UNK_ID,
    VARINT,
)

# Fields that only a writer needs: of TrainerSpec, and of NormalizerSpec
PAD_ID = 43
NAME, REMOVE_EXTRA_WHITESPACES = 1, 4
INT64_MASK = (1 << 64) - 1  # protobuf writes a negative number with 64 bits


@dataclass(frozen=True, slots=True)
class Piece:
    """A token.

    Attributes:
        text: its text, with ``▁`` for a space.
        score: the higher, the sooner it is merged.
        kind: as in ``edgellm.tokenizer.spm_proto``.
    """

    text: str
    score: float
    kind: int


def piece_model(
    pieces: Sequence[Piece], *, dummy_prefix: bool = True, roles: tuple[int, int, int] = (0, 1, 2)
) -> bytes:
    """Return the bytes of a ``tokenizer.model``.

    Bytes that no piece has become byte pieces if all 256 are there; else the pieces that look like
    bytes are plain text.

    Args:
        pieces: the tokens, in the order of their ids.
        dummy_prefix: whether a space is put before a text.
        roles: the ids of unknown, beginning and end, -1 for none.
    """
    fallback = len({piece.text for piece in pieces if piece.kind == BYTE}) == 256
    fields = [_bytes(PIECES, _piece(piece, fallback)) for piece in pieces]
    unknown, begin, end = roles
    trainer = (
        _number(MODEL_TYPE, BPE)
        + _number(BYTE_FALLBACK, fallback)
        + _number(UNK_ID, unknown)
        + _number(BOS_ID, begin)
        + _number(EOS_ID, end)
        + _number(PAD_ID, -1)
    )
    normalizer = (
        _bytes(NAME, b"identity")
        + _number(DUMMY_PREFIX, dummy_prefix)
        + _number(REMOVE_EXTRA_WHITESPACES, 0)
    )
    fields += [_bytes(TRAINER, trainer), _bytes(NORMALIZER, normalizer)]
    return b"".join(fields)


def _piece(piece: Piece, fallback: bool) -> bytes:
    kind = piece.kind
    if kind == BYTE and not fallback:
        kind = NORMAL
    score = _key(SCORE, FIXED32) + struct.pack("<f", piece.score)
    return _bytes(TEXT, piece.text.encode()) + score + _number(KIND, kind)


def _key(field: int, wire: int) -> bytes:
    return _varint(field << 3 | wire)


def _number(field: int, value: int) -> bytes:
    return _key(field, VARINT) + _varint(int(value) & INT64_MASK)


def _bytes(field: int, content: bytes) -> bytes:
    return _key(field, BYTES) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])
