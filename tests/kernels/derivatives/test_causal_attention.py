"""Attention of whole sequences and its derivatives, against formulas in float64."""

import numpy as np
import pytest

from edgellm.kernels.codegen.abi import CAUSAL, ROTATE, causal_scratch
from edgellm.kernels.host import unavailable
from edgellm.kernels.kernel_engine import float32_bits, make_step, step_array

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))
LENGTHS, HEADS, KV_HEADS, SCALE = (1, 70, 33), 4, 2, 0.3


def run(engine, kernel, head_dim, threads, **arrays):
    lengths = np.array(LENGTHS)
    places = np.stack([np.cumsum(lengths) - lengths, lengths], axis=1)
    step = make_step(
        engine.kernel(kernel, head_dim),
        CAUSAL,
        sequences=places.ctypes.data,
        count=len(places),
        heads=HEADS,
        kv_heads=KV_HEADS,
        scale=float32_bits(SCALE),
        **{name: own.ctypes.data for name, own in arrays.items()},
    )
    nbytes = causal_scratch(70, head_dim, engine.isa.lanes, backward=True)
    with engine.lock:
        engine.reserve_scratch(nbytes)
        engine.run(step_array([step]), 1, threads=threads)


def by_formula(qkv, by_out):
    """What is attended to and derivatives, (T, H, D) and (T, H + 2G, D), in float64."""
    out, by_qkv, begin = np.zeros(by_out.shape), np.zeros(qkv.shape), 0
    for length in LENGTHS:
        rows = slice(begin, begin := begin + length)
        for head in range(HEADS):
            key = HEADS + head * KV_HEADS // HEADS
            places = head, key, key + KV_HEADS
            q, k, v = (qkv[rows, place].astype(np.float64) for place in places)
            scores = np.where(np.tri(length, dtype=bool), SCALE * q @ k.T, -np.inf)
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            weights /= weights.sum(axis=1, keepdims=True)
            out[rows, head] = weights @ v
            by_weights = by_out[rows, head] @ v.T
            mean = (weights * by_weights).sum(axis=1, keepdims=True)
            by_scores = SCALE * weights * (by_weights - mean)
            parts = by_scores @ k, by_scores.T @ q, weights.T @ by_out[rows, head]
            for place, part in zip(places, parts, strict=True):
                by_qkv[rows, place] += part
    return out, by_qkv


@pytest.mark.parametrize("head_dim", [12, 32])
def test_sequences_attend_as_the_formula_has_it(floats, head_dim):
    draws, tokens = np.random.default_rng(head_dim), sum(LENGTHS)
    qkv = 2 * draws.standard_normal((tokens, HEADS + 2 * KV_HEADS, head_dim), np.float32)
    by_out = draws.standard_normal((tokens, HEADS, head_dim), np.float32)
    found = []
    for threads in (1, 2):
        out, by_qkv = np.full_like(by_out, np.nan), np.full_like(qkv, np.nan)
        run(floats, "causal", head_dim, threads, qkv=qkv, out=out)
        run(floats, "causal_backward", head_dim, threads, qkv=qkv, out=by_out, by_qkv=by_qkv)
        found.append((out, by_qkv))
    for one, two, exact in zip(*found, by_formula(qkv, by_out), strict=True):
        assert np.array_equal(one, two)
        np.testing.assert_allclose(one, exact, rtol=0, atol=3e-6 * np.abs(exact).max())


@pytest.mark.parametrize("rotary_dim", [12, 24])
def test_heads_turn_there_and_back(floats, rotary_dim):
    draws = np.random.default_rng(rotary_dim)
    heads = draws.standard_normal((5, 4, 24), np.float32)
    angles = draws.uniform(-3, 3, (5, rotary_dim // 2))
    table = np.hstack([np.cos(angles), np.sin(angles)]).astype(np.float32)

    def rotate(direction, source, target):
        step = make_step(
            floats.kernel("rotate", direction),
            ROTATE,
            source=source.ctypes.data,
            target=target.ctypes.data,
            cos_sin=table.ctypes.data,
            heads=4,
            rotated=3,
            head_dim=24,
            rotary_dim=rotary_dim,
        )
        with floats.lock:
            floats.run(step_array([step]), 5)

    turned = np.empty_like(heads)
    rotate("there", heads, turned)
    half = rotary_dim // 2
    pairs = heads[:, :3, :half] + 1j * heads[:, :3, half:rotary_dim]
    pairs = pairs * np.exp(1j * angles)[:, None]
    np.testing.assert_allclose(turned[:, :3, :half], pairs.real, atol=1e-6)
    np.testing.assert_allclose(turned[:, :3, half:rotary_dim], pairs.imag, atol=1e-6)
    assert np.array_equal(turned[:, 3], heads[:, 3])
    assert np.array_equal(turned[..., rotary_dim:], heads[..., rotary_dim:])
    rotate("back", turned, turned)
    np.testing.assert_allclose(turned, heads, atol=1e-6)
