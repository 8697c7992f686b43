"""Exact tests against values worked out otherwise."""

import math

import pytest

from edgellm.bench.statistics.significance import holm, mcnemar


@pytest.mark.parametrize(
    ("better", "worse", "p"),
    [
        (0, 0, 1.0),
        (5, 5, 1.0),
        (1, 3, 0.625),  # 2 (1 + 4) / 16
        (0, 6, 2 / 64),
        (10, 2, 2 * (1 + 12 + 66) / 4096),
        (4, 3, 1.0),  # twice the tail is more than 1
    ],
)
def test_mcnemar_is_a_coin_thrown_for_each_difference(better, worse, p):
    assert mcnemar(better, worse) == pytest.approx(p, rel=1e-12)
    assert mcnemar(worse, better) == mcnemar(better, worse)


def test_mcnemar_of_many_differences_neither_overflows_nor_vanishes_early():
    exact = 2 * sum(math.comb(900, k) for k in range(420 + 1)) / 2**900
    assert mcnemar(420, 480) == pytest.approx(exact, rel=1e-9)
    assert mcnemar(0, 100_000) == 0.0
    assert mcnemar(9_900, 10_100) == pytest.approx(0.1595, abs=1e-3)


def test_holm_keeps_the_order_and_never_lets_a_larger_p_become_smaller():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([]) == []
