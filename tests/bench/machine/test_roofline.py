"""The limits of this machine's memory and arithmetic."""

import pytest
from support.processes import python

from edgellm.bench.machine.rates import Rates
from edgellm.bench.machine.roofline import narrow_factor, processor_rates, read_rate


def test_the_best_of_two_measurements_has_the_larger_of_each_rate():
    first, second = Rates(2.0, None), Rates(1.0, 5.0)
    assert first.best(second) == second.best(first) == Rates(2.0, 5.0)
    assert first.best(None) == first


def test_the_limits_of_this_machine_are_measured():
    found = processor_rates(1)
    assert found.bytes_per_second > 1e8
    assert found.flops_per_second > 1e8
    assert read_rate(2, 8 << 20) > 1e8


@pytest.mark.parametrize(
    ("flags", "factor"),
    [
        ("flags : sse2 avx2 avx512_vnni amx_bf16", 16),
        ("flags : sse2 avx2 avx512_vnni", 4),
        ("Features : fp asimd asimddp", 4),
        ("Features : fp asimd", 1),
    ],
)
def test_the_limit_of_products_follows_from_the_processor(tmp_path, flags, factor):
    (tmp_path / "cpuinfo").write_text(flags)
    assert narrow_factor(tmp_path / "cpuinfo") == factor
    assert narrow_factor(tmp_path / "none") == 1


def test_the_limits_are_measured_with_numpy_alone():
    printed = python(
        "import sys; from edgellm.bench.machine import roofline;"
        "sys.argv[1:] = ['1']; roofline.SECONDS = 0.0; roofline.READ_BYTES = 1 << 20;"
        "roofline.main(); print({'torch', 'llvmlite', 'mlx'} & sys.modules.keys())"
    )
    assert printed.splitlines()[1] == "set()"
