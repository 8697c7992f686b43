"""Figures of what an adapter's folder holds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgellm.adapters.stored import StoredAdapter, inner_name, layer_of
from edgellm.files.bounded import read_errors
from edgellm.low_rank.svd import Spectrum, spectrum_of_product


@dataclass(frozen=True, slots=True)
class ChangeFacts:
    """A change of a matrix.

    Attributes:
        path: of the matrix.
        shape: of the matrix.
        rank: of the product.
        scale: what the product is multiplied by.
        is_dora: whether rows get lengths of their own afterwards.
        spectrum: singular values of the product, scaled.
    """

    path: str
    shape: tuple[int, int]
    rank: int
    scale: float
    is_dora: bool
    spectrum: Spectrum

    @property
    def numbers(self) -> int:
        """How many were learned: both factors, and DoRA's lengths."""
        rows, columns = self.shape
        return self.rank * (rows + columns) + self.is_dora * rows

    def facts(self) -> dict[str, Any]:
        """Return all of it for a JSON document."""
        return {
            "matrix": self.path,
            "shape": list(self.shape),
            "rank": self.rank,
            "scale": self.scale,
            "dora": self.is_dora,
            "numbers": self.numbers,
            "norm": self.spectrum.norm,
            "effective_rank": self.spectrum.effective_rank,
            "singular_values": self.spectrum.values[: self.rank].tolist(),
        }


@dataclass(frozen=True, slots=True)
class AdapterFacts:
    """An adapter.

    Attributes:
        stored: the folder.
        changes: of matrices, in the order of the file.
        file_bytes: of its tensors' file.
    """

    stored: StoredAdapter
    changes: Sequence[ChangeFacts]
    file_bytes: int

    @property
    def targets(self) -> Mapping[str, Sequence[ChangeFacts]]:
        """The changes by the matrices' names inside their layers."""
        found: dict[str, list[ChangeFacts]] = {}
        for change in self.changes:
            found.setdefault(inner_name(change.path), []).append(change)
        return found

    @property
    def layers(self) -> Sequence[int]:
        """The numbers of the layers that are changed."""
        numbers = {layer_of(change.path) for change in self.changes}
        return sorted(number for number in numbers if number is not None)

    @property
    def kind(self) -> str:
        """``LoRA``, ``DoRA``, or ``whole tensors``."""
        if not self.changes:
            return "whole tensors"
        if any(change.is_dora for change in self.changes):
            return "DoRA"
        return "LoRA"

    @property
    def norm(self) -> float:
        """The Frobenius norm of all changes together."""
        return math.sqrt(sum(change.spectrum.energy for change in self.changes))

    def facts(self) -> dict[str, Any]:
        """Return all of it for a JSON document."""
        adapter = self.stored.adapter
        return {
            "path": str(self.stored.path),
            "format": self.stored.form,
            "kind": self.kind,
            "base": self.stored.base,
            "ranks": sorted({change.rank for change in self.changes}),
            "scales": sorted({change.scale for change in self.changes}),
            "rslora": self.stored.config.get("use_rslora") is True,
            "targets": list(self.targets),
            "layers": list(self.layers),
            "numbers": sum(change.numbers for change in self.changes),
            "bytes": self.file_bytes,
            "norm": self.norm,
            "changes": [change.facts() for change in self.changes],
            "whole_tensors": sorted(adapter.replacements),
            "tokens": {path: list(rows.ids) for path, rows in adapter.token_rows.items()},
        }


def describe(stored: StoredAdapter) -> AdapterFacts:
    """Read an adapter, and return what it holds.

    Raises:
        ReadError: a file cannot be read.
        FormatError: a value is infinite or not a number.
    """
    changes = []
    for path, low_rank in stored.adapter.changes.items():
        changes.append(
            ChangeFacts(
                path,
                low_rank.shape,
                low_rank.down.shape[0],
                low_rank.scale,
                low_rank.magnitude is not None,
                change_spectrum(stored, path),
            )
        )
    file = stored.adapter.files[0]
    with read_errors(file):
        nbytes = file.stat().st_size
    return AdapterFacts(stored, changes, nbytes)


def change_spectrum(stored: StoredAdapter, path: str) -> Spectrum:
    """Return the singular values of a change, its scale included. Raises FormatError, ReadError."""
    change = stored.change(path)
    values = spectrum_of_product(change.up, change.down).values
    return Spectrum(abs(change.scale) * values)
