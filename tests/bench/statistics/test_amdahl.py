"""How time falls as threads are added."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgellm.bench.records.kinds import QueryRecord
from edgellm.bench.statistics.amdahl import Scaling, scalings

COUNTS = st.lists(st.integers(1, 128), min_size=2, max_size=6, unique=True)


@given(share=st.floats(0, 1), counts=COUNTS, one=st.floats(1e-3, 1e3))
def test_amdahls_share_is_found_again(share, counts, one):
    base = min(counts)
    found = Scaling(
        seconds={threads: one * (1 - share + share * base / threads) for threads in counts}
    )
    assert found.fewest_threads == base
    assert found.speed_up(base) == found.efficiency(base) == 1
    assert found.parallel_fraction == pytest.approx(share, abs=1e-6)


def test_efficiency_is_speed_up_a_thread():
    found = Scaling(seconds={1: 8.0, 4: 2.5})
    assert found.speed_up(4) == pytest.approx(3.2)
    assert found.efficiency(4) == pytest.approx(0.8)
    assert Scaling(seconds={2: 1.0}).parallel_fraction is None


def test_a_slow_down_gives_a_share_below_zero():
    found = Scaling(seconds={1: 1.0, 2: 1.5}).parallel_fraction
    assert found is not None
    assert found < 0


def test_scaling_counts_all_questions_of_a_model():
    common = {
        "model": "m",
        "backend": "edgellm",
        "device": "cpu",
        "test": "query",
        "environment": {},
    }
    records = [
        QueryRecord(**common, threads=1, tokens=10, seconds=(4.0,)),
        QueryRecord(**common, threads=1, tokens=30, seconds=(6.0, 8.0, 100.0)),
        QueryRecord(**common, threads=2, tokens=10, seconds=(2.0,)),
        QueryRecord(**common, threads=2, error="it broke"),
    ]
    assert scalings(records)["m"].seconds == {1: pytest.approx(0.3), 2: pytest.approx(0.2)}
