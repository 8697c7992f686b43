"""Changes by an adapter: products of two matrices, rows of tokens, tensors brought whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from edgellm.checkpoint.dialects.names import StoredRows
from edgellm.converters.huggingface.torch_file import TorchTensor, read_rows
from edgellm.converters.tensors.floats import Floats, floats
from edgellm.converters.tensors.rope_permutation import in_halves
from edgellm.converters.tensors.spelled_source import read_in_our_order
from edgellm.errors import FormatError


@dataclass(frozen=True, slots=True)
class Factor:
    """One of the two matrices of a change.

    Attributes:
        tensor: what is stored.
        transposed: whether its columns are stored as rows.
        rows: the first of the stored rows that are the factor, and the one behind the last; None:
            all.
        pairs: rows of a head in which those that turn together are neighbours; None: they lie as
            Hugging Face's.
    """

    tensor: TorchTensor
    transposed: bool
    rows: tuple[int, int] | None = None
    pairs: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape as a factor."""
        shape = self.tensor.info.shape
        if self.rows is not None:
            shape = (self.rows[1] - self.rows[0], *shape[1:])
        if self.transposed:
            return shape[::-1]
        return shape

    def values(self) -> Floats:
        """Read it in float32. Raises ReadError."""
        values = read_values(self.tensor, self.rows)
        if self.pairs is not None:
            values = in_halves(values, self.pairs)
        if self.transposed:
            return values.T
        return values


WHOLE = StoredRows("")
"""All rows as they are, of whatever tensor."""


@dataclass(frozen=True, slots=True)
class LowRank:
    """A matrix's change, ``scale * up @ down``, and with DoRA the length of each row afterwards.

    Attributes:
        up: (rows, rank), PEFT's ``lora_B``.
        down: (rank, columns), PEFT's ``lora_A``.
        scale: what the product is multiplied by.
        magnitude: the rows' lengths, or the columns'; None: plain LoRA.
        by_column: whether they are the columns', as in PEFT's embeddings.
        part: the rows of the change that are one of our matrix, and what that is multiplied by.
    """

    up: Factor
    down: Factor
    scale: float
    magnitude: TorchTensor | None
    by_column: bool = False
    part: StoredRows = WHOLE

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the matrix that it changes."""
        return _row_count(self.up.shape[0], self.part), self.down.shape[1]

    def up_values(self) -> Floats:
        """Read ``up`` in float32, multiplied by what the matrix is. Raises ReadError."""
        return in_our_order(self.up.values(), self.part)

    def magnitude_values(self) -> Floats | None:
        """Read the lengths in float32, as those of ``up``; None: there are none."""
        if self.magnitude is None:
            return None
        lengths = read_values(self.magnitude).reshape(-1)
        if self.by_column:
            return lengths * np.float32(self.part.factor)
        return in_our_order(lengths, self.part)

    def applied(self, weight: Floats, up: Floats, down: Floats) -> Floats:
        """Return some rows of the matrix with the product added; ``up`` are the rows of these."""
        # what overflows becomes infinite, and is refused where it is written
        with np.errstate(over="ignore", invalid="ignore"):
            change = (np.float32(self.scale) * up) @ down
            changed: Floats = (weight + change).astype(np.float32, copy=False)
            return changed


@dataclass(frozen=True, slots=True)
class TokenRows:
    """Rows of an embedding or a head that an adapter brings whole.

    Attributes:
        ids: the tokens that they are for.
        tensor: their rows in this order, (tokens, columns).
        factor: what the matrix is multiplied by.
    """

    ids: tuple[int, ...]
    tensor: TorchTensor
    factor: float = 1.0

    def row(self, place: int) -> Floats:
        """Read the row at a place in float32. Raises ReadError."""
        values = floats(read_rows(self.tensor, place, place + 1), self.tensor.info.dtype)
        return values * np.float32(self.factor)


@dataclass(frozen=True, slots=True)
class Replacement:
    """A tensor that an adapter brings whole.

    Attributes:
        tensor: what is stored.
        part: the rows of it that are the tensor of ours, and what that is multiplied by.
    """

    tensor: TorchTensor
    part: StoredRows = WHOLE

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape as a tensor of ours."""
        first, *others = self.tensor.info.shape
        return (_row_count(first, self.part), *others)

    def values(self, start: int, stop: int) -> Floats:
        """Read some rows in float32, shape (numbers,). Raises ReadError."""
        content = read_in_our_order(partial(read_rows, self.tensor), self.part, start, stop)
        return floats(content, self.tensor.info.dtype) * np.float32(self.part.factor)


@dataclass(frozen=True, slots=True)
class Adapter:
    """All changes by an adapter.

    Attributes:
        changes: of matrices, by their path.
        replacements: tensors by name that replace the model's.
        saved_bases: names of those that were saved with a change, and are what it begins from.
        token_rows: rows that replace those of a matrix, by its path.
        files: its files.
        own_head: whether a head that was the embedding no longer is, since one of the two is
            changed alone.
    """

    changes: Mapping[str, LowRank]
    replacements: Mapping[str, Replacement]
    saved_bases: frozenset[str]
    token_rows: Mapping[str, TokenRows]
    files: tuple[Path, ...]
    own_head: bool


def in_our_order(values: Floats, part: StoredRows) -> Floats:
    """Return a part of rows in our order, multiplied by what it is."""
    if part is WHOLE:
        return values
    chosen = values[part.start : part.stop]
    if part.head_dim is not None:
        chosen = in_halves(chosen, part.head_dim)
    return chosen * np.float32(part.factor)


def finite(values: Floats, path: str) -> Floats:
    """Return values as they are. Raises FormatError where one is infinite or not a number."""
    if not np.isfinite(values).all():
        raise FormatError(
            f"the adapter's change of {path} holds a value that is infinite or not a number"
        )
    return values


def row_factors(changed: Floats, magnitude: Floats) -> Floats:
    """Return what DoRA multiplies changed rows (O, I) by, so that they have the lengths (O,)."""
    return quotient(magnitude, np.linalg.norm(changed, axis=1))


def quotient(magnitude: Floats, lengths: Floats) -> Floats:
    """Return what DoRA multiplies by: the length learned over that there is.

    Liu et al. 2024, arXiv:2402.09353. Zeros stay zeros.
    """
    divisors = lengths.copy()
    divisors[divisors == 0] = 1
    found: Floats = magnitude / divisors
    return found


def _row_count(stored: int, part: StoredRows) -> int:
    return len(range(stored)[part.start : part.stop])


def read_values(tensor: TorchTensor, rows: tuple[int, int] | None = None) -> Floats:
    """Read a tensor, or some rows of it, in float32. Raises ReadError."""
    info = tensor.info
    start, stop = rows or (0, info.shape[0])
    values = floats(read_rows(tensor, start, stop), info.dtype)
    return values.reshape(stop - start, *info.shape[1:])
