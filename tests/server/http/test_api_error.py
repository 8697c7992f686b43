"""Errors of the runtime as clients get them: what may succeed later says so."""

import pytest

from edgellm.errors import ClosedError, MachineError, QueueFullError, ReadError
from edgellm.server.http.api_error import api_error


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (QueueFullError("full"), 429, "queue_full"),
        (ClosedError("closed"), 503, "shutting_down"),
        (MachineError("machine 10.0.0.2:47110 is gone"), 503, "machine_missing"),
        (ReadError("a file is gone"), 500, None),
    ],
)
def test_what_may_succeed_later_is_no_fault_of_the_server(error, status, code):
    told = api_error(error)
    assert (told.status, told.code) == (status, code)
    assert "10.0.0.2" not in told.message


def test_a_fault_that_all_requests_meet_is_one_line(caplog):
    for _ in range(50):
        api_error(MachineError("machine 10.0.0.3:47110 is gone", hint="start it"))
    assert [record.getMessage() for record in caplog.records] == [
        "a request has failed: machine 10.0.0.3:47110 is gone; start it"
    ]
