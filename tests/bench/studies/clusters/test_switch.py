"""The switch of the study of clusters delivers at a rate, after a delay, in order."""

import pytest

from edgellm.bench.studies.clusters.__main__ import Machine, machine_from, seconds_from
from edgellm.bench.studies.clusters.switch import Queues


def packet(machine, nbytes):
    """An IP packet (version 4) for a machine."""
    return bytes([0x45, *[0] * 18, machine + 1, *[0] * (nbytes - 20)])


def test_packets_take_the_delay_and_the_rate_of_their_link():
    queues = Queues(3, delay=1.0, rate=1000.0)
    queues.put(0, packet(1, 500), 0.0)
    queues.put(0, packet(1, 250), 0.1)  # waits until the first one is sent
    queues.put(2, packet(1, 100), 0.2)  # of a link of its own
    arrivals = []
    while (due := queues.next_due()) is not None:
        assert queues.due(1, due - 1e-6) is None
        found = queues.due(1, due)
        arrivals.append((round(due, 6), len(found)))
        assert queues.due(0, due) is None
    assert arrivals == [(1.3, 100), (1.5, 500), (1.75, 250)]


def test_nothing_overtakes_on_the_way_from_one_machine():
    queues = Queues(2, delay=0.5, rate=1e6)
    for nbytes in (900, 20, 400):
        queues.put(1, packet(0, nbytes), 0.0)
    sizes = [len(queues.due(0, 10.0)) for _ in range(3)]
    assert sizes == [900, 20, 400]


def test_packets_for_nobody_are_dropped():
    queues = Queues(2, delay=0.0, rate=1e6)
    queues.put(0, packet(7, 100), 0.0)
    queues.put(0, bytes([0x60]) + bytes(60), 0.0)  # version 6
    assert queues.next_due() is None


@pytest.mark.parametrize(
    ("text", "machine"),
    [("1GB", Machine(10**9, None)), ("500MB:0.4GB", Machine(5 * 10**8, 4e8))],
)
def test_machines_are_written_as_memory_and_disk(text, machine):
    assert machine_from(text) == machine


@pytest.mark.parametrize(("text", "seconds"), [("1ms", 1e-3), ("100us", 1e-4), ("0.5", 0.5)])
def test_times_are_written_with_a_unit(text, seconds):
    assert seconds_from(text) == pytest.approx(seconds)
