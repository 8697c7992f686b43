"""Two adapters of one base as one: the sum of their changes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.adapters.stored import (
    AdapterForm,
    Change,
    StoredAdapter,
    open_stored,
    require_products_alone,
)
from edgellm.adapters.written import destination, write_folder
from edgellm.converters.tensors.recipe import first_few
from edgellm.errors import ConfigError, FormatError, UnsupportedModelError
from edgellm.low_rank.svd import spectrum_of_product, truncated_product


@dataclass(frozen=True, slots=True)
class Sum:
    """An adapter that was made.

    Attributes:
        path: its folder.
        ranks: of its changes, by the paths of the matrices.
        error: the norm of what is left out, over that of the sum; 0.0: nothing is.
        nbytes: of its tensors.
        notes: what a person has to know.
    """

    path: Path
    ranks: Mapping[str, int]
    error: float
    nbytes: int
    notes: Sequence[str]

    def facts(self) -> dict[str, Any]:
        """Return all of it for a JSON document."""
        return {
            "path": str(self.path),
            "ranks": dict(self.ranks),
            "relative_error": self.error,
            "bytes": self.nbytes,
            "notes": list(self.notes),
        }


def add_adapters(
    adapters: Sequence[str | Path],
    out: str | Path,
    *,
    weights: Sequence[float] | None = None,
    rank: int | None = None,
    form: AdapterForm | None = None,
    force: bool = False,
) -> Sum:
    """Make an adapter whose changes are the sums of others'.

    The factors stand side by side, so that ranks add and nothing is lost, unless a rank is given:
    then each sum becomes the nearest product of that rank.

    Args:
        adapters: two folders or more, in any form.
        out: the folder to be made.
        weights: what each adapter's changes are multiplied by; None: 1.
        rank: of each change at most; None: the sum of the ranks.
        form: whose; None: that of the first adapter.
        force: replace an adapter that is there.

    Raises:
        ConfigError: a number is out of range, or there is not one weight for each adapter.
        ModelNotFoundError, FormatError, ReadError: an adapter is not there or damaged, or two
            change a matrix of different shapes.
        UnsupportedModelError: one does more than add products.
        ConversionError: the destination is taken, there is no space, or the disk refuses.
    """
    weights = list(weights or [1.0] * len(adapters))
    if len(weights) != len(adapters) or not all(map(math.isfinite, weights)):
        raise ConfigError(
            f"there are {len(adapters)} adapters and the weights {weights}",
            hint="give a number for each adapter: --weights 1,0.5",
        )
    if rank is not None and rank < 1:
        raise ConfigError(f"the rank is {rank}", hint="give a number from 1")
    with destination(out, force=force) as path:
        opened = [open_stored(adapter) for adapter in adapters]
        for stored in opened:
            _require_sums(stored)
        changes: dict[str, Change] = {}
        whole = left_out = 0.0
        for name in dict.fromkeys(name for stored in opened for name in stored.adapter.changes):
            parts = [
                (stored.change(name), weight)
                for stored, weight in zip(opened, weights, strict=True)
                if name in stored.adapter.changes
            ]
            added = _added(name, parts)
            if rank is not None and rank < added.rank:
                found = truncated_product(added.up, added.down, rank)
                whole += found.energy
                left_out += found.energy * found.error**2
                added = Change(found.up, found.down, 1.0, is_embedding=added.is_embedding)
            elif rank is not None:
                whole += spectrum_of_product(added.up, added.down).energy
            changes[name] = added
        nbytes = write_folder(path, changes, form=form or opened[0].form, base=opened[0].base)
    error = math.sqrt(left_out / whole) if whole else 0.0
    ranks = {name: change.rank for name, change in changes.items()}
    return Sum(path, ranks, error, nbytes, _notes(opened))


def _require_sums(stored: StoredAdapter) -> None:
    require_products_alone(stored, "be added to another adapter's")
    lengths = [path for path, item in stored.adapter.changes.items() if item.magnitude is not None]
    if lengths:
        raise UnsupportedModelError(
            f"{stored.path} is a DoRA ({first_few(lengths)}), and a sum of DoRAs is none",
            hint=f"merge it into its base first: edgellm convert BASE DEST --adapter {stored.path}",
        )


def _added(path: str, parts: Sequence[tuple[Change, float]]) -> Change:
    """Return a sum of changes, with their factors side by side and a scale of 1."""
    shapes = {(change.up.shape[0], change.down.shape[1]) for change, _ in parts}
    if len(shapes) > 1:
        raise FormatError(
            f"the adapters change {path} as {' and '.join(map(str, sorted(shapes)))}",
            hint="they belong to different models; adapter_config.json names their bases",
        )
    with np.errstate(over="ignore"):  # what becomes infinite is refused where it is written
        ups = [change.up * np.float32(change.scale * weight) for change, weight in parts]
    downs = [change.down for change, _ in parts]
    is_embedding = parts[0][0].is_embedding
    up = np.concatenate(ups, axis=1)
    return Change(up, np.concatenate(downs, axis=0), 1.0, is_embedding=is_embedding)


def _notes(opened: Sequence[StoredAdapter]) -> list[str]:
    bases = sorted({stored.base for stored in opened if stored.base is not None})
    if len(bases) > 1:
        return [f"the adapters name different bases: {', '.join(bases)}"]
    return []
