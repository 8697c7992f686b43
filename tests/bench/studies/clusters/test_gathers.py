"""The study of gathers measures bare sockets, and says communication in trips."""

import socket
import threading

import pytest

from edgellm.bench.studies.clusters.gathers import bare_trip, figures


def test_bare_sockets_are_measured_by_both_machines():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    found = {}

    def measure(place):
        found[place] = bare_trip(place, "127.0.0.1", port)

    other = threading.Thread(target=measure, args=(1,))
    other.start()
    measure(0)
    other.join()
    assert all(0 < seconds < 1 for seconds in found.values())


def test_communication_is_said_in_trips():
    one = [{"seconds": [30.0, 20.0], "parts": [{"kernels": 19.0}, {"kernels": 18.0}]}]
    part = {"kernels": 10.0, "gathers": 22.0, "count": 100}
    rows = [{"seconds": [36.0, 34.0, 90.0], "parts": [part] * 3}]
    found = figures(0.2, one, rows)
    assert (found["one"], found["rows"], found["count"]) == (25.0, 36.0, 100)
    assert found["gathers in trips"] == pytest.approx(1.1)
    assert found["all but kernels in trips"] == pytest.approx(1.3)
