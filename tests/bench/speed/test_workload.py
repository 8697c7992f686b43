"""A workload: which sessions and tests options make, and which options are refused."""

import pytest

from edgellm.bench.backends.registry import ENDPOINT
from edgellm.bench.speed.workload import Workload, unused_options
from edgellm.errors import ConfigError


def test_a_workload_is_the_cross_product_without_what_means_nothing():
    workload = Workload(
        models=("m", "n"),
        backends=("edgellm", "mlx-lm", ENDPOINT),
        threads=(1, 2),
        memory=(None, 10**9),
        bits=(4, 8),
        prompt_tokens=(16, 32),
        gen_tokens=(8, 0),
        depth=(0, 64),
        batch=(1, 4),
        endpoint="http://localhost",
    )
    sessions = workload.sessions()
    counts = {
        name: sum(session.backend == name for session in sessions) for name in workload.backends
    }
    assert counts == {"edgellm": 2 * 2 * 2 * 2, "mlx-lm": 2 * 2, ENDPOINT: 2}
    assert len(set(sessions)) == len(sessions)
    assert {session.settings.threads for session in sessions if session.backend == "mlx-lm"} == {
        None
    }
    tests = workload.tests()
    assert len(tests) == 2 * 2 * 3
    assert [test.name for test in tests[:6]] == [
        "pp16",
        "pp32",
        "tg8",
        "pp16 @ d64",
        "pp32 @ d64",
        "tg8 @ d64",
    ]
    assert {test.batch for test in tests} == {1, 4}
    assert all(session.settings.context == 64 + 32 + 2 for session in sessions)
    assert len(unused_options(workload)) == 4


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"backends": ("lama.cpp",)}, "no backend 'lama.cpp'"),
        ({"batch": (0,)}, "batch is 0"),
        ({"depth": (-1,)}, "depth is -1"),
        ({"threads": (2, 0)}, "threads is 0"),
        ({"threads": (5000,)}, "threads is 5000"),
        ({"bits": (7,)}, "bits is 7"),
        ({"repetitions": 0}, "repetitions is 0"),
        ({"prompt_tokens": (0,), "gen_tokens": (0,)}, "nothing to measure"),
        ({"backends": (ENDPOINT,)}, "needs a URL"),
    ],
)
def test_a_workload_is_checked_before_anything_runs(wrong, said):
    with pytest.raises(ConfigError, match=said) as caught:
        Workload(models=("m",), **wrong)
    assert caught.value.hint
