"""Sequences side by side, as they go through a layer together: nothing is padded."""

# T tokens of all sequences

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import mlx.core as mx
import numpy as np
import numpy.typing as npt

NOT_ASKED = -1
"""The target of a token after which nothing is learned."""

Ints = npt.NDArray[np.int64]

TokenIds: TypeAlias = "array[int]"
"""Token ids of 4 bytes each, of which a data set has millions; a tuple takes ten times as much."""


def token_ids(ids: Iterable[int]) -> TokenIds:
    """Return token ids as a sequence has them. Raises OverflowError: one has more than 4 bytes."""
    return array("i", ids)


@dataclass(frozen=True, slots=True)
class TrainingSequence:
    """A text and what is learned of it.

    Attributes:
        tokens: token ids.
        targets: the token that is learned after each; ``NOT_ASKED`` where none is.
        number: of the sequence among all, which its dropout follows from.
        line: of the record in its file; 0: it is of several, or of none.
    """

    tokens: TokenIds
    targets: TokenIds
    number: int = 0
    line: int = 0

    @property
    def length(self) -> int:
        """Tokens that go through the model."""
        return len(self.tokens)

    @property
    def asked(self) -> int:
        """Tokens that are learned."""
        return len(self.targets) - self.targets.count(NOT_ASKED)

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return sum(map(sys.getsizeof, (self, self.tokens, self.targets, self.number, self.line)))


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """Two answers to one prompt.

    Attributes:
        chosen: that was preferred.
        rejected: the other.
    """

    chosen: TrainingSequence
    rejected: TrainingSequence

    @property
    def length(self) -> int:
        """Tokens that go through the model."""
        return self.chosen.length + self.rejected.length

    @property
    def line(self) -> int:
        """The line of the record in its file."""
        return self.chosen.line


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Sequences side by side.

    Attributes:
        sequences: theirs.
        tokens: of all (T,).
        targets: of all (T,).
    """

    sequences: tuple[TrainingSequence, ...]
    tokens: Ints
    targets: Ints

    @classmethod
    def of(cls, sequences: Sequence[TrainingSequence]) -> MicroBatch:
        """Return sequences side by side."""
        tokens = [token for one in sequences for token in one.tokens]
        targets = [target for one in sequences for target in one.targets]
        return cls(tuple(sequences), np.array(tokens), np.array(targets))

    @property
    def lengths(self) -> list[int]:
        """Tokens of each sequence."""
        return [one.length for one in self.sequences]

    @property
    def asked_rows(self) -> Ints:
        """Places after which something is learned."""
        return np.flatnonzero(self.targets != NOT_ASKED)

    @property
    def ids(self) -> mx.array:
        """Token ids (1, T)."""
        return mx.array(self.tokens)[None]


def micro_batches(sequences: Sequence[TrainingSequence], most_tokens: int) -> list[MicroBatch]:
    """Return the sequences of a step in parts of at most ``most_tokens``, or of one sequence.

    No result depends on how a step is cut: losses and derivatives are summed over all of it.
    """
    parts: list[list[TrainingSequence]] = []
    tokens = 0
    for sequence in sequences:
        tokens += sequence.length
        if parts and tokens <= most_tokens:
            parts[-1].append(sequence)
        else:
            parts.append([sequence])
            tokens = sequence.length
    return [MicroBatch.of(part) for part in parts]


def micro_sizes(most: int, longest: int) -> list[int]:
    """Return sizes that micro-batches may have, each half of the last, down to one sequence."""
    sizes = [most]
    while sizes[-1] > longest:
        sizes.append(max(longest, sizes[-1] // 2))
    return sizes
