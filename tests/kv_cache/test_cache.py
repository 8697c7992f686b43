"""Caches: what is looked at is what was stored, and no more memory is held than was promised."""

from itertools import pairwise

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgellm.kv_cache.cache import ROLLBACK, SLACK, STEP, KVCache, stored
from edgellm.kv_cache.kv_format import GROUP, KVFormat, QuantizedKV, attention

HEADS, DIM = 2, 4


PLAIN = KVFormat(HEADS, DIM, mx.float32)
KEPT = [
    PLAIN,
    KVFormat(HEADS, DIM, mx.float16),
    KVFormat(HEADS, DIM, mx.float16, 8),
    KVFormat(HEADS, DIM, mx.float16, 4),
]


def full(capacity=1000, reserve=1, kept=PLAIN):
    return KVCache(kept, capacity=capacity, reserve=reserve)


def windowed(window, kept=PLAIN):
    return KVCache(kept, capacity=10**6, window=window, reserve=1)


def tokens(start, length):
    """Keys that say which token they are of; values are their negatives."""
    numbers = mx.arange(start, start + length, dtype=mx.float32)[None, None, :, None]
    keys = mx.broadcast_to(numbers, (1, HEADS, length, DIM))
    return keys, -keys


def plain(seen):
    """Keys or values in float32, as they were stored but for rounding to whole numbers."""
    if isinstance(seen, QuantizedKV):
        tables = (seen.scales.astype(mx.float32), seen.biases.astype(mx.float32))
        seen = mx.dequantize(seen.codes, *tables, group_size=GROUP, bits=seen.bits)[..., :DIM]
    return np.array(seen.astype(mx.float32)).round()


def which(keys, values):
    """The tokens that keys and values are of."""
    keys, values = plain(keys), plain(values)
    assert np.array_equal(np.array(keys), -np.array(values))
    rows = np.array(keys)
    assert (rows == rows[:, :1, :, :1]).all()
    return rows[0, 0, :, 0].astype(int)


def feed(cache, lengths):
    """Store tokens in pieces, and return what each new token was allowed to look at."""
    seen = []
    for length in lengths:
        keys, values, mask = cache.update(*tokens(cache.offset, length))
        held = which(keys, values)
        if mask is None:
            seen += [set(held)] * length
        elif isinstance(mask, str):
            assert mask == "causal"
            seen += [set(held[: len(held) - length + place + 1]) for place in range(length)]
        else:
            seen += [set(held[row]) for row in np.array(mask)]
    return seen


pieces = st.lists(st.one_of(st.just(1), st.integers(1, 20)), min_size=1, max_size=25)


@given(pieces)
def test_every_token_looks_at_all_before_it(lengths):
    cache = full(reserve=4)
    assert feed(cache, lengths) == [set(range(place + 1)) for place in range(sum(lengths))]
    assert cache.offset == sum(lengths)


@pytest.mark.parametrize("kept", KEPT, ids=str)
@settings(max_examples=40)
@given(lengths=pieces, window=st.integers(1, 12))
def test_every_token_looks_back_over_the_window(kept, lengths, window):
    cache = windowed(window, kept)
    expected = [set(range(max(0, place + 1 - window), place + 1)) for place in range(sum(lengths))]
    assert feed(cache, lengths) == expected
    assert cache.allocated <= window + SLACK
    assert cache.nbytes == cache.allocated * kept.token_bytes


@settings(max_examples=50)
@given(pieces, st.integers(0, 400), pieces, st.one_of(st.none(), st.integers(1, 12)))
def test_after_trim_it_goes_on_as_if_it_had_never_been_further(lengths, place, more, window):
    cache = full() if window is None else windowed(window)
    feed(cache, lengths)
    if not cache.trim(place):
        assert window is not None
        assert sum(lengths) - place > ROLLBACK
        return
    start = min(place, sum(lengths))
    assert cache.offset == start
    back = window or 10**6
    assert feed(cache, more) == [
        set(range(max(0, at + 1 - back), at + 1)) for at in range(start, start + sum(more))
    ]


@given(
    st.lists(st.tuples(st.integers(1, ROLLBACK), st.integers(0, ROLLBACK)), max_size=60),
    st.integers(1, 40),
)
def test_speculation_can_always_be_taken_back(steps, window):
    """Each step stores some tokens and forgets the last, as many as drafts may have been wrong."""
    cache = windowed(window)
    for length, wrong in steps:
        start = cache.offset
        assert feed(cache, [length]) == [
            set(range(max(0, at + 1 - window), at + 1)) for at in range(start, start + length)
        ]
        assert cache.trim(start + length - min(wrong, length))


def test_nothing_and_everything_can_always_be_trimmed():
    cache = windowed(4)
    feed(cache, [90])
    assert cache.trim(90)
    assert cache.trim(90 - ROLLBACK)
    assert not cache.trim(4)
    assert cache.trim(0)
    assert feed(cache, [2]) == [{0}, {0, 1}]


