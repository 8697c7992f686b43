"""The protobuf of a SentencePiece model: what the library does not tell of it.

SentencePiece's Python interface names pieces and scores, but neither user-defined pieces nor the
settings of the normalizer. The field numbers are those of sentencepiece_model.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from edgellm.errors import TokenizerError

MAX_SCORE = 1e30  # sums of these stay finite

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
# ModelProto
PIECES, TRAINER, NORMALIZER, SELF_TEST, DENORMALIZER = 1, 2, 3, 4, 5
# ModelProto.SentencePiece
TEXT, SCORE, KIND = 1, 2, 3
# NormalizerSpec
CHARSMAP, DUMMY_PREFIX, REMOVE_EXTRA_WHITESPACES = 2, 3, 4
# TrainerSpec
MODEL_TYPE, SUFFIX, BYTE_FALLBACK, UNK_ID, BOS_ID, EOS_ID = 3, 24, 35, 40, 41, 42
UNIGRAM, BPE = 1, 2
_FLOAT = struct.Struct("<f")
TRAINER_DEFAULTS = {BOS_ID: 1, EOS_ID: 2, SUFFIX: 0, MODEL_TYPE: UNIGRAM}


@dataclass(frozen=True, slots=True)
class PieceModel:
    """The contents of a SentencePiece model.

    Attributes:
        data: the model without its self-test.
        pieces: the tokens.
        kinds: the kinds of each piece: ``NORMAL``, ``CONTROL`` and so on.
        scores: of each piece: the higher, the sooner it is merged.
        charsmaps: the normalization tables.
        dummy_prefix: whether a space is put before a text.
        merges_spaces: whether several spaces count as one, and those around a text as none.
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
    merges_spaces: bool
    suffix: bool
    bos_id: int
    eos_id: int
    merging: bool


def read_piece_model(data: bytes) -> PieceModel:
    """Return the contents of a serialized model.

    Raises:
        TokenizerError: it is no SentencePiece model, lies about its lengths, or has a piece that no
            text can give.
    """
    try:
        return _read(data)
    except (IndexError, struct.error) as error:
        raise TokenizerError("the SentencePiece model is cut off") from error
    except ValueError as error:
        raise TokenizerError(f"the SentencePiece model is damaged: {error}") from error


def without_dummy_prefix(data: bytes) -> bytes:
    """Return the model with its dummy prefix switched off."""
    # of a field that comes again, the last value holds
    off = bytes([DUMMY_PREFIX << 3 | VARINT, 0])
    return data + bytes([NORMALIZER << 3 | BYTES, len(off)]) + off


def _read(data: bytes) -> PieceModel:
    parts: list[bytes] = []
    pieces: list[tuple[str, int, float]] = []
    charsmaps: list[bytes] = []
    switches = {DUMMY_PREFIX: True, REMOVE_EXTRA_WHITESPACES: True}
    trainer = dict(TRAINER_DEFAULTS)
    start = begin = 0
    for number, value, end in _fields(data):
        if isinstance(value, bytes):
            if number == PIECES:
                pieces.append(_piece(value))
            elif number in (NORMALIZER, DENORMALIZER):
                for inner, setting, _ in _fields(value):
                    if inner == CHARSMAP and isinstance(setting, bytes):
                        charsmaps.append(setting)
                    # of another type it is not that field, and the library leaves it aside
                    elif inner in switches and number == NORMALIZER and type(setting) is int:
                        switches[inner] = bool(setting)
            elif number == TRAINER:
                for inner, setting, _ in _fields(value):
                    if isinstance(setting, int):
                        trainer[inner] = _signed(setting)
        if number == SELF_TEST:  # it would be run while the model is loaded
            parts.append(data[start:begin])
            start = end
        begin = end
    texts = [text for text, _, _ in pieces]
    if not texts:
        raise TokenizerError("the SentencePiece model has no pieces")
    if len(set(texts)) < len(texts):
        raise TokenizerError("the SentencePiece model has a piece twice")
    return PieceModel(
        data=b"".join([*parts, data[start:]]),
        pieces=texts,
        kinds=[kind for _, kind, _ in pieces],
        scores=[score for _, _, score in pieces],
        charsmaps=charsmaps,
        dummy_prefix=switches[DUMMY_PREFIX],
        merges_spaces=switches[REMOVE_EXTRA_WHITESPACES],
        suffix=bool(trainer[SUFFIX]),
        bos_id=trainer[BOS_ID],
        eos_id=trainer[EOS_ID],
        merging=trainer[MODEL_TYPE] == BPE,
    )


def _piece(data: bytes) -> tuple[str, int, float]:
    """Return the text, the kind and the score of a piece."""
    text, score, kind = _usual_piece(data) or _any_piece(data)
    # the library takes any kind and score
    if not text or not NORMAL <= kind <= BYTE or not -MAX_SCORE < score < MAX_SCORE:
        raise TokenizerError(
            "a piece of the SentencePiece model has no text, an unknown kind or an impossible score"
        )
    return text.decode("utf-8"), kind, score


def _usual_piece(data: bytes) -> tuple[bytes, float, int] | None:
    """Return the text, score and kind of a piece as SentencePiece writes it, None of another.

    A vocabulary has up to 256,000 pieces: this takes a third of the time of reading any fields.
    """
    size = len(data)
    if size < 8 or data[0] != TEXT << 3 | BYTES or data[1] > 127:
        return None
    end = 2 + data[1]
    if size not in (end + 5, end + 7) or data[end] != SCORE << 3 | FIXED32:
        return None
    kind = NORMAL
    if size == end + 7:
        if data[end + 5] != KIND << 3 | VARINT or data[end + 6] > 127:
            return None
        kind = data[end + 6]
    (score,) = _FLOAT.unpack_from(data, end + 1)
    return data[2:end], score, kind


def _any_piece(data: bytes) -> tuple[bytes, float, int]:
    """Return the text, score and kind of a piece whose fields come in any order."""
    text, score, kind = b"", 0.0, NORMAL
    for number, value, _ in _fields(data):
        if number == TEXT and isinstance(value, bytes):
            text = value
        elif number == SCORE and isinstance(value, float):
            score = value
        elif number == KIND and isinstance(value, int):
            kind = value
    return text, score, kind


def _fields(data: bytes) -> Iterator[tuple[int, int | float | bytes | None, int]]:
    """Yield each field's number, its value, and the place where it ends.

    None is a value of a type that no field of these models has.
    """
    at, size = 0, len(data)
    while at < size:
        # nearly all keys and lengths have one byte: these are read here, without a call
        key = data[at]
        at += 1
        if key > 127:
            key, at = _varint(data, at - 1)
        wire = key & 7
        value: int | float | bytes | None
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
            value = None
            at += 8
        else:
            raise ValueError(f"a field of the unknown kind {wire}")
        if at > size:
            raise ValueError("a field reaches past its end")
        yield key >> 3, value, at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number at ``at``, seven bits a byte, and the place behind it."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number without an end")


def _signed(value: int) -> int:
    """Return a varint as int32: negative ones are written with 64 bits."""
    value &= 0xFFFFFFFF
    if value >> 31:
        return value - (1 << 32)
    return value
