"""The limits of this machine's memory and arithmetic."""

from edgellm.bench.machine.rates import Rates
from edgellm.bench.machine.roofline import processor_rates, read_rate


def test_the_best_of_two_measurements_has_the_larger_of_each_rate():
    first, second = Rates(2.0, None), Rates(1.0, 5.0)
    assert first.best(second) == second.best(first) == Rates(2.0, 5.0)
    assert first.best(None) == first


def test_the_limits_of_this_machine_are_measured():
    found = processor_rates(1)
    assert found.bytes_per_second > 1e8
    assert found.flops_per_second > 1e8
    assert read_rate(2, 8 << 20) > 1e8
