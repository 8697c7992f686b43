"""Operations and their derivatives against MLX's own, and products against NumPy."""

import mlx.core as mx
import numpy as np
import pytest

from edgellm.kernels.host import kernel_engine, unavailable
from edgellm.kv_cache.kv_format import KVFormat
from edgellm.kv_cache.sequence_kv import SequenceKV
from edgellm.models.linear import DenseLinear
from edgellm.models.llama import MLP, Attention, Block, RMSNorm
from edgellm.training.elementwise.gate_and_norms import KernelMLP, KernelNorm
from edgellm.training.elementwise.loss import losses_of
from edgellm.training.operations.kernel_products import KernelProducts, Product
from edgellm.training.operations.rotary_attention import RotaryAttention

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))


def draws(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def derivatives(function, *arrays):
    """What a function returns, and derivatives by its arguments of a sum with random weights."""
    values = [mx.array(array) for array in arrays]
    [made] = mx.vjp(lambda *own: [function(*own)], values, [function(*values)])[0]
    weights = mx.array(draws(*made.shape, seed=9))
    outputs, gradients = mx.vjp(lambda *own: [function(*own)], values, [weights])
    return [np.array(array) for array in (*outputs, *gradients)]


def assert_close(ours, theirs):
    for one, two in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, two, rtol=0, atol=3e-6 * np.abs(two).max())


@pytest.mark.parametrize("engine", [None, "float"])
@pytest.mark.parametrize("tokens", [3, 40, 700])
def test_products_are_those_of_numpy(engine, tokens):
    products = KernelProducts(engine and kernel_engine(threads=2, activations=engine))
    x, weight, other = draws(tokens, 48), draws(33, 48, seed=1), draws(tokens, 21, seed=2)
    assert_close([products.times(x, weight)], [x @ weight.T])
    # columns of something larger, and turned
    assert_close([products.times(x[:, 7:40], weight.T[:9, :33])], [x[:, 7:40] @ weight[:33, :9]])
    assert_close([products.summed_over_tokens(other, x)], [other.T @ x])
    # one after the other, of parts and to parts
    low, out = np.empty((tokens, 33), np.float32), draws(tokens, 21, seed=3)
    steps, some = [Product(low, x, np.ascontiguousarray(weight.T))], draws(8, 21, seed=4)
    exact = out[:, 4:13] - 0.5 * (x @ weight.T)[:, :8] @ some[:, 4:13]
    steps.append(Product(out[:, 4:13], low[:, :8], some[:, 4:13], -0.5, add=True))
    products.compute(steps)
    assert_close([out[:, 4:13]], [exact])


def identity(features):
    return DenseLinear(mx.eye(features))


def test_the_gate_is_that_of_mlx():
    class Plain(MLP):
        def __init__(self):
            self.gate_up_proj, self.down_proj, self.gate = identity(94), identity(47), Block.gate

    kernels = KernelMLP(Plain(), kernel_engine(threads=2, activations="float"))
    gate_up = 3 * draws(1, 29, 94)
    assert_close(derivatives(kernels, gate_up), derivatives(Plain(), gate_up))


@pytest.mark.parametrize("kind", [mx.float32, mx.bfloat16])
def test_the_norm_is_that_of_mlx(kind):
    weight = mx.array(1 + 0.3 * draws(47)).astype(kind)
    kernels = KernelNorm(RMSNorm(weight, 1e-5), kernel_engine(threads=2, activations="float"))
    # rows of other sizes each, one of nothing
    x = draws(1, 9, 47) * np.array([0, 1e-3, 1, 30, 1e3, 1, 1, 1, 1], np.float32)[:, None]
    theirs = derivatives(RMSNorm(weight.astype(mx.float32), 1e-5), x)
    for own, exact in zip(derivatives(kernels, x), theirs, strict=True):
        for one, two in zip(own[0], exact[0], strict=True):
            np.testing.assert_allclose(one, two, rtol=0, atol=3e-6 * np.abs(two).max())


@pytest.mark.parametrize("engine", [None, "float"])
@pytest.mark.parametrize("rotary_dim", [16, 8])
def test_attention_is_that_of_mlx(engine, rotary_dim):
    kernels = engine and kernel_engine(threads=2, activations=engine)

    class Plain(Attention):
        def __init__(self):
            self.num_heads, self.num_key_value_heads, self.head_dim = 6, 2, 16
            self.scale, self.cap, self.rotary_dim = 0.25, None, rotary_dim
            self.wavelengths = mx.array([1.0, 10.0, 100.0, 1000.0, 7.0, 3.0, 2.0, 50.0])
            self.wavelengths = self.wavelengths[: rotary_dim // 2]
            self.q_norm = self.k_norm = self.rotary_factors = None
            self.qkv_proj, self.o_proj = identity(160), identity(96)

        def attention(self, queries, keys, values, *, scale, mask, cap):
            keys, values = mx.repeat(keys, 3, axis=1), mx.repeat(values, 3, axis=1)
            scores = scale * queries @ keys.swapaxes(-1, -2)
            seen = mx.tri(scores.shape[-1], dtype=mx.bool_)
            return mx.softmax(mx.where(seen, scores, -mx.inf), axis=-1) @ values

    plain, lengths = Plain(), (5, 1, 90)

    def by_mlx(qkv):
        form = KVFormat(2, 16, mx.float32)
        return plain(qkv, [(SequenceKV(form, None), length) for length in lengths])

    def ours(qkv):
        return RotaryAttention(plain, kernels)(qkv, [(None, length) for length in lengths])

    qkv = draws(1, sum(lengths), 160)
    assert_close(derivatives(ours, qkv), derivatives(by_mlx, qkv))


@pytest.mark.parametrize("engine", [None, "float"])
def test_the_loss_is_that_of_mlx(engine):
    kernels = engine and kernel_engine(threads=2, activations=engine)
    targets = np.random.default_rng(1).integers(0, 501, 30)

    def by_mlx(logits):
        likely = mx.take_along_axis(logits, mx.array(targets)[:, None], axis=-1)[:, 0]
        return mx.logsumexp(logits, axis=-1) - likely

    logits = 10 * draws(30, 501)
    ours = derivatives(lambda own: losses_of(own, mx.array(targets), kernels), logits)
    assert_close(ours, derivatives(by_mlx, logits))