@settings(max_examples=40)
@given(pieces, pieces, pieces, st.one_of(st.none(), st.integers(1, 12)))
def test_a_copy_goes_its_own_way(lengths, mine, others, window):
    cache = full() if window is None else windowed(window)
    feed(cache, lengths)
    twin = cache.copy()
    mx.eval(*stored([cache, twin]))
    addresses = {np.array(array, copy=False).ctypes.data for array in stored([cache, twin])}
    assert len(addresses) == 4, "CPU kernels write by address"
    back, start = window or 10**6, sum(lengths)
    for one, more in ((cache, mine), (twin, others)):
        assert feed(one, more) == [
            set(range(max(0, at + 1 - back), at + 1)) for at in range(start, start + sum(more))
        ]
        assert one.offset == start + sum(more)


def test_storage_grows_by_doubling_up_to_the_capacity():
    cache = full(capacity=1500, reserve=10)
    sizes = []
    for _ in range(1500):
        cache.update(*tokens(cache.offset, 1))
        sizes.append(cache.allocated)
    assert sorted(set(sizes)) == [10, STEP, 2 * STEP, 4 * STEP, 1500]
    assert list(which(*cache.arrays)) == list(range(1500))
    with pytest.raises(AssertionError):
        cache.update(*tokens(1500, 1))


def test_storage_that_was_reserved_is_never_allocated_again():
    cache = full(capacity=4000, reserve=4 * STEP)
    shape = cache.arrays[0].shape
    feed(cache, [700, *[1] * 324])
    assert cache.arrays[0].shape == shape == (1, HEADS, 4 * STEP, DIM)


def test_a_token_is_written_in_place():
    """With storage reserved, decoding allocates nothing as large as the cache."""
    cache = full(capacity=1 << 16, reserve=1 << 16)
    mx.eval(*stored([cache]))
    for start in range(3):
        cache.update(*tokens(start, 1))
        mx.eval(*stored([cache]))
    address = np.array(cache.arrays[0], copy=False).ctypes.data
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    for start in range(3, 20):
        cache.update(*tokens(start, 1))
        mx.eval(*stored([cache]))
    assert np.array(cache.arrays[0], copy=False).ctypes.data == address
    assert mx.get_peak_memory() - before < cache.nbytes // 4


def banded_attention(queries, keys, values, window):
    """Attention over all tokens with a mask that lets each look back over the window."""
    place = mx.arange(keys.shape[2])
    distance = place[:, None] - place[None]
    mask = (distance >= 0) & (distance < window)
    return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=0.5, mask=mask)


@pytest.mark.parametrize("window", [1, 2, 5, 8])
@pytest.mark.parametrize("chunk", [1, 4, 5, 6, 7, 23])
def test_a_window_is_attention_with_a_banded_mask(window, chunk):
    """A window smaller than the prompt, chunk sizes around it, and decoding past several moves."""
    mx.random.seed(3)
    prompt, new = 23, 4 * window + 3
    queries, keys, values = (mx.random.normal((1, HEADS, prompt + new, DIM)) for _ in range(3))
    expected = np.array(banded_attention(queries, keys, values, window))
    cache, found = windowed(window), []
    borders = [*range(0, prompt, chunk), *range(prompt, prompt + new), prompt + new]
    for begin, end in pairwise(borders):
        some_keys, some_values, mask = cache.update(keys[:, :, begin:end], values[:, :, begin:end])
        rows = queries[:, :, begin:end]
        found.append(
            mx.fast.scaled_dot_product_attention(rows, some_keys, some_values, scale=0.5, mask=mask)
        )
    np.testing.assert_allclose(np.array(mx.concatenate(found, axis=2)), expected, atol=1e-5)


@pytest.mark.parametrize("shared", [1, 4])
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("window", [None, 5, 40])
def test_attention_over_packed_keys_is_attention_over_what_they_say(window, bits, shared):
    mx.random.seed(3)
    kept = KVFormat(HEADS, 48, mx.float32, bits)  # heads that are no multiple of a group
    cache = KVCache(kept, capacity=1000, window=window, reserve=1)
    for length in (1, 7, 1, 60, 1, 30, 1):
        queries = mx.random.normal((1, shared * HEADS, length, 48))
        keys, values, mask = cache.update(
            *(mx.random.normal((1, HEADS, length, 48)) for _ in range(2))
        )
        found = attention(queries, keys, values, scale=0.2, mask=mask)
        numbers = [
            mx.dequantize(part.codes, part.scales, part.biases, group_size=GROUP, bits=bits)[
                ..., :48
            ]
            for part in (keys, values)
        ]
        expected = mx.fast.scaled_dot_product_attention(queries, *numbers, scale=0.2, mask=mask)
        np.testing.assert_allclose(np.array(found), np.array(expected), atol=1e-5)


@pytest.mark.parametrize(
    ("kept", "share"), [(KEPT[1], 1.0), (KEPT[2], 0.5625), (KEPT[3], 0.3125)], ids=str
)
def test_memory_is_as_promised(kept, share):
    sixteen = 2 * 2 * 4 * 64
    kept = KVFormat(4, 64, mx.float16, kept.bits)
    assert kept.token_bytes == share * sixteen
    for window in (None, 100):
        cache = KVCache(kept, capacity=700, window=window, reserve=700)
        assert cache.nbytes == kept.token_bytes * (700 if window is None else 100 + SLACK)
