"""A budget becomes a plan that keeps it."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgellm.console.units import size
from edgellm.device.machine import Memory
from edgellm.errors import MemoryBudgetError
from edgellm.kv_cache.cache import SLACK
from edgellm.memory_plan.budget_planner import (
    MINIMUM_CONTEXT,
    PAGED_CHUNK,
    RESIDENT_CONTEXT,
    automatic_budget,
    least_budget,
    make_plan,
    spread,
)
from edgellm.memory_plan.memory_estimate import MemoryEstimate
from edgellm.memory_plan.plan import Speeds
from edgellm.settings import parse_size

MB = 1_000_000


@st.composite
def needs(draw):
    count = draw(st.integers(1, 40))
    tied = draw(st.booleans())
    embedding = draw(st.integers(1, 300 * MB))
    each = draw(st.integers(1, 100_000))
    usual = draw(st.integers(1000, 400 * MB))
    other = draw(st.integers(1000, 400 * MB) | st.just(usual))
    mixed = draw(st.sets(st.integers(0, count - 1), max_size=4))
    return MemoryEstimate(
        layer_bytes=tuple(other if index in mixed else usual for index in range(count)),
        embedding_bytes=embedding,
        embedding_row_bytes=draw(st.integers(1, 20_000)),
        norm_bytes=draw(st.integers(1, 100_000)),
        lm_head_bytes=0 if tied else embedding,
        tied=tied,
        layer_kv_bytes=each,
        windows=tuple(draw(st.sampled_from([None, 64, 4096])) for _ in range(count)),
        hidden_bytes=draw(st.integers(1, 40_000)),
        layer_activation_bytes=draw(st.integers(1, 500_000)),
        score_bytes=draw(st.sampled_from([0, 64, 1024])),
        max_context=draw(st.integers(1, 200_000)),
    )


@st.composite
def situations(draw):
    """A model, the settings of a plan, and the smallest budget that they need."""
    model = draw(needs())
    context = draw(st.none() | st.integers(1, 20_000))
    settings = {
        "ring_buffers": draw(st.integers(1, 4)),
        "context": context,
        "prefill_chunk": draw(st.sampled_from([1, 32, 100, 512])),
    }
    with pytest.raises(MemoryBudgetError) as raised:
        make_plan(model, budget=1, **settings)
    said = re.search(r"--memory (\d+MB)", raised.value.hint)
    return model, settings, parse_size(said.group(1)), raised.value


shares = st.floats(1.0, 1.2) | st.floats(1.0, 50.0)


@given(situations(), shares)
def test_a_plan_never_exceeds_its_budget_and_adds_up(situation, share):
    model, settings, least, _ = situation
    budget = int(least * share)
    plan = make_plan(model, budget=budget, **settings)
    assert plan.total_bytes <= budget
    assert sorted(plan.pinned + plan.streamed) == list(range(len(model.layer_bytes)))
    assert plan.resident == (not plan.streamed) == (plan.ring_buffers == 0)
    assert plan.ring_buffers * plan.buffer_bytes <= settings["ring_buffers"] * max(
        model.layer_bytes
    )
    assert all(plan.buffer_bytes >= model.layer_bytes[index] for index in plan.streamed)
    held = (
        plan.pinned_bytes
        + plan.outer_bytes
        + plan.ring_buffers * plan.buffer_bytes
        + plan.cache_bytes
        + plan.working_bytes
    )
    assert plan.total_bytes == held
    assert plan.pinned_bytes == sum(model.layer_bytes[index] for index in plan.pinned)
    streamed = sum(model.layer_bytes[index] for index in plan.streamed)
    assert plan.streamed_bytes == streamed + (
        0 if plan.embedding_resident else model.embedding_row_bytes
    )
    assert plan.embedding_resident == (plan.resident or model.tied)
    assert plan.model_bytes == model.weight_bytes
    assert plan.context == (settings["context"] or plan.context)
    assert settings["context"] or 1 <= plan.context <= model.max_context
    assert 1 <= plan.prefill_chunk <= max(settings["prefill_chunk"], 32)


@given(situations())
def test_the_smallest_budget_that_an_error_names_does(situation):
    model, settings, least, error = situation
    assert error.exit_code == 3
    needed = least_budget(model, ring_buffers=settings["ring_buffers"], context=settings["context"])
    assert f"this model needs at least {size(needed)}: " in error.message
    assert make_plan(model, budget=least, **settings).total_bytes <= least
    if least > MB:
        with pytest.raises(MemoryBudgetError):
            make_plan(model, budget=least - MB, **settings)


@given(situations())
def test_the_least_budget_does_and_a_byte_less_does_not(situation):
    model, settings, _, _ = situation
    least = least_budget(model, ring_buffers=settings["ring_buffers"], context=settings["context"])
    assert make_plan(model, budget=least, **settings).total_bytes <= least
    with pytest.raises(MemoryBudgetError):
        make_plan(model, budget=least - 1, **settings)


@given(situations(), shares, shares)
def test_a_larger_budget_never_reads_more(situation, first, second):
    model, settings, least, _ = situation
    small, large = (
        make_plan(model, budget=int(least * share), **settings) for share in sorted((first, second))
    )
    assert large.streamed_bytes <= small.streamed_bytes
    assert large.resident >= small.resident
    assert len(large.pinned) >= len(small.pinned)


@given(st.integers(1, 200), st.data())
def test_pinned_layers_are_spread_evenly(total, data):
    count = data.draw(st.integers(1, total))
    chosen = spread(count, total)
    assert len(set(chosen)) == count
    assert list(chosen) == sorted(chosen)
    assert 0 <= chosen[0] <= chosen[-1] < total
    gaps = [
        after - before
        for before, after in zip(chosen, [*chosen[1:], chosen[0] + total], strict=True)
    ]
    assert max(gaps) - min(gaps) <= 1, "round and round, gaps differ by one layer at most"


MODEL = MemoryEstimate(
    layer_bytes=(100 * MB,) * 32,
    embedding_bytes=100 * MB,
    embedding_row_bytes=2000,
    norm_bytes=8000,
    lm_head_bytes=100 * MB,
    tied=False,
    layer_kv_bytes=500_000 // 32,
    windows=(None,) * 32,
    hidden_bytes=16_000,
    layer_activation_bytes=300_000,
    score_bytes=256,
    max_context=8192,
)


def test_what_fits_is_resident_with_a_useful_context():
    plan = make_plan(MODEL, budget=4000 * MB, ring_buffers=2)
    assert plan.resident
    assert plan.context >= RESIDENT_CONTEXT
    assert plan.prefill_chunk >= 256
    assert plan.streamed_bytes == 0


def test_what_does_not_fit_streams_and_keeps_an_eighth_for_the_context():
    plan = make_plan(MODEL, budget=2000 * MB, ring_buffers=2)
    assert not plan.resident
    assert 0.11 * plan.budget < plan.cache_bytes <= 0.125 * plan.budget
    assert plan.budget - plan.total_bytes < max(MODEL.layer_bytes), (
        "what is left over holds no layer more"
    )


def test_layers_are_pinned_before_prefill_chunks_are_long():
    plans = [make_plan(MODEL, budget=budget * MB, ring_buffers=2) for budget in range(1000, 2000)]
    pinned, chunks = [len(plan.pinned) for plan in plans], [plan.prefill_chunk for plan in plans]
    assert pinned == sorted(pinned)
    assert len(set(pinned)) > 5
    assert min(chunks) == PAGED_CHUNK
    assert max(chunks) > 2 * PAGED_CHUNK


def test_a_context_that_was_asked_for_is_kept_and_costs_pinned_layers():
    short, long = (
        make_plan(MODEL, budget=2000 * MB, ring_buffers=2, context=context)
        for context in (100, 2000)
    )
    assert (short.context, long.context) == (100, 2000)
    assert len(short.pinned) > len(long.pinned)
    with pytest.raises(MemoryBudgetError, match="8000 tokens of context"):
        make_plan(MODEL, budget=2000 * MB, ring_buffers=2, context=8000)


def test_a_window_bounds_the_cache():
    window = replace(MODEL, windows=(256,) * 32)
    assert window.kv_bytes(8192) == MODEL.kv_bytes(256 + SLACK)
    wide, narrow = (
        make_plan(model, budget=2000 * MB, ring_buffers=2, context=1000)
        for model in (MODEL, window)
    )
    assert len(narrow.pinned) > len(wide.pinned)


def test_a_tied_embedding_stays_in_memory_because_it_is_the_head():
    plan = make_plan(replace(MODEL, tied=True, lm_head_bytes=0), budget=2000 * MB, ring_buffers=2)
    assert plan.embedding_resident
    assert plan.streamed_bytes == len(plan.streamed) * 100 * MB


def test_the_smallest_budget_pins_nothing_and_has_a_short_context():
    with pytest.raises(MemoryBudgetError) as raised:
        make_plan(MODEL, budget=MB, ring_buffers=3)
    least = parse_size(re.search(r"--memory (\S+)", raised.value.hint).group(1))
    plan = make_plan(MODEL, budget=least, ring_buffers=3)
    assert (plan.pinned, plan.ring_buffers, plan.context) == ((), 3, MINIMUM_CONTEXT)


def test_a_prediction_is_what_bounds_the_token():
    disk = make_plan(MODEL, budget=2000 * MB, ring_buffers=2, speeds=Speeds(disk=1e9, weights=1e11))
    assert disk.bound_by == "disk"
    assert disk.seconds_per_token == pytest.approx(disk.streamed_bytes / 1e9)
    slow = make_plan(MODEL, budget=2000 * MB, ring_buffers=2, speeds=Speeds(disk=1e12, weights=1e9))
    assert slow.bound_by == "arithmetic"
    assert slow.seconds_per_token == pytest.approx((3300 * MB + 8000) / 1e9)
    assert make_plan(MODEL, budget=2000 * MB, ring_buffers=2).as_dict()["tokens_per_second"] is None
    assert disk.as_dict()["tokens_per_second"] == pytest.approx(1 / disk.seconds_per_token)
    assert disk.as_dict()["layers"] == 32


def test_the_automatic_budget_leaves_a_reserve():
    gb = 1000 * MB
    assert automatic_budget(Memory(16 * gb, 10 * gb)) == 10 * gb - int(1.6 * gb)
    assert automatic_budget(Memory(16 * gb, gb)) == gb // 2
    assert automatic_budget(Memory(16 * gb, 14 * gb, gpu_limit=11 * gb)) == 11 * gb
