"""The KV caches of several sequences: what is kept is right, within the budget, and used again."""

import threading

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.conversations import require_same_alone_and_in_turn

import edgellm
from edgellm.kv_cache.cache import KVCache, storage_tokens, stored
from edgellm.kv_cache.kv_format import KVFormat
from edgellm.prompt_cache.disk_cache import PromptCache
from edgellm.prompt_cache.prefix_cache import MIN_BRANCH, PrefixCache

FORMAT = KVFormat(1, 2, mx.float32)
CAPACITY = 4096


def prefix_cache(room, *, window=None, prompt_cache=None):
    """A cache for a model of two layers, with a budget for so many tokens."""
    windows = (None, window)

    def make(tokens):
        return [KVCache(FORMAT, capacity=CAPACITY, window=one, reserve=tokens) for one in windows]

    def nbytes(tokens):
        return FORMAT.token_bytes * sum(storage_tokens(tokens, one) for one in windows)

    return PrefixCache(make, nbytes, nbytes(room), prompt_cache)


def compute(lease, ids):
    """Store what the caches do not hold of a sequence, whose keys are its ids."""
    for cache in lease.caches:
        new = mx.array(ids[cache.offset :], mx.float32)[None, None, :, None]
        if new.size:
            cache.update(*[mx.broadcast_to(new, (1, 1, new.size, 2))] * 2)
    mx.eval(stored(lease.caches))  # another thread may go on from them


def check(lease, ids):
    """Whether the caches hold the ids, or those at the end that a window needs."""
    for cache in lease.caches:
        keys = np.array(cache.part(cache.base, cache.offset)[0])[0, 0, :, 0]
        assert cache.base <= cache.window_start
        assert keys.tolist() == ids[cache.base : cache.offset]


def run(cache, ids, *, more=0, **how):
    """Compute a sequence, keep it, and return how many of its tokens were there."""
    lease = cache.begin(ids, len(ids) + more, **{"reuse": True} | how)
    assert lease.cached < len(ids)
    check(lease, ids)
    compute(lease, ids)
    check(lease, ids)
    cached = lease.cached
    lease.keep(ids)
    return cached


def ids_of(*parts):
    """A sequence of parts (seed, length)."""
    return [
        int(token)
        for seed, length in parts
        for token in np.random.default_rng(seed).integers(1, 1000, length)
    ]


def test_conversations_keep_theirs():
    cache = prefix_cache(4000)
    talks = {seed: ids_of((0, 100), (seed, 200)) for seed in range(1, 9)}
    assert [run(cache, ids) for ids in talks.values()] == [0] + [100] * 7
    for _ in range(2):
        for seed, talk in talks.items():
            before = len(talk)
            talk.extend(ids_of((seed + 50, 30)))
            assert run(cache, talk) == before
    assert len(cache) == 8
    cache.clear()
    assert (len(cache), cache.kept_bytes) == (0, 0)


def test_the_least_recently_used_leaves_first():
    cache = prefix_cache(1000)
    one, two, three = (ids_of((seed, 400)) for seed in (1, 2, 3))
    run(cache, one)
    run(cache, two)
    assert run(cache, one) == 399, "and so it is used again"
    assert run(cache, three) == 0
    assert run(cache, one) == 399
    assert run(cache, two) == 0


def test_storage_that_nobody_uses_goes_before_what_is_kept():
    cache = prefix_cache(1000)
    one, two = (ids_of((seed, 300)) for seed in (1, 2))
    run(cache, one, more=500)
    run(cache, two, more=300)
    assert cache.kept_bytes <= 1000 * 2 * FORMAT.token_bytes
    assert [run(cache, one), run(cache, two)] == [299, 299]


@pytest.mark.parametrize("room", [1000, 650])
def test_another_conversation_is_copied_where_there_is_room(room):
    cache = prefix_cache(room)
    one, two = (ids_of((0, 200), (seed, 200)) for seed in (1, 2))
    run(cache, one)
    assert run(cache, two) == 200
    # without room for both it was taken over
    assert run(cache, one) == (399 if room == 1000 else 200)


