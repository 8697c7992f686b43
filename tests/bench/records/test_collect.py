"""Records as they come: none is lost, whatever ends the measurement."""

import pytest
from support.bench_records import speed

from edgellm.bench.records.collect import collect, exit_code


class Memory:
    """A sink that keeps what it is given."""

    def __init__(self):
        self.records = []

    def add(self, record):
        self.records.append(record)


def test_each_record_is_in_every_output_before_the_next_is_measured():
    outputs, notes = [Memory(), Memory()], []

    def measure():
        for number in range(3):
            assert [len(output.records) for output in outputs] == [number, number]
            yield speed(error="no memory" if number == 1 else None)

    records, stopped = collect(measure(), outputs, notes.append)
    assert len(records) == 3
    assert not stopped
    assert notes == ["edgellm, m, tg32: no memory"]
    assert exit_code(records, stopped=False) == 1
    assert exit_code(records[:1], stopped=False) == 0


def test_control_c_keeps_what_was_measured_and_ends_the_measurement():
    ended = []

    def measure():
        try:
            yield speed()
            raise KeyboardInterrupt
        finally:
            ended.append(True)

    records, stopped = collect(measure(), [], ended.append)
    assert len(records) == 1
    assert stopped
    assert ended == [True]
    assert exit_code(records, stopped=stopped) == 130


def test_an_error_ends_the_measurement_too():
    ended = []

    def measure():
        try:
            yield speed()
            yield speed()
        finally:
            ended.append(True)

    class Full(Memory):
        def add(self, record):
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        collect(measure(), [Full()], ended.append)
    assert ended == [True]
