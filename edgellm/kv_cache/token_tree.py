"""Trees of tokens: ways in which a sequence may go on, sent through the layers at once.

A tree is told by its *levels*: for each token, in depth-first order, how far it lies below the
first one, which is the root. The token before it that is one level up is its parent. At level n a
token has the position of the root plus n, so tokens of one level take turns in the KV cache: a
branch is computed with its parents in place, then the next one is written over it.

Tokens that a later branch is written over are stored a second time, behind the tree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple


class Branch(NamedTuple):
    """Tokens of a tree each of which follows the one before.

    Attributes:
        first: the place of its first token in the tree.
        level: of that token.
        length: tokens.
        displaced: how many of its last tokens a later branch is written over.
    """

    first: int
    level: int
    length: int
    displaced: int


def height(levels: Sequence[int]) -> int:
    """Return how many positions a tree takes in a cache."""
    return max(levels) + 1


def room(levels: Sequence[int]) -> int:
    """Return the positions that a tree and the tokens stored behind it take in a cache."""
    return height(levels) + len(levels)


def branches(levels: Sequence[int]) -> list[Branch]:
    """Return the branches of a tree in their order."""
    starts = [0]
    starts += [place for place in range(1, len(levels)) if levels[place] <= levels[place - 1]]
    ends = [*starts[1:], len(levels)]
    found: list[Branch] = []
    lowest_later = height(levels)
    for start, end in zip(reversed(starts), reversed(ends), strict=True):
        displaced = max(0, levels[end - 1] + 1 - lowest_later)
        found.append(Branch(start, levels[start], end - start, min(displaced, end - start)))
        lowest_later = min(lowest_later, levels[start])
    return found[::-1]


def moves(levels: Sequence[int], path: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield from where to where tokens have to move, for a cache to hold a path from the root.

    Places count from the root's own.

    Args:
        levels: of a tree that went through the layers.
        path: places in the tree, one a level.
    """
    last = {level: place for place, level in enumerate(levels)}
    for level, place in enumerate(path):
        if last[level] != place:
            yield height(levels) + place, level
