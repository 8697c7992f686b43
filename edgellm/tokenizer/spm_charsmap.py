"""The normalization table of SentencePiece: checked before native code walks it.

No library bounds how much longer a table makes a text, and not every version looks whether the
table stays inside itself.
"""

from __future__ import annotations

from edgellm.errors import TokenizerError

MAX_REPLACEMENT = 128  # bytes; NFKC's longest has 33
HAS_VALUE = 1 << 8
WIDE = 1 << 9
IS_VALUE = 1 << 31


def check_charsmap(table: bytes) -> None:
    """Raise TokenizerError unless every step through the table stays inside it.

    The table is the size of a trie in bytes, the trie, and then the replacements, each ended by a
    zero byte. The trie is a double array (Aoe 1989, "An efficient digital search algorithm by using
    a double-array structure") in the layout of darts-clone. A unit of it holds a label in bits 0-7,
    in bit 8 whether a value hangs on it, in bits 10-30 the distance to its children, counted in
    256s if bit 9 is set; bit 31 marks a value.
    """
    if not table:
        return
    import numpy as np

    size = int.from_bytes(table[:4], "little")
    if len(table) < 8 or size % 1024 or not 0 < size < len(table) - 4:
        raise TokenizerError("the normalization table of the tokenizer is cut off")
    units = np.frombuffer(table, "<u4", size // 4, 4)
    replacements = np.frombuffer(table, np.uint8, offset=4 + size)

    inner = units & IS_VALUE == 0
    inner[0] = True
    distances = (units[inner] >> 10) << ((units[inner] & WIDE) >> 6)
    children = np.flatnonzero(inner) ^ distances.astype(np.int64)
    # a step goes to a child with any label of 8 bits
    if np.any(children | 0xFF >= len(units)):
        raise TokenizerError("the normalization table of the tokenizer points outside itself")
    values = units[children[units[inner] & HAS_VALUE != 0]] & ~np.uint32(IS_VALUE)
    ends = np.flatnonzero(replacements == 0)
    if replacements[-1] != 0 or np.any(values >= len(replacements)):
        raise TokenizerError("the normalization table of the tokenizer points outside itself")
    if np.max(np.diff(ends, prepend=-1)) > MAX_REPLACEMENT:
        raise TokenizerError(
            f"the normalization table replaces a character by more than {MAX_REPLACEMENT} bytes"
        )