def test_an_end_of_a_few_tokens_is_no_other_conversation():
    cache = prefix_cache(1000)
    run(cache, ids_of((0, 200), (1, MIN_BRANCH - 1)))
    assert run(cache, ids_of((0, 200), (2, 50))) == 200
    assert len(cache) == 1


def test_what_was_cut_is_no_other_conversation():
    cache = prefix_cache(2000)
    one = ids_of((0, 200), (1, 200))
    run(cache, one)
    cache.cut(one[:-1], 200)  # a step ahead has computed one more
    assert run(cache, ids_of((0, 200), (2, 50))) == 200
    assert len(cache) == 1
    cache.cut(one, 100)  # it is not there any more
    cache.cut(ids_of((0, 200)), 100)  # that one is longer by now
    assert run(cache, ids_of((0, 200), (2, 50))) == 249


def test_what_a_longer_sequence_serves_is_not_kept_twice():
    cache = prefix_cache(4000)
    long = ids_of((0, 300))
    leases = [cache.begin(long[:length], length, reuse=True) for length in (100, 300, 200)]
    for lease, length in zip(leases, (100, 300, 200), strict=True):
        compute(lease, long[:length])
        lease.keep(long[:length])
    assert len(cache) == 1
    assert run(cache, long) == 299


def test_of_those_that_nobody_asked_to_keep_one_stays():
    """As many as somebody generates, memory stays as it is."""
    cache = prefix_cache(4000)
    wanted = ids_of((0, 100))
    run(cache, wanted)
    for seed in range(1, 5):
        run(cache, ids_of((seed, 100)), reuse=False)
    assert len(cache) == 2
    assert [run(cache, wanted), run(cache, ids_of((4, 100)))] == [99, 99]


def test_what_is_running_is_never_evicted_and_what_is_dropped_is_free():
    cache = prefix_cache(1000)
    kept = ids_of((1, 300))
    run(cache, kept)
    leases = [cache.begin(ids_of((seed, 10)), 400, reuse=True) for seed in (2, 3)]
    assert len(cache) == 0
    assert cache.running_bytes == 800 * 2 * FORMAT.token_bytes
    more = cache.begin(ids_of((4, 10)), 400, reuse=True)
    for seed, lease in ((2, leases[0]), (3, leases[1]), (4, more)):
        compute(lease, ids_of((seed, 10)))
        check(lease, ids_of((seed, 10)))
        lease.drop()
        lease.drop()
        lease.keep(kept)
    assert (len(cache), cache.running_bytes, cache.kept_bytes) == (0, 0, 0)
    leases[0] = cache.begin(kept, 400, reuse=True)
    del leases, lease, more  # forgotten without a word
    assert cache.running_bytes == 0


def test_a_lease_that_outlives_the_model_keeps_nothing():
    cache = prefix_cache(1000)
    lease = cache.begin(ids_of((1, 10)), 10, reuse=True)
    compute(lease, ids_of((1, 10)))
    cache.close()
    lease.keep(ids_of((1, 10)))
    assert len(cache) == 0


def test_layers_that_do_not_agree_are_not_kept():
    cache = prefix_cache(1000)
    ids = ids_of((1, 10))
    lease = cache.begin(ids, 10, reuse=True)
    compute(lease, ids)
    lease.caches[0].trim(5)
    lease.keep(ids)
    assert len(cache) == 0


conversations = st.lists(
    st.tuples(
        st.integers(0, 3),  # which one
        st.integers(0, 400),  # of it, how much stays
        st.integers(1, 120),  # new tokens
        st.sampled_from(["keep", "hold", "drop", "cut", "no reuse"]),
    ),
    max_size=25,
)


