"""Records of training: figures that follow from samples, and what is unknown."""

import pytest
from support.bench_records import training

from edgellm.bench.records.kinds import record_of


def test_activations_are_the_rest_of_the_peak():
    assert training().activation_bytes == 150_000_000 - 120_000_000 - 12_000
    # a model whose pages were given back after it was loaded
    assert training(training_peak_bytes=1).activation_bytes == 0
    assert training(weight_bytes=None).activation_bytes is None
    assert training(training_peak_bytes=None).activation_bytes is None


def test_steps_of_unequal_length_have_a_pace_and_no_spread():
    equal = training()
    assert equal.tokens_per_second == pytest.approx((512 + 256) / 2)
    assert equal.spread == pytest.approx(1 / 3)
    assert equal.doubts
    assert equal.median_cpu_seconds == 2.0
    unequal = training(step_tokens=(512, 1024))
    assert unequal.tokens_per_second == 512
    assert unequal.spread is None


def test_a_record_is_the_same_when_it_is_read_back():
    record = training()
    written = record.as_dict()
    assert record_of(written) == record
    assert written["loss_before"] == 3.0
    assert written["activation_bytes"] == record.activation_bytes
