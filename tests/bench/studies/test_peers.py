"""The studies beside other programs: what they say of their records."""

from support.bench_records import speed

from edgellm.bench.studies.cpu_kernels import OWN, comparison
from edgellm.bench.studies.peers_in_a_budget import show


def test_each_peer_is_compared_round_by_round():
    records = [
        speed(backend=OWN, seconds=(1.0, 2.0, 1.0)),
        speed(backend="mlx-lm", tokens=16, seconds=(1.0, 2.0, 3.0)),
        speed(backend="llama.cpp", seconds=(), error="it broke"),
        speed(backend="llama.cpp", test="pp8", seconds=(1.0,)),
    ]
    assert comparison(records) == "tg32: 2.00 times mlx-lm"


def test_a_contest_is_shown_with_the_times_that_we_are_faster():
    ours, theirs = speed(tokens=1, seconds=(2.0,)), speed(tokens=1, seconds=(5.0,), backend="peer")
    failed = speed(tokens=1, seconds=(), error="killed", backend="other")
    lines = show({"7B": [ours, theirs, failed]}).splitlines()
    assert lines[0] == "7B"
    assert "1.0 x" in lines[2]
    assert "2.5 x" in lines[3]
    assert lines[4].endswith("killed")
