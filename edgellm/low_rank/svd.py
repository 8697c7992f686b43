"""Singular values of matrices and of products, and the nearest products of a lower rank."""

# O out, I in, R rank, K the smaller of O and I

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgellm.converters.tensors.floats import Floats

Doubles = npt.NDArray[np.float64]

EXACT_SIDE = 1024
"""Up to this K all singular vectors are computed; it takes a second."""

GRAM_ROWS = 1024
"""Rows of a matrix that are in float64 at once."""

FIRST_RANK = 16
"""The rank that a search for a share of the energy begins with in larger matrices."""

OVERSAMPLING, ITERATIONS, SEED = 10, 3, 0
"""Of the randomized SVD: columns besides the rank, passes there and back, and its draws."""

NOISE = 1e-7
"""A singular value below this share of the largest is rounding of float32."""


@dataclass(frozen=True, slots=True)
class Spectrum:
    """The singular values of a matrix, all of them, the largest first."""

    values: Doubles

    @property
    def energy(self) -> float:
        """The sum of their squares, which is that of the matrix's numbers."""
        return float(np.square(self.values).sum())

    @property
    def norm(self) -> float:
        """The Frobenius norm of the matrix."""
        return math.sqrt(self.energy)

    @property
    def effective_rank(self) -> float:
        """The exponential of the values' entropy (Roy & Vetterli 2007); 0 of a zero matrix."""
        total = float(self.values.sum())
        if not total:
            return 0.0
        shares = self.values[self.values > 0] / total
        return math.exp(-float((shares * np.log(shares)).sum()))

    def errors(self) -> Doubles:
        """Return the relative error of the nearest matrix of rank 0, 1, 2, ... (Eckart & Young)."""
        squares = np.square(self.values)
        tails = np.append(np.cumsum(squares[::-1])[::-1], 0.0)
        return np.sqrt(tails / (tails[0] or 1.0))

    def rank_for(self, energy: float) -> int:
        """Return the lowest rank that keeps this share of the energy."""
        return rank_keeping(self.errors(), energy)


@dataclass(frozen=True, slots=True)
class Truncated:
    """A product near a matrix.

    Attributes:
        up: (O, R).
        down: (R, I).
        energy: the sum of squares of the matrix.
        kept: that of the product; the rest is the square of the error.
        is_nearest: whether no product of this rank is nearer.
    """

    up: Floats
    down: Floats
    energy: float
    kept: float
    is_nearest: bool = True

    @property
    def rank(self) -> int:
        """R."""
        return int(self.down.shape[0])

    @property
    def error(self) -> float:
        """The norm of what is left out, over that of the matrix."""
        if not self.energy:
            return 0.0
        return math.sqrt(max(0.0, 1.0 - self.kept / self.energy))


def rank_keeping(errors: Doubles, energy: float) -> int:
    """Return the lowest rank that keeps a share of the energy, by the errors of rank 0, 1, ..."""
    # rounding must not ask for a rank that adds nothing
    return int(np.argmax(1.0 - np.square(errors) >= min(energy, 1.0) - 1e-12))


def spectrum_of_product(up: Floats, down: Floats) -> Spectrum:
    """Return the singular values of ``up @ down``, (O, R) and (R, I); O x I is never made."""
    core = _factor(up) @ _factor(down.T).T
    return Spectrum(np.linalg.svd(core, compute_uv=False).astype(np.float64))


def spectrum_of(matrix: Floats) -> Spectrum:
    """Return all K singular values of a matrix, each to 1e-8 of the largest."""
    squares = np.linalg.eigvalsh(_gram(matrix))[::-1]
    return Spectrum(np.sqrt(np.maximum(squares, 0.0)))


def truncated_product(up: Floats, down: Floats, rank: int) -> Truncated:
    """Return the nearest product of at most this rank to ``up @ down``."""
    left, left_core = np.linalg.qr(up.astype(np.float64))
    right, right_core = np.linalg.qr(down.T.astype(np.float64))
    u, values, vt = np.linalg.svd(left_core @ right_core.T, full_matrices=False)
    spectrum = Spectrum(values)
    return _balanced(left @ u, spectrum, vt @ right.T, _usable(spectrum, rank))


