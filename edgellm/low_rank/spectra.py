"""Spectra of matrices: a model's, those of a full change, or an adapter's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from edgellm.adapters.model_matrices import ModelMatrices, Progress
from edgellm.adapters.stored import is_adapter, open_stored
from edgellm.converters.tensors.recipe import first_few
from edgellm.errors import ConfigError, FormatError, UnsupportedModelError
from edgellm.files.given_path import given_path
from edgellm.low_rank.comparison import require_same_shapes
from edgellm.low_rank.description import change_spectrum
from edgellm.low_rank.svd import Doubles, Spectrum, rank_keeping, spectrum_of

ENERGIES = (0.90, 0.95, 0.99)
"""Shares of the energy whose ranks are told."""


@dataclass(frozen=True, slots=True)
class Spectra:
    """Singular values of some matrices.

    Attributes:
        title: what they are of.
        found: shape and spectrum of each, by the path of the matrix.
    """

    title: str
    found: Mapping[str, tuple[tuple[int, int], Spectrum]]

    def errors(self) -> Doubles:
        """Return the relative error of all together where each has rank 0, 1, 2, ..."""
        whole = sum(spectrum.energy for _, spectrum in self.found.values())
        length = max(len(spectrum.values) for _, spectrum in self.found.values())
        tails = np.zeros(length + 1)
        for _, spectrum in self.found.values():
            own = np.square(spectrum.errors()) * spectrum.energy
            tails[: len(own)] += own
        return np.sqrt(tails / (whole or 1.0))

    def rank_for(self, energy: float) -> int:
        """Return the lowest rank of each at which all together keep this share of the energy."""
        return rank_keeping(self.errors(), energy)

    def sentence(self) -> str:
        """Return which ranks keep which shares."""
        parts = [f"rank {self.rank_for(energy):,} keeps {energy:.0%}" for energy in ENERGIES]
        whose = "of the energy" if len(self.found) == 1 else "of the energy of all together"
        return f"{', '.join(parts)} {whose}"

    def facts(self) -> dict[str, Any]:
        """Return all of it for a JSON document."""
        return {
            "title": self.title,
            "ranks": {f"{energy:g}": self.rank_for(energy) for energy in ENERGIES},
            "relative_errors": self.errors().tolist(),
            "matrices": [
                {
                    "matrix": path,
                    "shape": list(shape),
                    "norm": spectrum.norm,
                    "effective_rank": spectrum.effective_rank,
                    "ranks": {f"{energy:g}": spectrum.rank_for(energy) for energy in ENERGIES},
                    "singular_values": spectrum.values.tolist(),
                }
                for path, (shape, spectrum) in self.found.items()
            ],
        }


def read_spectra(
    source: str,
    wanted: Sequence[str],
    *,
    base: str | None = None,
    progress: Progress | None = None,
) -> Spectra:
    """Return the spectra of matrices, read one at a time.

    Args:
        source: a model, or the folder of an adapter.
        wanted: names of matrices, their ends, or patterns; nothing: all of an adapter.
        base: a model that is taken from the source before; None: none.
        progress: called before each matrix.

    Raises:
        ConfigError: a model is named without a matrix, or an adapter with a base.
        ModelNotFoundError, DownloadError, FormatError, ReadError: what is named is not there, or
            damaged.
        UnsupportedModelError: it has no low-rank changes, only zeros, or is of an unknown kind.
    """
    say = progress or (lambda _index, _count, _name: None)
    path = given_path(source)
    found: dict[str, tuple[tuple[int, int], Spectrum]] = {}
    if is_adapter(path):
        if base is not None:
            raise ConfigError(
                f"{source} is an adapter, whose changes need no base", hint="leave out --base"
            )
        stored = open_stored(path)
        changes = stored.adapter.changes
        if not changes:
            raise UnsupportedModelError(
                f"{source} brings whole tensors and no low-rank changes",
                hint="merge it (edgellm convert BASE DEST --adapter), and compare with --base",
            )
        names = _chosen(wanted, changes, str(path)) or list(changes)
        for index, name in enumerate(names):
            say(index, len(names), name)
            found[name] = changes[name].shape, change_spectrum(stored, name)
        return _not_zero(Spectra(f"changes by the adapter {source}", found))
    model = ModelMatrices(source)
    before = None
    title = f"matrices of {source}"
    if base is not None:
        before = ModelMatrices(base)
        require_same_shapes(model, before)
        title = f"{source} less {base}"
    names = _chosen(wanted, model.matrices, str(path))
    if not names:
        raise ConfigError(
            "no matrix is named, and all of a model take long",
            hint=f"name one, or several with *: --matrix {next(iter(model.matrices))} (also "
            f"{first_few(list(model.matrices)[1:])})",
        )
    for index, name in enumerate(names):
        say(index, len(names), name)
        values = model.matrix(name, less=before)
        found[name] = model.matrices[name].shape, spectrum_of(values)
    return _not_zero(Spectra(title, found))


def _not_zero(spectra: Spectra) -> Spectra:
    if not any(spectrum.energy for _, spectrum in spectra.found.values()):
        raise UnsupportedModelError(
            f"{spectra.title}: all numbers are zero ({first_few(list(spectra.found))})",
            hint="nothing was learned there; name other matrices, or other models",
        )
    return spectra


def _chosen(wanted: Sequence[str], matrices: Mapping[str, object], place: str) -> list[str]:
    """Return the matrices that are named, each once."""
    return list(dict.fromkeys(name for one in wanted for name in _named(matrices, one, place)))


def _named(matrices: Mapping[str, object], wanted: str, place: str) -> list[str]:
    """Return the matrices of a name, of its end, or of a pattern with ``*``.

    Raises:
        FormatError: there is none.
    """
    wanted = wanted.removesuffix(".weight")
    if wanted in matrices:
        return [wanted]
    found = [
        path for path in matrices if fnmatchcase(path, wanted) or fnmatchcase(path, f"*.{wanted}")
    ]
    if not found:
        raise FormatError(
            f"{place} has no matrix {wanted!r}",
            hint=f"name one, or several with *: {first_few(list(matrices))}",
        )
    return found
