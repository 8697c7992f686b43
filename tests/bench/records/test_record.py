"""Records: the figures that follow from their samples."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.bench_records import COMMON, speed

from edgellm.bench.records.record import Record, percentile

GENERATION = COMMON | {"test": "tg128"}
FIELDS = {
    *("model", "backend", "device", "test", "tokens", "seconds", "tokens_per_second", "threads"),
    *("batch", "bits", "memory_bytes", "peak_memory_bytes", "weight_bytes_per_token"),
    *("achieved_gbps", "roofline_share", "error", "environment"),
}


def test_a_record_derives_its_figures_from_the_median():
    record = Record(
        **GENERATION,
        tokens=128,
        seconds=(4.0, 2.0, 1.0),
        batch=2,
        weight_bytes_per_token=10**9,
        floor_seconds=0.5,
    )
    assert record.median_seconds == 2.0
    assert record.tokens_per_second == 128.0
    assert record.achieved_gbps == pytest.approx(64.0)
    assert record.roofline_share == 0.25
    assert record.as_dict().keys() >= FIELDS


def test_a_record_without_samples_has_no_figures():
    record = Record(**GENERATION, error="it is not installed")
    found = record.as_dict()
    for figure in ("tokens_per_second", "achieved_gbps", "roofline_share"):
        assert found[figure] is None
    assert found["error"] == "it is not installed"


def test_derived_figures_of_a_speed():
    prompt = speed(
        test="pp100", tokens=100, batch=2, seconds=(2.0, 4.0, 3.0), weight_bytes_per_token=3 * 10**9
    )
    assert prompt.achieved_gbps == pytest.approx(1.0), "a prompt goes through the weights once"
    assert prompt.tokens_per_second == pytest.approx(200 / 3)
    assert prompt.time_to_first_token == 3.0
    assert prompt.spread == pytest.approx(1 / 3)
    generation = speed(
        tokens=10, batch=2, seconds=(2.0,), weight_bytes_per_token=10**9, energy_joules=(40.0,)
    )
    assert generation.achieved_gbps == pytest.approx(5.0), (
        "a step of all sequences goes through them once"
    )
    assert generation.joules_per_token == 2.0
    assert generation.spread is None
    assert speed(first_token_seconds=(3.0, 1.0, 2.0)).time_to_first_token == 2.0
    assert speed().joules_per_token is None, "what is not measured is not zero"
    assert speed(seconds=()).tokens_per_second is None


def test_median_and_spread_survive_equal_samples():
    record = speed(seconds=(1.0, 1.0))
    assert record.spread == 0.0
    assert record.median_seconds == 1.0


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.floats(1, 100))
def test_a_percentile_is_a_sample_that_so_many_do_not_exceed(samples, share):
    found = percentile(samples, share)
    assert found in samples
    assert sum(value <= found for value in samples) >= share / 100 * len(samples) - 1e-9
