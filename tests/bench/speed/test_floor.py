"""The least time that a machine could take."""

import pytest

from edgellm.bench.machine.rates import Rates
from edgellm.bench.records.record import SpeedRecord
from edgellm.bench.speed.floor import floor_seconds, with_best_rates


def test_the_floor_is_reading_or_multiplying_whichever_is_longer():
    rates = Rates(bytes_per_second=100.0, flops_per_second=10.0)
    assert floor_seconds(50, 1.0, rates, passes=2) == pytest.approx(1.0)
    assert floor_seconds(50, 30.0, rates, passes=2) == pytest.approx(3.0)
    assert floor_seconds(50, None, rates, passes=1) == pytest.approx(0.5)
    assert floor_seconds(None, 30.0, rates, passes=1) is None
    assert floor_seconds(50, 30.0, None, passes=1) is None


def test_the_best_rates_of_a_run_count_for_all_of_it():
    common = {
        "model": "m",
        "backend": "edgellm",
        "environment": {},
        "weight_bytes_per_token": 10**9,
        "tokens": 2,
        "seconds": (1.0,),
    }
    busy, quiet, elsewhere, failed = (
        SpeedRecord(
            **common,
            device=device,
            test=test,
            read_gbps=rate,
            compute_gflops=flops,
            flops=4e9,
            threads=2,
        )
        for device, test, rate, flops in (
            ("a", "tg2", 2.0, 100.0),
            ("a", "pp2", 8.0, 2.0),
            ("b", "tg2", 4.0, None),
            ("a", "load", None, None),
        )
    )
    found = with_best_rates([busy, quiet, elsewhere, failed])
    assert [record.read_gbps for record in found] == [8.0, 8.0, 4.0, None]
    assert [record.compute_gflops for record in found] == [100.0, 100.0, None, None]
    assert found[0].roofline_share == pytest.approx(2 / 8)
    assert found[1].roofline_share == pytest.approx(1 / 8), "a prompt reads the weights once"
    assert found[3] == failed
