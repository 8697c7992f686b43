"""The status line: the time that is left."""

from edgellm.bench.worker.status_line import time_left


def test_the_time_that_is_left():
    assert time_left(10.0, 0, 5) == ""
    assert time_left(10.0, 2, 4) == "10 s left"
    assert time_left(600.0, 1, 3) == "20 min left"
