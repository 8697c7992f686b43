"""Products by a quantized weight's columns, in pairs of bfloat16, against NumPy in float64."""

import mlx.core as mx
import numpy as np
import pytest

from edgellm.kernels.codegen.abi import MATMUL, PACK, pair_scratch, pair_strip
from edgellm.kernels.codegen.isa import host_isas
from edgellm.kernels.codegen.weight_format import GROUPS, WeightFormat
from edgellm.kernels.host import code_cache, unavailable
from edgellm.kernels.kernel_engine import KernelEngine, make_step, step_array

PAIRS = []
if unavailable() is None:
    PAIRS = [isa for isa in host_isas() if isa.pairs]
pytestmark = pytest.mark.skipif(not PAIRS, reason="this processor adds no pairs of bfloat16")
KINDS = {"f16": mx.float16, "bf16": mx.bfloat16, "f32": mx.float32}
FORMATS = [
    WeightFormat(bits, group, sorted(KINDS)[(row + column) % 3])
    for row, bits in enumerate((2, 3, 4, 5, 6, 8))
    for column, group in enumerate(GROUPS)
]


def multiplied(engine, form, parts, x, *, before=None):
    """``x @ weight``, of x (T, R) and a weight (R, K) of three groups; or that added to it."""
    tokens, rows = x.shape
    out = np.full((tokens, 3 * form.group), np.nan, np.float32) if before is None else before.copy()
    packed = np.empty((-(-tokens // 16), rows, 16), np.float32)
    views = [np.array(part.view(mx.uint8), copy=False) for part in parts]
    names = ("weight", "scales", "biases")
    addresses = {name: view.ctypes.data for name, view in zip(names, views, strict=True)}
    steps = [
        make_step(
            engine.kernel("pack", "words"),
            PACK,
            source=x.ctypes.data,
            target=packed.ctypes.data,
            words=rows,
        ),
        make_step(
            engine.kernel("pair_matmul", form),
            MATMUL,
            **addresses,
            activations=packed.ctypes.data,
            in_features=rows,
            out_features=out.shape[1],
            out=out.ctypes.data,
            out_stride=4 * out.shape[1],
            add=int(before is not None),
            block_rows=pair_strip(form.group),
        ),
    ]
    with engine.lock:
        engine.reserve_scratch(pair_scratch(tokens, pair_strip(form.group)))
        engine.run(step_array(steps), tokens)
    return out


@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_only_scaled_numbers_are_rounded(form):
    rounded = KernelEngine(code_cache(PAIRS[0]), threads=2, activations="int8")
    # more rows than are taken at once; an odd number of vectors of tokens
    draws = np.random.default_rng(form.bits)
    numbers = mx.array(draws.standard_normal((272, 3 * form.group), dtype=np.float32))
    parts = list(mx.quantize(numbers.astype(KINDS[form.kind]), form.group, form.bits))
    mx.eval(parts)
    codes, *tables = parts
    wide = [np.array(table.astype(mx.float32)) for table in tables]
    weight = mx.dequantize(codes, *map(mx.array, wide), form.group, form.bits)
    x = draws.standard_normal((41, 272), dtype=np.float32)
    exact = x.astype(np.float64) @ np.array(weight)
    found = multiplied(rounded, form, parts, x)
    assert np.linalg.norm(found - exact) < 2.2e-3 * np.linalg.norm(exact)
    again = multiplied(rounded, form, parts, x, before=found)
    np.testing.assert_array_equal(again, found + found)
