"""The controller verifies as many draft tokens as pay, and notices when that changes."""

import numpy as np
import pytest
from support.drafters import ConstantDrafter

from edgellm.settings import Sampling
from edgellm.speculation.controller import MIN_COOLDOWN, Speculation


@pytest.mark.parametrize("costs", [True, False])
@pytest.mark.parametrize(
    ("row_seconds", "right", "expected"),
    [(0.0, 0.95, 15), (0.5, 0.7, 1), (0.9, 0.6, 0), (0.3, 0.1, 0)],
)
def test_as_many_draft_tokens_as_pay(costs, row_seconds, right, expected):
    """Cheap rows and a predictable text: long. Dear rows: short. Wrong: off, with trials."""
    random = np.random.default_rng(1)
    speculation = Speculation(ConstantDrafter(5, costs_time=costs), extra_row_cost=0.1)
    speculation.begin([1], Sampling())
    counts = []
    for _ in range(1500):
        drafted = speculation.propose(100)
        counts.append(len(drafted))
        speculation.record_step(len(drafted) + 1, 1.0 + row_seconds * len(drafted))
        for _ in range(len(drafted) + 1):
            hit = random.random() < right
            speculation.add(5 if hit else 6)
            if not hit:
                break
    late = counts[300:]
    assert np.median(late) == pytest.approx(
        expected, abs=4 if expected > 1 else 1 if expected else 0
    )
    if expected == 0:
        assert sum(late) < 0.05 * len(late)
    if right < 0.5:
        speculation.begin([1], Sampling())
        for _ in range(MIN_COOLDOWN + 200):  # a text that has become predictable is noticed
            drafted = speculation.propose(100)
            speculation.record_step(len(drafted) + 1, 1.0 + row_seconds * len(drafted))
            for _ in range(len(drafted) + 1):
                speculation.add(5)
        assert len(speculation.propose(100)) > 3
    assert speculation.propose(0) == []
    assert len(speculation.propose(2)) <= 2
