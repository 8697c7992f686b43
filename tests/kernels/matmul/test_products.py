"""Products with a weight against MLX's own, and against the same arithmetic in NumPy."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgellm.kernels.codegen.weight_format import BITS, GROUPS, WeightFormat
from edgellm.kernels.host import unavailable
from edgellm.kernels.kernel_engine import KernelEngine, step_array
from edgellm.kernels.product_steps import Matrix, arithmetic, product_steps

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))
KINDS = {"f16": mx.float16, "bf16": mx.bfloat16, "f32": mx.float32}
# most of the time goes to compiling: nearly every example has a format of its own
EXAMPLES = settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def address(array: mx.array) -> int:
    view = array.view(mx.uint8)
    mx.eval(view)
    return np.array(view, copy=False).ctypes.data


class Weight:
    """A weight in MLX's memory, and as a matrix for the kernels."""

    def __init__(self, weight_format: WeightFormat, rows: int, columns: int, seed: int = 0):
        rng = np.random.default_rng(seed)
        numbers = mx.array(
            rng.standard_normal((rows, columns), dtype=np.float32) * columns**-0.5
        ).astype(KINDS[weight_format.kind])
        self.format = weight_format
        if weight_format.dense:
            self.parts = [numbers]
        else:
            self.parts = list(
                mx.quantize(numbers, group_size=weight_format.group, bits=weight_format.bits)
            )
        mx.eval(self.parts)
        self.matrix = Matrix(weight_format, rows, columns, *map(address, self.parts))

    def numbers(self) -> np.ndarray:
        """The weight in float32, unrounded."""
        if self.format.dense:
            return np.array(self.parts[0].astype(mx.float32))
        codes, scales, biases = self.parts
        wide = (scales.astype(mx.float32), biases.astype(mx.float32))
        return np.array(
            mx.dequantize(codes, *wide, group_size=self.format.group, bits=self.format.bits)
        )

    def times(self, x: np.ndarray) -> np.ndarray:
        """MLX's own product, in float32."""
        if self.format.dense:
            return np.array(mx.array(x) @ self.parts[0].astype(mx.float32).T)
        codes, scales, biases = (
            part if part.dtype == mx.uint32 else part.astype(mx.float32) for part in self.parts
        )
        return np.array(
            mx.quantized_matmul(
                mx.array(x),
                codes,
                scales=scales,
                biases=biases,
                group_size=self.format.group,
                bits=self.format.bits,
            )
        )


def product(
    engine: KernelEngine,
    weights: list[Weight],
    x: np.ndarray,
    out: np.ndarray | None = None,
) -> np.ndarray:
    tokens = len(x)
    rows = sum(weight.matrix.out_features for weight in weights)
    result = np.full((tokens, rows), np.nan, np.float32)
    if out is not None:
        result[:] = out
    matrices = [weight.matrix for weight in weights]
    with engine.lock:
        version = -1
        while version != engine.workspace.version:
            version = engine.workspace.version
            steps = product_steps(
                engine,
                matrices,
                x.ctypes.data,
                result.ctypes.data,
                tokens=tokens,
                add=out is not None,
            )
        engine.run(step_array(steps), tokens)
    return result


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


CODED = [
    WeightFormat(bits, group, sorted(KINDS)[(row + column) % 3])
    for row, bits in enumerate(BITS)
    for column, group in enumerate(GROUPS)
]
"""Any two of bits, group and kind meet in one of them; all tests share what is compiled."""

DENSE = [WeightFormat(0, 0, kind) for kind in KINDS]
formats = st.sampled_from([*CODED, *DENSE])


def columns_of(weight_format: WeightFormat, blocks: int, odd: int) -> int:
    """Whole groups; of plain numbers any number."""
    if weight_format.dense:
        return 20 * blocks + odd
    return weight_format.group * blocks


@EXAMPLES
@given(
    weight_format=formats,
    rows=st.integers(1, 150),
    blocks=st.integers(1, 9),
    odd=st.integers(0, 7),
    tokens=st.integers(1, 70),
)
def test_the_float_path_is_mlx_own_product(floats, *, weight_format, rows, blocks, odd, tokens):
    columns = columns_of(weight_format, blocks, odd)
    weight = Weight(weight_format, rows, columns)
    x = np.random.default_rng(1).standard_normal((tokens, columns), dtype=np.float32)
    assert distance(product(floats, [weight], x), weight.times(x)) < 1e-5


def int8(x: np.ndarray, group: int) -> np.ndarray:
    """Round activations to int8, with a scale a group, and back."""
    grouped = x.reshape(len(x), -1, group)
    largest = np.abs(grouped).max(-1, keepdims=True)
    codes = np.rint(grouped * (np.float32(127) / largest))
    return (codes * (largest / np.float32(127))).reshape(x.shape)


def bf16(x: np.ndarray) -> np.ndarray:
    return np.array(mx.array(x).astype(mx.bfloat16).astype(mx.float32))