@settings(max_examples=40)
@given(conversations, st.sampled_from([None, 30]), st.integers(500, 3000))
def test_whatever_happens_caches_hold_what_they_say(steps, window, room):
    cache = prefix_cache(room, window=window)
    budget = cache._kv_budget
    texts = {which: ids_of((9, 60)) for which in range(4)}
    held = []
    for number, (which, stays, new, what) in enumerate(steps):
        ids = texts[which][: max(1, stays)] + ids_of((1000 + number, new))
        lease = cache.begin(ids, len(ids) + 20, reuse=what != "no reuse")
        assert lease.cached < len(ids)
        check(lease, ids)
        compute(lease, ids)
        check(lease, ids)
        for other, its in held:
            check(other, its)
        if what == "hold":
            held.append((lease, ids))
            if len(held) > 2:
                other, its = held.pop(0)
                other.keep(its)
            continue
        if what == "drop":
            lease.drop()
            continue
        lease.keep(ids)
        if what == "cut":
            cache.cut(ids, len(ids) // 2)
        texts[which] = ids
        assert len(cache) == 0 or cache.kept_bytes + cache.running_bytes <= budget


def test_threads_share_it():
    cache = prefix_cache(3000)
    failures = []

    def talk(seed):
        try:
            ids = ids_of((0, 100), (seed, 50))
            for turn in range(15):
                run(cache, ids)
                ids = [*ids, *ids_of((seed * 100 + turn, 15))]
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=talk, args=(seed,)) for seed in range(1, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert cache.running_bytes == 0


def test_what_leaves_memory_is_read_from_disk(tmp_path):
    disk = PromptCache(tmp_path, lambda: "model")
    cache = prefix_cache(500, prompt_cache=disk)
    one, two = (ids_of((seed, 400)) for seed in (1, 2))
    for ids in (one, two):
        run(cache, ids, restore=True)
    lease = cache.begin(one, 400, reuse=True, restore=True)
    check(lease, one)
    assert (lease.cached, lease.restored) == (399, 399)
    lease.drop()
    cache.close()
    other = prefix_cache(500, prompt_cache=PromptCache(tmp_path, lambda: "model"))
    assert [run(other, ids, restore=True) for ids in (one, two)] == [399, 399]


def test_what_is_in_memory_stays_there_where_the_disk_has_more(tmp_path):
    disk = PromptCache(tmp_path, lambda: "model")
    cache = prefix_cache(2000, prompt_cache=disk)
    run(cache, ids_of((0, 200), (1, 200)))
    cache.clear()
    other = ids_of((0, 100), (2, 200))
    run(cache, other)
    assert run(cache, ids_of((0, 200), (1, 200)), restore=True) == 399
    assert run(cache, other) == 299


KINDS = [
    ("llama-2", {}),
    ("llama-2", {"kv_bits": 8}),
    ("llama-2", {"context_window": 40}),
]


@pytest.mark.parametrize(("kind", "load"), KINDS, ids=str)
def test_conversations_in_turn_say_what_each_says_alone(kind, load, open_llm):
    llm = open_llm(kind, config={"max_position_embeddings": 512}, load=load)
    require_same_alone_and_in_turn(llm)


def test_beams_have_the_memory_of_what_is_kept(tiny_folder):
    folder = tiny_folder("llama-2", seed=1, config={"max_position_embeddings": 2048})
    with edgellm.load(folder, memory="6MB", context=256, beams=4, threads=1) as llm:
        while llm.prefix_cache.kept_bytes < 0.8 * llm.plan.kv_budget:
            seed = len(llm.prefix_cache)
            llm.generate(
                [1, *(40 + x % 200 for x in ids_of((seed, 150)))], max_tokens=1, reuse_cache=True
            )
        mx.reset_peak_memory()
        before = mx.get_active_memory() - llm.prefix_cache.kept_bytes
        llm.generate([1, 50, 60], max_tokens=100, beams=4)
        assert mx.get_peak_memory() - before < llm.plan.kv_budget + (1 << 19)
