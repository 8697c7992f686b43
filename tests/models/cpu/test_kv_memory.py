"""Attention of the kernels over every kind of cache: what it sees, and that queries stand alone."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.decoder_layers import distance, hidden_of, tensors_of
from support.kernel_steps import attend
from support.tiny import CONFIGS

from edgellm.checkpoint.model_config import ModelConfig
from edgellm.kernels.codegen.abi import MAX_SPLIT_QUERIES, split_of
from edgellm.kernels.codegen.isa import host_isas
from edgellm.kernels.host import kernel_engine, unavailable
from edgellm.kv_cache.cache import ROLLBACK, KVCache
from edgellm.kv_cache.kv_format import GROUP, KVFormat
from edgellm.models.cpu.block import CpuBlock
from edgellm.models.cpu.kv_memory import CacheMemory
from edgellm.models.llama import Block

pytestmark = [
    pytest.mark.skipif(unavailable() is not None, reason=str(unavailable())),
    pytest.mark.usefixtures("on_the_cpu"),
]

KINDS = {
    "f32": (mx.float32, None),
    "f16": (mx.float16, None),
    "q8": (mx.float16, 8),
    "q4": (mx.float16, 4),
}
EXAMPLES = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def layers(name, isa):
    """A layer's config, and the layer in native code and in MLX."""
    config = ModelConfig.from_dict(CONFIGS[name])
    tensors = tensors_of(config, lambda _: None)
    floats = kernel_engine(threads=2, activations="float", isa=isa.name)
    return (
        config,
        CpuBlock(floats, config, config.layer(0), tensors, lambda _: None),
        Block(config, config.layer(0), tensors, lambda _: None),
    )


ISAS = [] if unavailable() else host_isas()
# Heads of 16 on the best instruction set, heads of 24 on the plainest.
LAYERS = {
    name: layers(name, isa)
    for name, isa in zip(("llama-2", "qwen3"), (ISAS[:1] + ISAS[-1:]), strict=False)
}


def cache_of(config, kind, window):
    kept = KVFormat(config.num_key_value_heads, config.head_dim, *KINDS[kind])
    return KVCache(kept, capacity=5000, window=window, reserve=10)


def numbers(cache):
    """The keys and values that a cache holds, (2, G, S, D) in float32."""
    part, kept = cache.part(cache.base, cache.offset), cache.kv_format
    if kept.bits is not None:
        codes, *tables = (
            array if array.dtype == mx.uint32 else array.astype(mx.float32) for array in part
        )
        part = mx.split(mx.dequantize(codes, *tables, group_size=GROUP, bits=kept.bits), 2, axis=1)
    return np.concatenate([np.array(array.astype(mx.float32)) for array in part])[
        ..., : kept.head_dim
    ]


class Held(KVCache):
    """A cache of the keys and values that another one holds; the last are the new ones."""

    def __init__(self, cache, length):
        self.keys, self.values = (mx.array(part[None]) for part in numbers(cache))
        self.offset, self.base, self.window = (
            cache.offset - length,
            cache.base,
            cache.window or 10**6,
        )

    def update(self, keys, values):
        queries = self.offset + mx.arange(keys.shape[2])[:, None]
        distance = queries - (self.base + mx.arange(self.keys.shape[2]))[None]
        return self.keys, self.values, (distance >= 0) & (distance < self.window)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("window", [None, 7, 100])
@pytest.mark.parametrize("kind", KINDS)
def test_attention_sees_what_a_cache_holds(kind, window, name):
    config, own, plain = LAYERS[name]
    cache = cache_of(config, kind, window)
    for length in (1, 3, 30, 1, 32, 1, 1, 20, 32, 32, 32, 5, 1):
        hidden = hidden_of(config, length)
        found = own(hidden, [(cache, length)])
        expected = plain(hidden, [(Held(cache, length), length)])
        assert distance(found - hidden, expected - hidden) < 1e-5


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("window", [None, 7])
@pytest.mark.parametrize(("kind", "codes"), [("f16", 2**12), ("q8", 2**8 - 1), ("q4", 2**4 - 1)])
def test_what_is_held_is_rounded_to_the_nearest(kind, codes, window, name):
    config, own, _ = LAYERS[name]
    packed, exact = cache_of(config, kind, window), cache_of(config, "f32", window)
    for length in (1, 3, 300, 1):
        for cache in (packed, exact):
            own(hidden_of(config, length), [(cache, length)])
    mine, theirs = numbers(packed), numbers(exact)
    assert mine.shape == theirs.shape
    for start in range(0, config.head_dim, GROUP):
        group, rounded = theirs[..., start : start + GROUP], mine[..., start : start + GROUP]
        # the last group is filled up with zeros
        low, high = np.minimum(group.min(-1), 0), np.maximum(group.max(-1), 0)
        step, largest = (high - low) / codes, np.abs(group).max(-1)
        assert (np.abs(rounded - group).max(-1) <= 0.51 * step + largest * 2**-10).all()


