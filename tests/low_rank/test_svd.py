"""The arithmetic of singular values against NumPy's own SVD."""

import numpy as np
import pytest

from edgellm.low_rank.svd import (
    EXACT_SIDE,
    spectrum_of,
    spectrum_of_product,
    truncated_matrix,
    truncated_product,
)

RANDOM = np.random.default_rng(7)


def decaying(rows, columns, power=1.0):
    """A matrix whose singular values fall as those of changes that were learned do."""
    draws = np.random.default_rng(rows + columns)
    size = min(rows, columns)
    left, _ = np.linalg.qr(draws.standard_normal((rows, size)))
    right, _ = np.linalg.qr(draws.standard_normal((columns, size)))
    values = np.arange(1, size + 1) ** -power
    return ((left * values) @ right.T).astype(np.float32)


@pytest.mark.parametrize("shape", [(40, 64), (64, 40), (30, 30)])
def test_spectra_are_numpys(shape):
    matrix = decaying(*shape)
    expected = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
    found = spectrum_of(matrix)
    assert np.abs(found.values - expected).max() < 1e-7
    tails = [np.sqrt((expected[rank:] ** 2).sum()) for rank in range(len(expected) + 1)]
    assert np.abs(found.errors() - np.array(tails) / tails[0]).max() < 1e-7
    assert found.norm == pytest.approx(np.linalg.norm(matrix), rel=1e-6)


def test_a_product_has_the_spectrum_of_its_matrix():
    up = RANDOM.standard_normal((50, 6)).astype(np.float32)
    down = RANDOM.standard_normal((6, 70)).astype(np.float32)
    expected = np.linalg.svd(up.astype(np.float64) @ down, compute_uv=False)
    assert np.allclose(spectrum_of_product(up, down).values, expected[:6], rtol=1e-12)
    wide = spectrum_of_product(np.tile(up, 10), np.tile(down, (10, 1)))  # R above O
    assert np.allclose(wide.values[:6], 10 * expected[:6], rtol=1e-6)


def test_the_rank_for_an_energy_is_the_lowest_that_keeps_it():
    spectrum = spectrum_of(np.diag([3.0, 2.0, 1.0, 0.0]).astype(np.float32))
    assert spectrum.effective_rank == pytest.approx(
        np.exp(-sum(share * np.log(share) for share in (3 / 6, 2 / 6, 1 / 6)))
    )
    assert [spectrum.rank_for(energy) for energy in (0.5, 9 / 14, 0.66, 13 / 14, 0.95, 1.0)] == [
        1, 1, 2, 2, 3, 3,
    ]  # fmt: skip
    zeros = spectrum_of(np.zeros((3, 4), np.float32))
    assert (zeros.norm, zeros.effective_rank) == (0.0, 0.0)
    assert not np.isnan(zeros.errors()).any()


@pytest.mark.parametrize("shape", [(40, 64), (64, 40)])
@pytest.mark.parametrize("rank", [1, 5, 40])
def test_a_truncated_matrix_is_the_nearest_one(shape, rank):
    matrix = decaying(*shape)
    found = truncated_matrix(matrix, rank=rank, energy=None)
    values = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
    left_out = np.linalg.norm(matrix - found.up.astype(np.float64) @ found.down)
    assert left_out == pytest.approx(np.sqrt((values[rank:] ** 2).sum()), abs=1e-6)
    assert found.error == pytest.approx(left_out / np.linalg.norm(matrix), abs=1e-6)
    assert (found.rank, found.is_nearest) == (rank, True)
    assert np.allclose(np.linalg.norm(found.up, axis=0), np.linalg.norm(found.down, axis=1))


def test_an_energy_chooses_the_rank_of_a_truncated_matrix():
    matrix = decaying(40, 64, power=0.5)
    spectrum = spectrum_of(matrix)
    for energy in (0.3, 0.9, 1.0):
        found = truncated_matrix(matrix, rank=None, energy=energy)
        assert found.rank == spectrum.rank_for(energy)
        assert found.kept >= (energy - 1e-9) * found.energy
    assert truncated_matrix(matrix, rank=3, energy=0.9).rank == 3


def test_a_large_matrix_is_near_its_nearest_one_and_its_error_is_the_measured_one():
    rows, columns = EXACT_SIDE + 8, EXACT_SIDE + 2
    low = decaying(rows, 48) @ decaying(48, columns, power=0.3)
    noise = np.random.default_rng(3).standard_normal((rows, columns)).astype(np.float32)
    matrix = low + noise * np.float32(1e-5)
    spectrum = spectrum_of(matrix)
    values = spectrum.values
    found = truncated_matrix(matrix, rank=16, energy=None)
    again = truncated_matrix(matrix, rank=16, energy=None)
    assert np.array_equal(found.up, again.up)
    assert not found.is_nearest
    left_out = np.linalg.norm(matrix - found.up @ found.down) / np.linalg.norm(matrix)
    least = np.sqrt((values[16:] ** 2).sum() / (values**2).sum())
    assert found.error == pytest.approx(left_out, rel=1e-3)
    assert least * (1 - 1e-4) <= found.error <= 1.001 * least
    wide = truncated_matrix(matrix, rank=None, energy=0.99)
    assert abs(wide.rank - spectrum.rank_for(0.99)) <= 1
    assert wide.kept >= 0.99 * wide.energy


def test_a_truncated_product_is_the_nearest_one():
    up = RANDOM.standard_normal((50, 9)).astype(np.float32)
    down = RANDOM.standard_normal((9, 33)).astype(np.float32)
    whole = up.astype(np.float64) @ down
    values = np.linalg.svd(whole, compute_uv=False)
    for rank in (1, 4, 9, 20):
        found = truncated_product(up, down, rank)
        left_out = np.linalg.norm(whole - found.up.astype(np.float64) @ found.down)
        assert left_out == pytest.approx(np.sqrt((values[rank:] ** 2).sum()), abs=1e-4)
        assert found.error == pytest.approx(left_out / np.linalg.norm(whole), abs=1e-5)
