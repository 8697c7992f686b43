"""The scheduler: first come, first served, as far as memory and a chunk reach."""

import mlx.core as mx
import pytest
from support import tiny
from support.engines import open_context

from edgellm.engine.scheduling.batched_forward import SequenceInput, forward
from edgellm.engine.scheduling.scheduler import Scheduler
from edgellm.engine.scheduling.sequence import Sequence
from edgellm.errors import QueueFullError
from edgellm.settings import Sampling

PROMPT = [tiny.BEGIN, *range(20, 60)]


@pytest.fixture
def context(tiny_folder):
    with open_context(tiny_folder("llama-2", seed=1)) as opened:
        yield opened


def sequence(context, tokens, new=10):
    return Sequence(context, PROMPT[:tokens], Sampling(max_tokens=new))


def lease(context, one):
    return context.prefix_cache.begin(one.tokens, one.max_tokens, reuse=False)


def admitted(scheduler):
    return [one.number for one in scheduler.admitted if scheduler.start(one)]


def last_tokens(scheduler):
    return [(number, token.finish_reason) for number, token in scheduler.take_tokens()]


def test_kv_bytes_are_those_of_the_caches(context):
    one = sequence(context, 20)
    one.start(lease(context, one))
    assert one.kv_bytes == sum(cache.nbytes for cache in one.caches)


def test_memory_that_the_first_in_line_cannot_use_is_lent(context):
    small, large = sequence(context, 5), sequence(context, 30, new=60)
    assert large.kv_bytes >= 3 * small.kv_bytes
    scheduler = Scheduler(large.kv_bytes)
    others = [sequence(context, 5) for _ in range(2)]
    assert [scheduler.add([one]) for one in (small, large, *others)] == [1, 2, 3, 4]
    assert admitted(scheduler) == [1, 3, 4]
    assert (scheduler.running_count, scheduler.waiting_count) == (3, 1)
    assert scheduler.make_way() == ([], []), "all that is lent would not be enough"
    scheduler.end(small)
    assert admitted(scheduler) == []
    preempted, _ = scheduler.make_way()
    assert [one.number for one in preempted] == [4, 3], "the last one first"
    assert admitted(scheduler) == [2]
    assert scheduler.bytes_in_use == large.kv_bytes
    assert scheduler.preemptions == 2
    scheduler.end(large)
    assert admitted(scheduler) == [3], "the fourth waits until the third has room to grow, too"
    assert scheduler.bytes_in_use == small.kv_bytes
    scheduler.end(others[0])
    assert admitted(scheduler) == [4]
    scheduler.end(others[1])
    assert (scheduler.is_idle, scheduler.bytes_in_use, scheduler.ended) == (True, 0, 4)


def test_whoever_came_last_gives_way_to_caches_that_grow(context):
    first, second, third = (sequence(context, 5, new=200) for _ in range(3))
    scheduler = Scheduler(first.kv_bytes * 5 // 2)
    for one in (first, second, third):
        scheduler.add([one])
    assert admitted(scheduler) == [1, 2]
    assert scheduler.make_way() == ([], []), "nothing is full"
    for one in (first, second):
        one.tokens += [7] * (one.room - 4)
    # there is no memory for both to grow
    assert scheduler.make_way() == ([second], [first])
    assert first.kv_bytes == scheduler.bytes_in_use
    assert (scheduler.running_count, scheduler.waiting_count) == (1, 2)
    scheduler.end(first)
    assert admitted(scheduler) == [2], "before the third, which had never run"


def test_a_group_that_a_full_queue_refuses_leaves_no_trace(context):
    scheduler = Scheduler(3 * sequence(context, 5).kv_bytes, max_queue=0)
    assert scheduler.add([sequence(context, 5)]) == 1
    with pytest.raises(QueueFullError):
        scheduler.add([sequence(context, 5) for _ in range(3)])
    assert scheduler.add([sequence(context, 5) for _ in range(2)]) == 2
    assert admitted(scheduler) == [1, 2, 3]


def test_no_more_run_than_were_allowed(context):
    scheduler = Scheduler(1 << 30, max_sequences=2)
    for _ in range(4):
        scheduler.add([sequence(context, 5)])
    assert admitted(scheduler) == [1, 2]
    scheduler.cancel(1)
    scheduler.cancel(3)  # it waits, and leaves at once
    scheduler.cancel(7)
    assert (scheduler.running_count, scheduler.waiting_count) == (2, 1)
    assert last_tokens(scheduler) == [(3, "cancelled")]
    assert [one.number for one in scheduler.end_cancelled()] == [1]
    assert admitted(scheduler) == [4]
    scheduler.cancel_all()
    assert [one.number for one in scheduler.end_cancelled()] == [2, 4]
    assert not scheduler.is_idle, "their last tokens are still to be had"
    assert last_tokens(scheduler) == [(1, "cancelled"), (2, "cancelled"), (4, "cancelled")]
    assert scheduler.is_idle


def test_a_full_queue_takes_none_of_a_group(context):
    scheduler = Scheduler(1 << 30, max_sequences=2, max_queue=1)
    assert scheduler.add([sequence(context, 5)]) == 1
    with pytest.raises(QueueFullError, match="0 sequences wait, 1 run; max_queue 1 has no room"):
        scheduler.add([sequence(context, 5) for _ in range(3)])
    assert (scheduler.running_count, scheduler.waiting_count) == (1, 0)
    assert scheduler.add([sequence(context, 5) for _ in range(2)]) == 2
    assert (scheduler.running_count, scheduler.waiting_count) == (2, 1)
    with pytest.raises(QueueFullError):
        scheduler.add([sequence(context, 5)])
    scheduler.cancel(3)
    assert scheduler.add([sequence(context, 5)]) == 4
    assert scheduler.bytes_in_use == 2 * sequence(context, 5).kv_bytes


def test_prompts_share_a_chunk_and_who_generates_goes_on(context):
    scheduler = Scheduler(1 << 30)
    sequences = [sequence(context, tokens) for tokens in (20, 6, 4, 2)]
    for one in sequences:
        scheduler.add([one])
    assert admitted(scheduler) == [1, 2, 3, 4]
    for one in sequences:
        one.start(lease(context, one))

    def scheduled(prefill_tokens):
        inputs = scheduler.schedule(prefill_tokens)
        return [(one.number, len(new.tokens), new.needs_logits) for one, new in inputs]

    # half for the first, the other half for those that are done soonest
    assert scheduled(8) == [(1, 4, False), (3, 2, False), (4, 2, True)]
    assert scheduled(100) == [(1, 20, True), (2, 6, True), (3, 4, True), (4, 2, True)]
    forward(context.model, [SequenceInput(PROMPT[:20], sequences[0].caches)], prefill_chunk=8)
    sequences[0].record_forward(20, prefill_chunk=8)
    vocab_size = context.model.config.vocab_size
    sequences[0].draw(mx.arange(vocab_size, dtype=mx.float32)[None])
    sequences[0].append()
    assert scheduled(8) == [(1, 1, True), (2, 4, False), (3, 2, False), (4, 2, True)]
    # a token that was noted and never computed is computed again
    sequences[0].record_forward(1, prefill_chunk=8)
    assert scheduled(8)[0] == (1, 1, True)
    sequences[0].restart()
    assert scheduled(8)[0] == (1, 4, False)
