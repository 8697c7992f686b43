"""The protobuf of a SentencePiece model, read far enough to know that C++ may have it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from edgellm.errors import TokenizerError

MAX_PIECES = 1 << 19
MAX_PIECE = 4096  # bytes

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
# Fields of ModelProto, NormalizerSpec and TrainerSpec in sentencepiece_model.proto.
PIECES, TRAINER, NORMALIZER, SELF_TEST, DENORMALIZER = 1, 2, 3, 4, 5
CHARSMAP, DUMMY_PREFIX = 2, 3
MODEL_TYPE, SUFFIX, BYTE_FALLBACK, UNK_ID, BOS_ID, EOS_ID = 3, 24, 35, 40, 41, 42
UNIGRAM, BPE = 1, 2


@dataclass(frozen=True, slots=True)
class PieceModel:
    """What a SentencePiece model says of itself.

    Attributes:
        data: the model without its self-test.
        pieces: the tokens.
        kinds: of each piece: ``NORMAL``, ``CONTROL`` and so on.
        scores: of each piece: the higher, the sooner it is merged.
        charsmaps: the normalization tables.
        dummy_prefix: whether a space is put before a text.
        suffix: whether white space belongs to the word before it.
        bos_id: the piece that begins a text, -1 for none.
        eos_id: the piece that ends a text, -1 for none.
        merging: whether pieces are merged (BPE), as LLaMA's are; else the likeliest of all ways is
            looked for.
    """

    data: bytes
    pieces: list[str]
    kinds: list[int]
    scores: list[float]
    charsmaps: list[bytes]
    dummy_prefix: bool
    suffix: bool
    bos_id: int
    eos_id: int
    merging: bool


def read_piece_model(data: bytes) -> PieceModel:
    """Return what the model says. Raises TokenizerError where it is no SentencePiece model or lies about its lengths."""
    kept: list[bytes] = []
    pieces: list[str] = []
    kinds: list[int] = []
    scores: list[float] = []
    charsmaps: list[bytes] = []
    dummy_prefix, numbers = True, {BOS_ID: 1, EOS_ID: 2, SUFFIX: 0, MODEL_TYPE: UNIGRAM}
    at = 0
    for number, value, end in _fields(data):
        if number == PIECES and isinstance(value, bytes):
            piece, kind, score = _piece(value)
            pieces.append(piece)
            kinds.append(kind)
            scores.append(score)
        elif number in (NORMALIZER, DENORMALIZER) and isinstance(value, bytes):
            for inner, setting, _ in _fields(value):
                if inner == CHARSMAP and isinstance(setting, bytes):
                    charsmaps.append(setting)
                elif inner == DUMMY_PREFIX and number == NORMALIZER:
                    dummy_prefix = bool(setting)
        elif number == TRAINER and isinstance(value, bytes):
            numbers |= {
                inner: _signed(setting)
                for inner, setting, _ in _fields(value)
                if isinstance(setting, int)
            }
        if number != SELF_TEST:  # it would be run while the model is loaded
            kept.append(data[at:end])
        at = end
    if not pieces or len(pieces) > MAX_PIECES:
        raise TokenizerError(
            f"the SentencePiece model has {len(pieces)} pieces; it must have 1 to {MAX_PIECES}"
        )
    if len(set(pieces)) < len(pieces):
        raise TokenizerError("the SentencePiece model has a piece twice")
    return PieceModel(
        data=b"".join(kept),
        pieces=pieces,
        kinds=kinds,
        scores=scores,
        charsmaps=charsmaps,
        dummy_prefix=dummy_prefix,
        suffix=bool(numbers[SUFFIX]),
        bos_id=numbers[BOS_ID],
        eos_id=numbers[EOS_ID],
        merging=numbers[MODEL_TYPE] == BPE,
    )


def without_dummy_prefix(data: bytes) -> bytes:
    """Return the model with its dummy prefix off: of a field that comes again, the last value holds."""
    off = bytes([DUMMY_PREFIX << 3 | VARINT, 0])
    return data + bytes([NORMALIZER << 3 | BYTES, len(off)]) + off


def _piece(data: bytes) -> tuple[str, int, float]:
    piece, kind, score = b"", NORMAL, 0.0
    for number, value, _ in _fields(data):
        if number == 1 and isinstance(value, bytes):
            piece = value
        elif number == 2 and isinstance(value, float):
            score = value
        elif number == 3 and isinstance(value, int):
            kind = value
    if not 0 < len(piece) <= MAX_PIECE or not NORMAL <= kind <= BYTE or not -1e30 < score < 1e30:
        raise TokenizerError(
            "a piece of the SentencePiece model has no text, an unknown kind or an impossible score"
        )
    try:
        return piece.decode("utf-8"), kind, score
    except UnicodeDecodeError as error:
        raise TokenizerError("a piece of the SentencePiece model is not UTF-8") from error


def _fields(data: bytes) -> Iterator[tuple[int, int | float | bytes, int]]:
    """Each field's number, value and the place where it ends. Raises TokenizerError."""
    at, size = 0, len(data)
    try:
        while at < size:
            key = data[at]
            at += 1
            if key > 127:
                key, at = _varint(data, at - 1)
            wire = key & 7
            value: int | float | bytes
            if wire == BYTES:
                length = data[at]
                at += 1
                if length > 127:
                    length, at = _varint(data, at - 1)
                value = data[at : at + length]
                at += length
            elif wire == VARINT:
                value, at = _varint(data, at)
            elif wire == FIXED32:
                (value,) = struct.unpack_from("<f", data, at)
                at += 4
            elif wire == FIXED64:
                (value,) = struct.unpack_from("<q", data, at)
                at += 8
            else:
                raise TokenizerError(
                    "the SentencePiece model is damaged: a field of an unknown kind"
                )
            if at > size or not key >> 3:
                raise TokenizerError(
                    "the SentencePiece model is damaged: a field reaches past its end"
                )
            yield key >> 3, value, at
    except (IndexError, struct.error) as error:
        raise TokenizerError("the SentencePiece model is cut off") from error


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise TokenizerError("the SentencePiece model is damaged: a number without an end")


def _signed(value: int) -> int:
    """A varint as int32: negative ones are written with 64 bits."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value
