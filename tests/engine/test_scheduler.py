"""The scheduler: first come, first served, as far as memory and a chunk reach."""

import mlx.core as mx
import pytest
from support import tiny
from support.engines import open_context

from edgellm.engine.scheduler import Scheduler
from edgellm.engine.sequence import Sequence
from edgellm.settings import Sampling

PROMPT = [tiny.BEGIN, *range(20, 60)]


@pytest.fixture
def context(tiny_folder):
    with open_context(tiny_folder("llama-2", seed=1)) as opened:
        yield opened


def sequence(context, tokens, new=10):
    return Sequence(context, PROMPT[:tokens], Sampling(max_tokens=new))


def admitted(scheduler):
    return [one.number for one in scheduler.admit()]


def test_kv_bytes_are_those_of_the_caches(context):
    one = sequence(context, 20)
    one.start(context)
    assert one.kv_bytes == sum(cache.nbytes for cache in one.caches)


def test_who_does_not_fit_waits_and_nobody_overtakes(context):
    small, large = sequence(context, 5), sequence(context, 30, new=60)
    assert large.kv_bytes >= 3 * small.kv_bytes
    scheduler = Scheduler(large.kv_bytes, None)
    others = [sequence(context, 5) for _ in range(2)]
    assert [scheduler.add(one) for one in (small, large, *others)] == [1, 2, 3, 4]
    assert admitted(scheduler) == [1]
    assert admitted(scheduler) == []
    scheduler.remove(small)
    assert admitted(scheduler) == [2]
    scheduler.remove(large)
    assert admitted(scheduler) == [3, 4]


def test_no_more_run_than_were_allowed(context):
    scheduler = Scheduler(1 << 30, 2)
    for _ in range(3):
        scheduler.add(sequence(context, 5))
    assert admitted(scheduler) == [1, 2]
    scheduler.cancel(1)
    scheduler.cancel(7)
    assert [one.number for one in scheduler.remove_cancelled(everybody=False)] == [1]
    assert admitted(scheduler) == [3]
    assert [one.number for one in scheduler.remove_cancelled(everybody=True)] == [2, 3]
    assert scheduler.is_idle


def test_prompts_share_a_chunk_and_who_generates_goes_on(context):
    scheduler = Scheduler(1 << 30, None)
    sequences = [sequence(context, tokens) for tokens in (20, 6, 4, 2)]
    for one in sequences:
        scheduler.add(one)
    scheduler.admit()

    def scheduled(prefill_tokens):
        inputs = scheduler.schedule(prefill_tokens)
        return [(one.number, len(new.tokens), new.needs_logits) for one, new in inputs]

    assert scheduled(8) == [(1, 8, False)]
    assert scheduled(100) == [(1, 20, True), (2, 6, True), (3, 4, True), (4, 2, True)]
    sequences[0].record_forward(20, prefill_chunk=8)
    vocab_size = context.model.config.vocab_size
    sequences[0].start(context)
    sequences[0].draw(mx.arange(vocab_size, dtype=mx.float32)[None])
    sequences[0].append()
    # the third has to wait for the next step, and the fourth, which is short enough, goes along
    assert scheduled(8) == [(1, 1, True), (2, 6, True), (4, 2, True)]
    sequences[0].restart()
    assert scheduled(8) == [(1, 8, False)]