def truncated_matrix(matrix: Floats, *, rank: int | None, energy: float | None) -> Truncated:
    """Return a product near a matrix (O, I).

    Up to a K of ``EXACT_SIDE``, or where much of it is asked for, it is the nearest one. Else it is
    that of a randomized SVD (Halko, Martinsson & Tropp 2011) with fixed draws, whose error is
    computed, not estimated.

    Args:
        matrix: in float32.
        rank: the highest; None: any.
        energy: the share of the sum of squares to keep; None: what the rank can.
    """
    smaller = min(matrix.shape)
    most = min(smaller, rank or smaller)
    target = most if energy is None else min(most, FIRST_RANK)
    while smaller > EXACT_SIDE and target + OVERSAMPLING <= smaller // 4:
        found = _randomized(matrix, target, energy)
        enough = energy is not None and found.kept >= energy * found.energy
        if enough or target == most:
            return found
        target = min(2 * target, most)
    return _exact(matrix, most, energy)


def _exact(matrix: Floats, most: int, energy: float | None) -> Truncated:
    """Return the nearest product, by the eigenvectors of the smaller Gram matrix."""
    turned = matrix.shape[0] < matrix.shape[1]
    tall = matrix.T if turned else matrix
    squares, vectors = np.linalg.eigh(_gram(tall))
    spectrum = Spectrum(np.sqrt(np.maximum(squares[::-1], 0.0)))
    rank = _rank(spectrum, most, energy)
    right = vectors[:, ::-1][:, :rank].T  # (R, K)
    values = np.where(spectrum.values[:rank] > 0, spectrum.values[:rank], 1.0)
    left = (tall @ right.T.astype(np.float32)) / values
    if turned:
        left, right = right.T, left.T
    return _balanced(left, spectrum, right, rank)


def _randomized(matrix: Floats, rank: int, energy: float | None) -> Truncated:
    draws = np.random.default_rng(SEED)
    width = rank + OVERSAMPLING
    basis = matrix @ draws.standard_normal((matrix.shape[1], width), dtype=np.float32)
    for _ in range(ITERATIONS):
        basis, _ = np.linalg.qr(basis)
        basis, _ = np.linalg.qr(matrix.T @ basis)
        basis = matrix @ basis
    basis, _ = np.linalg.qr(basis)
    u, values, vt = np.linalg.svd((basis.T @ matrix).astype(np.float64), full_matrices=False)
    whole = sum(float(np.square(row, dtype=np.float64).sum()) for row in matrix)
    chosen = rank
    if energy is not None:
        kept = np.cumsum(np.square(values[:rank]))
        chosen = min(rank, int(np.searchsorted(kept, energy * whole)) + 1)
    made = _balanced(basis.astype(np.float64) @ u, Spectrum(values), vt, chosen)
    return Truncated(made.up, made.down, whole, min(made.kept, whole), is_nearest=False)


def _balanced(left: Doubles, spectrum: Spectrum, right: Doubles, rank: int) -> Truncated:
    """Return factors that share each singular value."""
    roots = np.sqrt(spectrum.values[:rank])
    up = np.ascontiguousarray(left[:, :rank] * roots, dtype=np.float32)
    down = np.ascontiguousarray(roots[:, None] * right[:rank], dtype=np.float32)
    kept = float(np.square(spectrum.values[:rank]).sum())
    return Truncated(up, down, spectrum.energy, kept)


def _rank(spectrum: Spectrum, most: int, energy: float | None) -> int:
    if energy is not None:
        most = min(most, spectrum.rank_for(energy))
    return _usable(spectrum, most)


def _usable(spectrum: Spectrum, rank: int) -> int:
    """Return a rank without values that are rounding; 1 at least."""
    values = spectrum.values
    return max(1, min(rank, int((values > NOISE * values[0]).sum())))


def _factor(matrix: Floats) -> Doubles:
    """Return R of the matrix's QR, without Q."""
    return np.asarray(np.linalg.qr(matrix.astype(np.float64), mode="r"))


def _gram(matrix: Floats) -> Doubles:
    """Return the products (K, K) of the smaller side's vectors with each other."""
    if matrix.shape[0] < matrix.shape[1]:
        matrix = matrix.T
    rows, columns = matrix.shape
    gram = np.zeros((columns, columns))
    for start in range(0, rows, GRAM_ROWS):
        part = matrix[start : start + GRAM_ROWS].astype(np.float64)
        gram += part.T @ part
    return gram
