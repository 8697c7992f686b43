"""An adapter of what one model has more than another, each change to a low rank."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.adapters.model_matrices import ModelMatrices, Progress
from edgellm.adapters.stored import AdapterForm, Change
from edgellm.adapters.written import destination, write_folder
from edgellm.checkpoint.dialects.names import StoredRows
from edgellm.converters.tensors.recipe import first_few
from edgellm.converters.tensors.rope_permutation import in_pairs
from edgellm.errors import ConfigError, UnsupportedModelError
from edgellm.low_rank.comparison import (
    changed_outer,
    changed_vectors,
    is_inner,
    require_same_shapes,
)
from edgellm.low_rank.svd import Truncated, truncated_matrix

DEFAULT_RANK = 16


@dataclass(frozen=True, slots=True)
class Extracted:
    """A matrix's change to a low rank.

    Attributes:
        path: of the matrix.
        rank: of the product.
        norm: of the whole change.
        error: the norm of what is left out, over that of the change.
        is_nearest: whether no product of the rank is nearer.
    """

    path: str
    rank: int
    norm: float
    error: float
    is_nearest: bool


@dataclass(frozen=True, slots=True)
class Extraction:
    """An adapter that was made.

    Attributes:
        path: its folder.
        matrices: the changes that it holds.
        unchanged: how many matrices are the same in both models.
        left_out: what differs and no adapter holds.
        nbytes: of its tensors.
        notes: what a person has to know.
    """

    path: Path
    matrices: Sequence[Extracted]
    unchanged: int
    left_out: Sequence[str]
    nbytes: int
    notes: Sequence[str]

    @property
    def error(self) -> float:
        """The relative error of all changes together."""
        whole = sum(item.norm**2 for item in self.matrices)
        return math.sqrt(sum((item.error * item.norm) ** 2 for item in self.matrices) / whole)

    def facts(self) -> dict[str, Any]:
        """Return all of it for a JSON document."""
        return {
            "path": str(self.path),
            "relative_error": self.error,
            "energy_kept": 1 - self.error**2,
            "bytes": self.nbytes,
            "unchanged": self.unchanged,
            "left_out": list(self.left_out),
            "notes": list(self.notes),
            "matrices": [
                {
                    "matrix": item.path,
                    "rank": item.rank,
                    "norm": item.norm,
                    "relative_error": item.error,
                    "nearest": item.is_nearest,
                }
                for item in self.matrices
            ],
        }


def extract(
    tuned: str | Path,
    base: str | Path,
    out: str | Path,
    *,
    rank: int | None = None,
    energy: float | None = None,
    partial: bool = False,
    form: AdapterForm = "peft",
    force: bool = False,
    progress: Progress | None = None,
) -> Extraction:
    """Make an adapter of what a model has more than the one that it was made from.

    Args:
        tuned: the model afterwards, in any format.
        base: the model before; a quantized one is dequantized.
        out: the folder to be made.
        rank: of each change at most; None: what ``energy`` needs, without one 16.
        energy: the share of each change's sum of squares that is kept; None: what the rank can.
        partial: leave out what no adapter holds.
        form: whose.
        force: replace an adapter that is there.
        progress: called before each matrix.

    Raises:
        ConfigError: a number is out of range.
        ModelNotFoundError, DownloadError, FormatError, ReadError: a model is not there or damaged.
        UnsupportedModelError: something differs that no adapter holds, or nothing does.
        ConversionError: the destination is taken, there is no space, or the disk refuses.
    """
    if rank is None and energy is None:
        rank = DEFAULT_RANK
    if rank is not None and rank < 1:
        raise ConfigError(f"the rank is {rank}", hint="give a number from 1")
    if energy is not None and not 0.0 < energy <= 1.0:
        raise ConfigError(f"the energy is {energy}", hint="give a share above 0 and at most 1")
    with destination(out, force=force) as path:
        after, before = ModelMatrices(tuned), ModelMatrices(base)
        require_same_shapes(after, before)
        left_out = changed_vectors(after, before) + changed_outer(after, before)
        if left_out and not partial:
            raise UnsupportedModelError(
                f"{after.path} also differs from {before.path} in {first_few(left_out)}, "
                "which no adapter of layers' matrices holds",
                hint="leave these changes out with --partial, or keep the whole model",
            )
        inner = [name for name in after.matrices if is_inner(name)]
        changes: dict[str, Change] = {}
        extracted = []
        for index, name in enumerate(inner):
            if progress is not None:
                progress(index, len(inner), name)
            difference = after.matrix(name, less=before)
            if not difference.any():
                continue
            found = truncated_matrix(difference, rank=rank, energy=energy)
            changes[name] = _stored(name, found, before)
            extracted.append(
                Extracted(name, found.rank, math.sqrt(found.energy), found.error, found.is_nearest)
            )
        if not changes:
            raise UnsupportedModelError(
                f"no matrix of a layer differs between {after.path} and {before.path}",
                hint="name the tuned model first, then the one that it was made from",
            )
        nbytes = write_folder(
            path,
            changes,
            form=form,
            base=str(base),
            layers=before.recipe.config["num_hidden_layers"],
        )
    return Extraction(
        path,
        extracted,
        len(inner) - len(changes),
        left_out,
        nbytes,
        _notes(list(changes), before),
    )


def _stored(path: str, found: Truncated, base: ModelMatrices) -> Change:
    """Return a change of our matrix as one of the base's own, whose rows may lie otherwise."""
    change = Change(found.up, found.down, scale=1.0)
    rows = _rows(path, base)
    if rows is None or rows.lie_as_ours:
        return change
    up = found.up
    if rows.head_dim is not None:
        up = in_pairs(up, rows.head_dim)
    return replace(change, up=up / np.float32(rows.factor))


def _notes(paths: Sequence[str], base: ModelMatrices) -> list[str]:
    """Return whether PEFT calls the matrices otherwise, because they are parts of others there."""
    notes = []
    spelling = base.spelling
    for path in paths:
        rows = _rows(path, base)
        if rows is None or spelling is None:
            continue
        called = spelling.called[rows.name].removesuffix(".weight")
        if called != path:
            notes.append(
                f"{path} is a part of {called} in PEFT and transformers, which do not open this "
                "adapter; edgellm does"
            )
            break
    if any(base.matrices[path].stored is not None for path in paths):
        notes.append(f"{base.path} is quantized: the changes also hold its rounding errors")
    return notes


def _rows(path: str, base: ModelMatrices) -> StoredRows | None:
    if base.spelling is None:
        return None
    return base.spelling.tensors.get(f"{path}.weight")
