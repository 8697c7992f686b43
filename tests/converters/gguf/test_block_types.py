"""Every block type against the gguf library's own arithmetic."""

import gguf
import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.gguf_files import SCALES, random_blocks

from edgellm.converters.gguf.blocks.joins import (
    join_float4,
    join_q4_1,
    join_q5_1,
    join_q8_0,
    join_signed,
)
from edgellm.converters.gguf.blocks.level_blocks import dequantize_blocks
from edgellm.converters.gguf.blocks.sizes import type_of
from edgellm.converters.gguf.blocks.table import BLOCKS, FORMS, REQUANTIZED, split_blocks
from edgellm.converters.tensors.bit_packing import pack, unpack
from edgellm.converters.tensors.weight_stream import dequantize, quantize

ROWS, COLUMNS = 6, 512


def library(kind, rows):
    return gguf.quants.dequantize(rows, gguf.GGMLQuantizationType[kind])


def in_mlx(kind, parts):
    """The float32 values of a matrix as MLX stores it."""
    weight, scales, biases = parts
    packed = mx.array(np.ascontiguousarray(weight).view(np.uint32))
    wide = [mx.array(scales)]
    if biases is not None:
        wide = [mx.array(part).astype(mx.float32) for part in (scales, biases)]
    form = FORMS[kind].as_config()
    return np.array(mx.dequantize(packed, *wide, **form, dtype=mx.float32))


EXACT = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "TQ1_0", "TQ2_0", "IQ4_NL", "MXFP4", "NVFP4"]


@pytest.mark.parametrize("kind", EXACT)
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
    bits = FORMS[kind].bits
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


@pytest.mark.parametrize(
    ("kind", "most"),
    [("IQ1_S", 7e-4), ("IQ3_S", 7e-4), ("IQ2_XXS", 0.03), ("IQ3_XXS", 0.03), ("IQ4_XS", 0.03)],
)
def test_values_of_a_table_become_evenly_spaced_levels(kind, most):
    rows = random_blocks(kind, 64, COLUMNS, 3)
    made, exact = in_mlx(kind, split_blocks(kind, rows)), library(kind, rows)
    change = np.sqrt(np.square(made - exact).mean() / np.square(exact).mean())
    assert change < most
    assert change < 7e-4 or BLOCKS[kind].change


@pytest.mark.parametrize("kind", ["IQ3_XXS", "IQ3_S", "IQ4_XS", "IQ4_NL", "TQ1_0"])
def test_a_group_of_zeros_stays_one(kind):
    rows = random_blocks(kind, 2, COLUMNS, 3).reshape(-1, BLOCKS[kind].nbytes)
    place = SCALES[kind][0]
    rows[:, place : place + 2] = 0
    assert not in_mlx(kind, split_blocks(kind, rows)).any()


# Blocks of llama.cpp (llama-cpp-python 0.3.36, ggml 0.25.3), a scale of 1.0 (0x3C00) and bytes from
# 0x1B down, and the first values that its own dequantize gives them.
@pytest.mark.parametrize(
    ("kind", "values"),
    [("Q1_0", [1, 1, -1, 1, 1, -1, -1, -1]), ("Q2_0", [2, 1, 0, -1, 1, 1, 0, -1])],
)
def test_types_of_one_and_two_bits_are_as_llama_cpp_reads_them(kind, values):
    rows = np.array([[0, 0x3C, *range(0x1B, 0x0B, -1)]], np.uint8)
    assert in_mlx(kind, split_blocks(kind, rows))[0, :8].tolist() == values


# What llama.cpp's own quantizer loses on a row of a normal distribution (llama-cpp-python 0.3.36,
# ggml_quantize_chunk, 32 rows of 4096): the second quantization may add 5 % of it.
OWN_ERRORS = {
    "Q2_K": 0.269,
    "Q3_K": 0.145,
    "Q6_K": 0.0174,
    "IQ1_M": 0.452,
    "IQ2_XXS": 0.343,
    "IQ2_XS": 0.299,
    "IQ2_S": 0.249,
    "IQ3_XXS": 0.182,
    "IQ3_S": 0.137,
    "IQ4_NL": 0.075,
    "IQ4_XS": 0.0757,
}


@pytest.mark.parametrize("kind", OWN_ERRORS)
def test_the_second_quantization_is_small_beside_the_first(kind):
    rows = random_blocks(kind, 16, 2048, 5)
    if kind == "IQ1_M":  # its scale lies in the top bits of four numbers
        rows.reshape(-1, 56)[:, 49::2] &= 0x0F
        rows.reshape(-1, 56)[:, 55] |= 0x20
    exact = library(kind, rows)
    if kind in BLOCKS:
        made = in_mlx(kind, split_blocks(kind, rows))
    else:
        form = FORMS[kind]
        made = np.array(dequantize(quantize(mx.array(exact), form, mx.float16), form))
    change = np.sqrt(np.square(made - exact).mean() / np.square(exact).mean())
    # random bytes change a little more than blocks of weights (IQ2_XS: 1.052 here, 1.043 there)
    assert np.hypot(1, change / OWN_ERRORS[kind]) < 1.055


def test_sizes_of_blocks_are_the_library_s():
    for kind, block in BLOCKS.items():
        if kind != "Q2_0":
            number = gguf.GGMLQuantizationType[kind].value
            assert type_of(number) == (kind, block.weights, block.nbytes)
    assert type_of(42) == ("Q2_0", BLOCKS["Q2_0"].weights, BLOCKS["Q2_0"].nbytes)
    assert type_of(4) == type_of(1 << 31) == ("", 0, 0)
    assert SCALES.keys() <= BLOCKS.keys() | REQUANTIZED.keys()


@pytest.mark.parametrize(("kind", "join"), [("Q4_1", join_q4_1), ("Q5_1", join_q5_1)])
def test_blocks_come_back_as_they_were(kind, join):
    rows = random_blocks(kind, ROWS, COLUMNS, 3)
    assert np.array_equal(join(*split_blocks(kind, rows)), rows)


def test_eight_bit_blocks_come_back_as_they_were():
    rows = random_blocks("Q8_0", ROWS, COLUMNS, 3)
    weight, scales, _ = split_blocks("Q8_0", rows)
    assert np.array_equal(join_q8_0((weight ^ 0x80).view(np.int8), scales), rows)


@pytest.mark.parametrize("kind", ["Q1_0", "Q2_0"])
def test_small_blocks_come_back_as_they_were(kind):
    rows = random_blocks(kind, ROWS, COLUMNS, 3)
    weight, _, biases = split_blocks(kind, rows)
    assert np.array_equal(join_signed(weight, -biases), rows)


@pytest.mark.parametrize(("kind", "group"), [("MXFP4", 32), ("NVFP4", 16)])
def test_float4_blocks_come_back_as_they_were(kind, group):
    rows = random_blocks(kind, ROWS, COLUMNS, 3)
    weight, scales, _ = split_blocks(kind, rows)
    assert np.array_equal(join_float4(weight, scales, group), rows)


@given(
    bits=st.sampled_from([1, 2, 3, 4, 5, 6, 8]),
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