@pytest.mark.parametrize(("kind", "error"), [("f16", 32), ("q8", 400), ("q4", 5000)])
def test_numbers_beyond_float16_are_held_as_its_largest(kind, error):
    config, own, _ = LAYERS["llama-2"]
    tensors = tensors_of(config, lambda _: None)
    large = {
        name: array * 5e4 if name == "self_attn.qkv_proj.weight" else array
        for name, array in tensors.items()
    }
    block = CpuBlock(own.engine, config, config.layer(0), large, lambda _: None)
    packed, exact = cache_of(config, kind, None), cache_of(config, "f32", None)
    for cache in (packed, exact):
        block(hidden_of(config, 5), [(cache, 5)])
    mine, theirs = numbers(packed), numbers(exact)
    assert np.abs(theirs).max() > 1e5
    assert np.abs(mine - np.clip(theirs, -65504, 65504)).max() <= error
    keys = mx.array(theirs[:1])
    mlx_arrays = packed.kv_format.pack(keys, keys)
    assert all(bool(mx.all(mx.isfinite(array)).item()) for array in mlx_arrays)
    keys[0, 0, 0, 0] = mx.inf
    assert not all(
        bool(mx.all(mx.isfinite(array)).item()) for array in packed.kv_format.pack(keys, keys)
    )


@EXAMPLES
@given(
    kind=st.sampled_from(sorted(KINDS)),
    window=st.one_of(st.none(), st.integers(1, 2500)),
    before=st.integers(0, 3500),
    length=st.integers(2, MAX_SPLIT_QUERIES),
    name=st.sampled_from(sorted(LAYERS)),
)
def test_a_query_gets_the_same_bits_in_any_call(kind, window, before, length, name):
    config, own, _ = LAYERS[name]
    cache = cache_of(config, kind, window)
    own(hidden_of(config, before + length), [(cache, before + length)])
    assert cache.trim(before)
    store = CacheMemory(cache, length).view
    shape = (length, config.num_attention_heads, config.head_dim)
    queries = np.random.default_rng(before).standard_normal(shape, dtype=np.float32) * 3
    kv_heads = config.num_key_value_heads
    found = attend(own.engine, store, queries, kv_heads=kv_heads)
    for place in range(length):
        position = before + place
        alone = replace(
            store, position=position, length=position + 1, window=window or position + 1
        )
        own_query = queries[place : place + 1]
        [expected] = attend(own.engine, alone, own_query, kv_heads=kv_heads)
        assert np.array_equal(found[place], expected)


@given(st.integers(0, 1 << 40), st.integers(0, 1 << 40), st.integers(0, 40))
def test_splits_go_up_with_positions(one, other, largest):
    low, high = sorted((one, other))
    assert split_of(low, largest) <= split_of(high, largest)
    assert split_of(low, largest) <= 16 + 8 * max(0, low.bit_length() - 11) or largest < 40


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("window", [None, 5, 300])
def test_a_forgotten_speculation_leaves_no_trace(window, kind):
    """Tokens that were stored and forgotten again, up to ROLLBACK at a time, change nothing."""
    config, own, _ = LAYERS["llama-2"]
    tried, plain = (cache_of(config, kind, window) for _ in range(2))
    rng = np.random.default_rng(0)
    for step in range(60):
        wrong = int(rng.integers(1, ROLLBACK + 1))
        own(hidden_of(config, wrong, seed=1000 + step), [(tried, wrong)])
        assert tried.trim(plain.offset)
        length = int(rng.integers(1, 17))
        hidden = hidden_of(config, length, seed=step)
        found, expected = (np.array(own(hidden, [(cache, length)])) for cache in (tried, plain))
        assert np.array_equal(found, expected)