@EXAMPLES
@given(
    weight_format=st.sampled_from([form for form in CODED if form.bits in {4, 8}]),
    rows=st.integers(1, 150),
    blocks=st.integers(1, 20),
    tokens=st.integers(1, 70),
)
def test_rounded_products_round_the_activations_and_nothing_else(
    rounded, *, weight_format, rows, blocks, tokens
):
    columns = weight_format.group * blocks
    weight = Weight(weight_format, rows, columns)
    x = np.random.default_rng(1).standard_normal((tokens, columns), dtype=np.float32)
    left, right = {
        "int8": (int8(x, weight_format.group), weight.numbers()),
        "tiles": (bf16(x), bf16(weight.numbers())),
        "float": (x, weight.numbers()),
    }[arithmetic(rounded, weight.matrix, many=tokens > rounded.max_exact_rows)]
    found = product(rounded, [weight], x)
    # a number between two codes may go either way: a few of them in a thousand differ by one
    assert distance(found, left @ right.T) < 2e-3
    assert distance(found, x @ weight.numbers().T) < 0.02


@EXAMPLES
@given(
    weight_format=formats,
    rows=st.integers(1, 70),
    blocks=st.integers(1, 19),
    odd=st.integers(0, 7),
    tokens=st.integers(2, 16),
    add=st.booleans(),
)
def test_each_of_few_tokens_gets_what_it_gets_alone(
    either, *, weight_format, rows, blocks, odd, tokens, add
):
    columns = columns_of(weight_format, blocks, odd)
    weight = Weight(weight_format, rows, columns)
    x = np.random.default_rng(1).standard_normal((tokens, columns), dtype=np.float32)
    before = [None] * tokens
    out = None
    if add:
        out = np.random.default_rng(2).standard_normal((tokens, rows), dtype=np.float32)
        before = np.split(out, tokens)
    together = product(either, [weight], x, out)
    for token in range(tokens):
        own = slice(token, token + 1)
        alone = product(either, [weight], x[own], before[token])
        assert np.array_equal(together[own], alone)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("rows", [16, 48, 1000])
def test_few_tokens_of_the_commonest_form_do_not_touch_each_other(rounded, bits, rows):
    weight = Weight(WeightFormat(bits, 64, "f16"), rows, 1408)
    x = np.random.default_rng(1).standard_normal((16, 1408), dtype=np.float32)
    alone = np.concatenate([product(rounded, [weight], x[n : n + 1]) for n in range(16)])
    for tokens in (2, 3, 4, 7, 15, 16):
        assert np.array_equal(product(rounded, [weight], x[:tokens]), alone[:tokens]), tokens


@pytest.mark.parametrize("bits", [4, 8])
def test_a_token_of_many_gets_the_same_wherever_they_are_cut(rounded, bits):
    weight = Weight(WeightFormat(bits, 64, "f16"), 72, 320)
    x = np.random.default_rng(1).standard_normal((71, 320), dtype=np.float32)
    together = product(rounded, [weight], x)
    for first, stop in ((0, 17), (17, 50), (40, 71), (5, 70)):
        assert np.array_equal(product(rounded, [weight], x[first:stop]), together[first:stop])


@pytest.mark.parametrize("tokens", [1, 40])
def test_weights_in_different_forms_stand_side_by_side(floats, tokens):
    rows = {4: 33, 6: 20, 8: 7}
    weights = [
        Weight(form, rows[form.bits], 96, form.bits)
        for form in CODED
        if form.group == 32 and form.bits in rows
    ]
    x = np.random.default_rng(1).standard_normal((tokens, 96), dtype=np.float32)
    expected = np.concatenate([weight.times(x) for weight in weights], axis=1)
    assert distance(product(floats, weights, x), expected) < 1e-5


@pytest.mark.parametrize("tokens", [1, 40])
def test_results_are_added_to_what_is_there(rounded, tokens):
    weight = Weight(WeightFormat(4, 64, "f16"), 100, 128)
    x = np.random.default_rng(1).standard_normal((tokens, 128), dtype=np.float32)
    before = np.random.default_rng(2).standard_normal((tokens, 100), dtype=np.float32)
    found = product(rounded, [weight], x, before)
    assert np.allclose(found, before + product(rounded, [weight], x), atol=1e-6)


def test_new_contents_at_the_same_place_are_seen(rounded):
    weight, other = (Weight(WeightFormat(4, 64, "f16"), 64, 256, seed) for seed in (0, 1))
    x = np.random.default_rng(1).standard_normal((1, 256), dtype=np.float32)
    first = product(rounded, [weight], x)
    for part, new in zip(weight.parts, other.parts, strict=True):
        np.array(part, copy=False)[:] = np.array(new)
    assert distance(product(rounded, [weight], x), product(rounded, [other], x)) == 0.0
    assert distance(first, product(rounded, [weight], x)) > 0.1


def test_a_row_of_zeros_gives_zeros(rounded):
    weight = Weight(WeightFormat(4, 64, "f16"), 64, 256)
    assert not product(rounded, [weight], np.zeros((1, 256), np.float32)).any()
