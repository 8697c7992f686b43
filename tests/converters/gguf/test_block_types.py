"""Every block type against the gguf library's own arithmetic."""

import gguf
import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.gguf_files import SCALES, random_blocks

from edgellm.converters.gguf.block_types import (
    AFFINE,
    REQUANTIZED,
    dequantize_blocks,
    join_q4_1,
    join_q5_1,
    join_q8_0,
    split_blocks,
)
from edgellm.converters.tensors.bit_packing import pack, unpack

ROWS, COLUMNS = 6, 512


def library(kind, rows):
    return gguf.quants.dequantize(rows, gguf.GGMLQuantizationType[kind])


def in_mlx(kind, parts):
    """The float32 values of a matrix as MLX stores it."""
    weight, scales, biases = parts
    packed = mx.array(np.ascontiguousarray(weight).view(np.uint32))
    wide = [mx.array(part).astype(mx.float32) for part in (scales, biases)]
    return np.array(mx.dequantize(packed, *wide, 32, AFFINE[kind].bits, dtype=mx.float32))


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
@pytest.mark.parametrize("seed", range(4))
def test_types_that_say_the_same_are_taken_exactly(kind, seed):
    rows = random_blocks(kind, ROWS, COLUMNS, seed)
    assert np.array_equal(in_mlx(kind, split_blocks(kind, rows)), library(kind, rows))


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_every_finite_scale_is_taken_exactly(kind):
    """Subnormal ones too; a bias that passes float16 becomes infinite, which is refused later."""
    scales = np.arange(1 << 16, dtype=np.uint16)
    scales = scales[scales & 0x7FFF < np.float16(511).view(np.uint16)]
    rows = random_blocks(kind, len(scales), 32, 0)
    rows[:, :2] = scales.view(np.uint8).reshape(-1, 2)
    assert np.array_equal(in_mlx(kind, split_blocks(kind, rows)), library(kind, rows))


@pytest.mark.parametrize("kind", ["Q4_K", "Q5_K"])
def test_k_blocks_keep_their_codes_and_round_their_scales_once(kind):
    rows = random_blocks(kind, ROWS, COLUMNS, 1)
    weight, scales, biases = split_blocks(kind, rows)
    bits = AFFINE[kind].bits
    codes = unpack(np.ascontiguousarray(weight), bits).reshape(-1, 32)
    exact = library(kind, rows).reshape(-1, 32)
    blocks = rows.reshape(-1, rows.shape[1] // (COLUMNS // 256))
    whole, least = (
        np.ascontiguousarray(blocks[:, at : at + 2]).view(np.float16).astype(np.float32)
        for at in (0, 2)
    )
    sixes, mins = gguf.quants.Q4_K.get_scale_min(np.ascontiguousarray(blocks[:, 4:16]))
    assert np.array_equal(scales.reshape(-1, 8), (whole * sixes).astype(np.float16))
    assert np.array_equal(biases.reshape(-1, 8), (-(least * mins)).astype(np.float16))
    wide = (whole * sixes).reshape(-1, 1) * codes - (least * mins).reshape(-1, 1)
    assert np.array_equal(wide, exact)


@pytest.mark.parametrize("kind", REQUANTIZED)
def test_the_rest_is_the_library_s_own_arithmetic(kind):
    rows = random_blocks(kind, 2, COLUMNS, 2)
    with np.errstate(all="ignore"):
        assert np.array_equal(dequantize_blocks(kind, rows), library(kind, rows), equal_nan=True)


def test_sizes_of_blocks_are_the_library_s():
    for kind, form in AFFINE.items():
        sizes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
        assert sizes == (form.weights, form.nbytes)
    assert SCALES.keys() <= AFFINE.keys() | REQUANTIZED.keys()


@pytest.mark.parametrize(("kind", "join"), [("Q4_1", join_q4_1), ("Q5_1", join_q5_1)])
def test_blocks_come_back_as_they_were(kind, join):
    rows = random_blocks(kind, ROWS, COLUMNS, 3)
    assert np.array_equal(join(*split_blocks(kind, rows)), rows)


def test_eight_bit_blocks_come_back_as_they_were():
    rows = random_blocks("Q8_0", ROWS, COLUMNS, 3)
    weight, scales, _ = split_blocks("Q8_0", rows)
    assert np.array_equal(join_q8_0((weight ^ 0x80).view(np.int8), scales), rows)


@given(
    bits=st.sampled_from([2, 3, 4, 5, 6, 8]),
    rows=st.integers(1, 3),
    groups=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_packed_codes_are_those_that_mlx_unpacks(bits, rows, groups, seed):
    codes = np.random.default_rng(seed).integers(0, 1 << bits, (rows, 32 * groups), dtype=np.uint8)
    packed = np.ascontiguousarray(pack(codes, bits))
    ones, zeros = mx.ones((rows, groups)), mx.zeros((rows, groups))
    assert np.array_equal(
        np.array(mx.dequantize(mx.array(packed.view(np.uint32)), ones, zeros, 32, bits)), codes
    )
    assert np.array_equal(unpack(packed, bits), codes)
