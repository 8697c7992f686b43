"""A table of ranks, tiktoken's form of a tokenizer, as a tokenizer.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgellm.converters.tokenizers.byte_level import byte_level_document, post_processor
from edgellm.errors import FormatError

MAX_RANKS = 1 << 19
MAX_TOKEN_BYTES = 256
"""Llama 3's longest token has 128 bytes, Mistral's 78."""


def complete_ranks(tokens: list[bytes], path: Path) -> list[bytes]:
    """Return the tokens of a table, if none occurs twice and all bytes are there.

    Raises FormatError.
    """
    known = set(tokens)
    if len(known) < len(tokens) or not {bytes([byte]) for byte in range(256)} <= known:
        raise FormatError(
            f"{path} is damaged: a token occurs twice, or one of the 256 bytes is missing",
            hint="download it again",
        )
    return tokens


def ranked_document(
    ranks: Sequence[bytes],
    *,
    added: Sequence[tuple[int, str, bool]],
    splitting: Mapping[str, Any],
    begin: int,
) -> dict[str, Any]:
    """Return a tokenizer.json that encodes as the ranks do.

    Ranks say which token is made first, not of which two. So each token may be made of any two
    others that spell it, the pairs in the order of the tokens that they make.

    Args:
        ranks: the tokens.
        added: id, text, and whether it is special, of those that are not made of bytes. Their ids
            come all before the ranks' or all behind them.
        splitting: the pre-tokenizer.
        begin: which of the added ones is put before a text.
    """
    rank_of = {token: rank for rank, token in enumerate(ranks)}
    letters = _byte_letters()
    spelled = [token.decode("latin-1").translate(letters) for token in ranks]
    merges: list[list[str]] = []
    for token in ranks:
        halves = [
            (rank_of[token[:split]], rank_of[token[split:]])
            for split in range(1, len(token))
            if token[:split] in rank_of and token[split:] in rank_of
        ]
        merges += [[spelled[left], spelled[right]] for left, right in sorted(halves)]
    texts = [text for _, text, _ in added]
    begin_id = added[begin][0]
    vocabulary = spelled
    tokens = [*spelled, *texts]
    if added[0][0] == 0:
        # added tokens have no ids of their own below the vocabulary's
        vocabulary = tokens = [*texts, *spelled]
    return byte_level_document(
        vocabulary,
        merges,
        added=added,
        splitting=splitting,
        frame=post_processor(tokens, begin_id, None),
        whole_words=True,
    )


def _byte_letters() -> dict[int, int]:
    """Return the printable letter of each byte in a byte-level vocabulary, as GPT-2 chose them."""
    printable = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    letters = {byte: byte for byte in printable}
    others = [byte for byte in range(256) if byte not in printable]
    for number, byte in enumerate(others):
        letters[byte] = 256 + number
    return letters
