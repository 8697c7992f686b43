"""llama2.c's tokenizer.bin as a SentencePiece model.

It was made from one, and lost only what is known anyway: the types of the tokens.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Mapping
from pathlib import Path

from edgellm.converters.tokenizers.spm_file import Piece, piece_model
from edgellm.errors import FormatError
from edgellm.files.bounded import read_bounded
from edgellm.files.strict_json import quoted
from edgellm.tokenizer.spm_proto import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED

TOKENIZER = "tokenizer.bin"
MAX_FILE_BYTES = 16 << 20
MAX_TOKEN_BYTES = 1024
ENTRY = struct.Struct("<fi")
BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
KNOWN_IDS: Mapping[int, tuple[str, int]] = {
    0: ("<unk>", UNKNOWN),
    1: ("<s>", CONTROL),
    2: ("</s>", CONTROL),
}
"""Text and type of the ids that llama2.c's program has built in."""

CONFIG = {
    "tokenizer_class": "LlamaTokenizer",
    "add_bos_token": True,
    "add_eos_token": False,
    "legacy": False,
}


def tokenizer_files(path: Path, *, vocabulary: int) -> dict[str, Path | bytes]:
    """Return the files of a model folder's tokenizer, from a tokenizer.bin.

    Args:
        path: the file.
        vocabulary: tokens of the model, which it may not pass.

    Raises:
        FormatError: it is cut short, or holds impossible lengths, scores or texts.
        ReadError: it cannot be read.
    """
    data = read_bounded(path, MAX_FILE_BYTES)
    pieces: list[Piece] = []
    at = 4  # behind the longest token's length
    while at < len(data):
        where = f"token {len(pieces)} of {path}"
        if at + ENTRY.size > len(data):
            raise FormatError(f"{where} is cut short", hint="make or download the file again")
        score, length = ENTRY.unpack_from(data, at)
        at += ENTRY.size
        fits = 0 <= length <= MAX_TOKEN_BYTES and at + length <= len(data)
        if not fits or not math.isfinite(score):
            raise FormatError(
                f"{where} has {length} bytes or the score {score}",
                hint="make or download the file again",
            )
        if len(pieces) == vocabulary:
            raise FormatError(
                f"{path} has more tokens than the model, which has {vocabulary}",
                hint="it is another model's",
            )
        pieces.append(_piece(data[at : at + length], score, len(pieces), where))
        at += length
    if len(pieces) <= max(KNOWN_IDS):
        raise FormatError(
            f"{path} holds {len(pieces)} tokens", hint="make or download the file again"
        )
    if len({piece.text for piece in pieces}) < len(pieces):
        raise FormatError(f"{path} holds a token twice")
    return {
        "tokenizer.model": piece_model(pieces),
        "tokenizer_config.json": (json.dumps(CONFIG, indent=2) + "\n").encode(),
    }


def _piece(content: bytes, score: float, token_id: int, where: str) -> Piece:
    if token_id in KNOWN_IDS:
        text, kind = KNOWN_IDS[token_id]
        return Piece(text, score, kind)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"{where} is not UTF-8: {quoted(content)}") from error
    if not text:  # fills a vocabulary up
        return Piece(f"<unused {token_id}>", score, UNUSED)
    kind = NORMAL
    if BYTE_TOKEN.fullmatch(text):
        kind = BYTE
    return Piece(text.replace(" ", "\u2581"), score, kind)
