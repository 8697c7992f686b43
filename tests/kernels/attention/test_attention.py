"""Attention over plain keys and values; every cache is in models/cpu/test_kv_memory.py."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.kernel_steps import attend

from edgellm.kernels.host import unavailable
from edgellm.kernels.layer import KVView

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))
EXAMPLES = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def softmax_attention(queries, keys, values, window):
    """(L, H, D) queries, (G, S, D) keys and values, of which the last L are the queries' own."""
    tokens, heads, width = queries.shape
    kv_heads, length, _ = keys.shape
    result = np.empty_like(queries)
    for token in range(tokens):
        end = length - tokens + token + 1
        visible = slice(max(0, end - window), end)
        for head in range(heads):
            group = head // (heads // kv_heads)
            scores = keys[group, visible] @ queries[token, head] * width**-0.5
            weights = np.exp(scores - scores.max())
            result[token, head] = weights @ values[group, visible] / weights.sum()
    return result


def view_of(keys, values, **positions):
    kind = {np.dtype("float32"): "f32", np.dtype("float16"): "f16"}[keys.dtype]
    return KVView(
        kind=kind,
        keys=keys.ctypes.data,
        values=values.ctypes.data,
        head_bytes=keys.strides[0],
        **positions,
    )


@EXAMPLES
@given(
    kv_heads=st.integers(1, 3),
    shared=st.integers(1, 5),
    width=st.sampled_from([2, 10, 32, 64, 80]),
    tokens=st.integers(1, 40),
    before=st.integers(0, 300),
    window=st.integers(1, 400),
    one_split=st.booleans(),
)
def test_attention_is_softmax_attention(
    floats, *, kv_heads, shared, width, tokens, before, window, one_split
):
    rng = np.random.default_rng(0)
    heads = kv_heads * shared
    length = before + tokens
    queries = rng.standard_normal((tokens, heads, width), dtype=np.float32)
    keys, values = rng.standard_normal((2, kv_heads, length + 3, width), dtype=np.float32) * 3
    view = view_of(keys, values, position=before, length=length, window=window)
    splits = view.splits(1)
    if one_split:
        splits = view.splits(100)  # so many queries have one
    out = attend(floats, view, queries, kv_heads=kv_heads, splits=splits)
    expected = softmax_attention(queries, keys[:, :length], values[:, :length], window)
    assert np.allclose(out, expected, atol=2e-5)


@EXAMPLES
@given(
    kv_heads=st.integers(1, 2),
    shared=st.integers(1, 5),
    tokens=st.integers(2, 80),
    before=st.integers(0, 300),
    window=st.integers(1, 400),
    cut=st.integers(1, 79),
)
def test_tiles_are_close_and_do_not_depend_on_cuts(
    rounded, *, kv_heads, shared, tokens, before, window, cut
):
    if not rounded.isa.tiles:
        pytest.skip("no tiles")
    rng = np.random.default_rng(0)
    width, length = 32, before + tokens
    queries = rng.standard_normal((tokens, kv_heads * shared, width), dtype=np.float32)
    numbers = rng.standard_normal((2, kv_heads, length + 3, width), dtype=np.float32)
    # what is behind the last key must not be looked at
    numbers[:, :, length:] = np.nan
    keys, values = numbers.astype(np.float16)
    view = view_of(keys, values, position=before, length=length, window=window)

    def attended(begin, end):
        part = replace(view, position=before + begin, length=before + end)
        whole = part.splits(end - begin, whole=True)
        return attend(
            rounded,
            part,
            queries[begin:end],
            kv_heads=kv_heads,
            splits=whole,
            kernel="tile_attention",
        )

    out = attended(0, tokens)
    held = (part[:, :length].astype(np.float32) for part in (keys, values))
    # bfloat16 keeps 8 bits of queries, keys, weights and values
    assert np.abs(out - softmax_attention(queries, *held, window)).max() < 0.05
    cut = min(cut, tokens - 1)
    assert np.array_equal(out, np.concatenate([attended(0, cut), attended(cut, tokens)]))
