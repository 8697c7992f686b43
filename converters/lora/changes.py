"""Changes by an adapter: products of two matrices, rows of tokens, tensors brought whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgellm.converters.huggingface.torch_file import TorchTensor, read_rows
from edgellm.converters.tensors.floats import Floats, floats


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
            heads = values.reshape(-1, self.pairs // 2, 2, values.shape[1])
            values = heads.swapaxes(1, 2).reshape(values.shape)
        if self.transposed:
            return values.T
        return values


@dataclass(frozen=True, slots=True)
class LowRank:
    """A matrix's change, ``scale * up @ down``, and with DoRA the length of each row afterwards.

    Attributes:
        up: (rows, rank), PEFT's ``lora_B``.
        down: (rank, columns), PEFT's ``lora_A``.
        scale: what the product is multiplied by.
        magnitude: the rows' lengths, or the columns'; None: plain LoRA.
        by_column: whether they are the columns', as in PEFT's embeddings.
    """

    up: Factor
    down: Factor
    scale: float
    magnitude: TorchTensor | None
    by_column: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the matrix that it changes."""
        return self.up.shape[0], self.down.shape[1]

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
    """

    ids: tuple[int, ...]
    tensor: TorchTensor


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
    replacements: Mapping[str, TorchTensor]
    saved_bases: frozenset[str]
    token_rows: Mapping[str, TokenRows]
    files: tuple[Path, ...]
    own_head: bool


def read_values(tensor: TorchTensor, rows: tuple[int, int] | None = None) -> Floats:
    """Read a tensor, or some rows of it, in float32. Raises ReadError."""
    info = tensor.info
    start, stop = rows or (0, info.shape[0])
    values = floats(read_rows(tensor, start, stop), info.dtype)
    return values.reshape(stop - start, *info.shape[1:])
