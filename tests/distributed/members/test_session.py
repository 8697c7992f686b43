"""A session that is over keeps no connection, whenever it comes."""

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.distributed.links.handshake import Keys
from edgellm.distributed.links.link import Link
from edgellm.distributed.members import session as session_module
from edgellm.distributed.members.session import Session
from edgellm.errors import MachineError
from edgellm.settings import LoadSettings

SECRET = b"s" * 43


@contextmanager
def connection():
    """Two ends of a connection whose sides know each other."""
    keys = Keys(os.urandom(32), os.urandom(32))
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        other, _ = server.accept()
    ends = Link(one, keys, "first"), Link(other, Keys(keys.received, keys.sent), "other")
    try:
        yield ends
    finally:
        for end in ends:
            end.close()


def test_a_connection_that_comes_late_is_closed(tiny_folder):
    with connection() as (control, other_control), connection() as (data, other_data):
        session = Session(
            control, read_checkpoint(tiny_folder("llama-3.2")), LoadSettings(), secret=SECRET
        )
        other_control.close()
        with pytest.raises(MachineError, match="went before it asked"):
            session.serve(patience=20)
        session.attach(data)
        with pytest.raises(MachineError, match="is gone"):
            other_data.receive()


def test_a_connection_that_comes_after_the_first_machine_went_is_closed(tiny_folder):
    with connection() as (control, other_control), connection() as (data, other_data):
        session = Session(
            control, read_checkpoint(tiny_folder("llama-3.2")), LoadSettings(), secret=SECRET
        )
        other_control.close()
        assert session._has_data.wait(20)  # what else it waits for is that nothing comes
        session.attach(data)
        with pytest.raises(MachineError, match="is gone"):
            other_data.receive()
        with pytest.raises(MachineError, match="went before it asked"):
            session.serve(patience=20)


def test_a_first_machine_that_never_asks_is_not_waited_for(tiny_folder):
    with connection() as (control, _):
        session = Session(
            control, read_checkpoint(tiny_folder("llama-3.2")), LoadSettings(), secret=SECRET
        )
        with pytest.raises(MachineError, match="went before it asked"):
            session.serve(patience=0.1)


@pytest.mark.parametrize(("says_so", "seconds"), [(True, 20.0), (False, 0.01)])
def test_an_end_that_was_meant_is_no_loss_whichever_connection_says_it_first(
    tiny_folder, monkeypatch, says_so, seconds
):
    monkeypatch.setattr(session_module, "LAST_WORD_SECONDS", seconds)
    with connection() as (control, other_control), connection() as (data, other_data):
        session = Session(
            control, read_checkpoint(tiny_folder("llama-3.2")), LoadSettings(), secret=SECRET
        )
        session.attach(data)
        with ThreadPoolExecutor() as beside:
            served = beside.submit(session.serve, 20)
            other_data.close()
            if says_so:
                with pytest.raises(TimeoutError):
                    served.result(0.1)
                other_control.send({"end": True})
                served.result(20)
            else:
                with pytest.raises(MachineError, match="is gone: it has ended"):
                    served.result(20)
