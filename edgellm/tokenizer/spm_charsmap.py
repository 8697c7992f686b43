"""The normalization table of SentencePiece: checked before C++ or Rust walks it without looking down."""

from __future__ import annotations

import numpy as np

from edgellm.errors import TokenizerError

MAX_REPLACEMENT = 128  # bytes; NFKC's longest has 33


def check_charsmap(table: bytes) -> None:
    """Raise TokenizerError unless every step through the table stays inside it.

    The table is a double array (Yata, "Dictionary tries and their applications"; the layout is
    darts-clone's) and then the replacements, each ended by a zero byte. A unit holds a label in
    bits 0-7, in bit 8 whether a value hangs on it, in bits 10-30 the distance to its children,
    counted in 256s if bit 9 is set; bit 31 marks a value.
    """
    if not table:
        return
    size = int.from_bytes(table[:4], "little")
    if len(table) < 8 or size % 1024 or not 0 < size < len(table) - 4:
        raise TokenizerError("the normalization table of the tokenizer is cut off")
    units = np.frombuffer(table, "<u4", size // 4, 4)
    replacements = np.frombuffer(table, np.uint8, offset=4 + size)
    inner = units & 0x80000000 == 0
    inner[0] = True
    at = np.flatnonzero(inner)
    children = at ^ ((units[inner] >> 10) << ((units[inner] & 0x200) >> 6)).astype(np.int64)
    if np.any(children | 0xFF >= len(units)):
        raise TokenizerError("the normalization table of the tokenizer points outside itself")
    values = units[children[units[inner] & 0x100 != 0]] & 0x7FFFFFFF
    ends = np.flatnonzero(replacements == 0)
    if replacements[-1] != 0 or np.any(values >= len(replacements)):
        raise TokenizerError("the normalization table of the tokenizer points outside itself")
    if np.max(np.diff(ends, prepend=-1)) > MAX_REPLACEMENT:
        raise TokenizerError(
            f"the normalization table replaces a character by more than {MAX_REPLACEMENT} bytes"
        )
