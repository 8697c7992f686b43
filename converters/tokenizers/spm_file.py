"""A SentencePiece model written from its pieces: the fields that byte-pair encoding needs."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from edgellm.tokenizer import spm_proto as proto

# Fields that only a writer needs: of TrainerSpec, and of NormalizerSpec
PAD_ID = 43
NAME = 1
INT64_MASK = (1 << 64) - 1  # protobuf writes a negative number with 64 bits


SPACE = "\u2581"
"""How SentencePiece writes a space."""


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
    fallback = len({piece.text for piece in pieces if piece.kind == proto.BYTE}) == 256
    fields = [_bytes(proto.PIECES, _piece(piece, fallback)) for piece in pieces]
    unknown, begin, end = roles
    trainer = (
        _number(proto.MODEL_TYPE, proto.BPE)
        + _number(proto.BYTE_FALLBACK, fallback)
        + _number(proto.UNK_ID, unknown)
        + _number(proto.BOS_ID, begin)
        + _number(proto.EOS_ID, end)
        + _number(PAD_ID, -1)
    )
    normalizer = (
        _bytes(NAME, b"identity")
        + _number(proto.DUMMY_PREFIX, dummy_prefix)
        + _number(proto.REMOVE_EXTRA_WHITESPACES, 0)
    )
    fields += [_bytes(proto.TRAINER, trainer), _bytes(proto.NORMALIZER, normalizer)]
    return b"".join(fields)


def _piece(piece: Piece, fallback: bool) -> bytes:
    kind = piece.kind
    if kind == proto.BYTE and not fallback:
        kind = proto.NORMAL
    score = _key(proto.SCORE, proto.FIXED32) + struct.pack("<f", piece.score)
    return _bytes(proto.TEXT, piece.text.encode()) + score + _number(proto.KIND, kind)


def _key(field: int, wire: int) -> bytes:
    return _varint(field << 3 | wire)


def _number(field: int, value: int) -> bytes:
    return _key(field, proto.VARINT) + _varint(int(value) & INT64_MASK)


def _bytes(field: int, content: bytes) -> bytes:
    return _key(field, proto.BYTES) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])
