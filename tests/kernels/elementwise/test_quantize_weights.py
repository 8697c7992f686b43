"""Quantized rows against ``mx.quantize``, byte by byte."""

import ctypes
from itertools import cycle, product

import mlx.core as mx
import numpy as np
import pytest

from edgellm.kernels.code_cache import function
from edgellm.kernels.codegen.isa import host_isas
from edgellm.kernels.codegen.weight_format import GROUPS, WeightFormat
from edgellm.kernels.host import code_cache, unavailable
from edgellm.kernels.weight_quantizer import KERNEL_BITS, quantize_rows

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))
TYPES = {"bf16": mx.bfloat16, "f16": mx.float16, "f32": mx.float32}
CODES = {"bf16": "BF16", "f16": "F16", "f32": "F32"}
ISAS = []
if unavailable() is None:
    ISAS = host_isas()
# every width and group, in turn for every processor and every pair of types
CASES = list(zip(product(KERNEL_BITS, GROUPS), cycle(product(TYPES, TYPES)), cycle(ISAS)))


def odd_numbers(kind):
    """Groups of 128 numbers: usual ones, equal ones, zeros of both signs, tiny and large ones."""
    rng = np.random.default_rng(5)
    groups = rng.standard_normal((96, 128)).astype(np.float32)
    groups[:64] *= 10.0 ** rng.uniform(-7, 4, (64, 1))
    groups[64:72] = groups[64:72, :1]
    groups[72:76] = np.where(groups[72:76] > 0, 0.0, -0.0)
    groups[76:80] = np.abs(groups[76:80]) + 100
    groups[80:84] = -np.abs(groups[80:84]) - 100
    groups[84:90] = np.rint(groups[84:90] * 8) / 8  # many lie half-way between two codes
    groups[90:92] = 0
    groups[92:96] *= np.float32(1e-42)  # denormal
    return mx.array(groups).astype(TYPES[kind])


def by_mlx(values, form):
    """Weight, scales and biases; codes of 8 bits are those of the scales as they are stored."""
    dtype = TYPES[form.kind]
    weight, scales, biases = mx.quantize(values.astype(mx.float32), form.group, form.bits)
    scales, biases = scales.astype(dtype), biases.astype(dtype)
    if form.bits == 8:
        groups = values.astype(mx.float32).reshape(len(values), -1, form.group)
        levels = (groups - biases[..., None]) / scales[..., None].astype(mx.float32)
        weight = mx.clip(mx.round(levels), 0, 255).astype(mx.uint8)
    return [np.array(part.view(mx.uint8)).reshape(-1) for part in (weight, scales, biases)]


@pytest.mark.parametrize(("width", "kinds", "isa"), CASES, ids=str)
def test_the_bytes_are_those_of_mlx(width, kinds, isa):
    form = WeightFormat(*width, kinds[1])
    values = odd_numbers(kinds[0])
    rows = np.array(values.view(mx.uint8)).reshape(-1)
    expected = by_mlx(values, form)
    made = [np.zeros_like(part) for part in expected]
    largest = np.zeros(1, np.int32)
    pointer = ctypes.c_void_p
    address = code_cache(isa).kernel("quantize_weights", kinds[0], form)
    kernel = function(address, pointer, pointer, pointer, pointer, ctypes.c_int64, pointer)
    addresses = [array.ctypes.data for array in (rows, *made)]
    kernel(*addresses, values.size // form.group, largest.ctypes.data)
    for got, wanted in zip(made, expected, strict=True):
        np.testing.assert_array_equal(got, wanted)
    magnitude = np.abs(np.array(values.astype(mx.float32))).max()
    assert largest.view(np.float32)[0] == magnitude


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("odd", [np.inf, -np.inf, np.nan, -np.nan])
def test_what_is_not_finite_is_told(kind, odd):
    values = np.array(odd_numbers(kind).astype(mx.float32))
    told = []
    for place in (None, 0, 4999, values.size - 1):
        changed = values.copy()
        if place is not None:
            changed.reshape(-1)[place] = odd
        rows = np.array(mx.array(changed).astype(TYPES[kind]).view(mx.uint8)).reshape(-1)
        made = quantize_rows(rows, CODES[kind], bits=4, group_size=64, scale_dtype=CODES[kind])
        told.append(made.is_finite)
    assert told == [True, False, False, False]
