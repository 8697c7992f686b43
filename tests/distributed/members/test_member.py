"""A machine that waits for clusters waits on, whatever becomes of one that calls."""

import errno
import socket
from contextlib import ExitStack

import pytest
from support.clusters import members

from edgellm.distributed.links.machines import read_machines, secret_file
from edgellm.distributed.links.secret import read_secret
from edgellm.distributed.members.lobby import MAX_OF_ONE
from edgellm.distributed.start import machine_status


@pytest.mark.parametrize("code", [errno.ECONNABORTED, errno.EMFILE])
def test_a_caller_that_could_not_be_let_in_is_not_the_last(
    tiny_folder, tmp_path, monkeypatch, code
):
    accept, failures = socket.socket.accept, [OSError(code, "no")] * 2

    def failing(listener):
        if failures:
            raise failures.pop()
        return accept(listener)

    monkeypatch.setattr(socket.socket, "accept", failing)
    with members(tiny_folder("llama-3.2"), tmp_path, ["500MB"]) as hosts:
        machine, secret = read_machines(hosts)[1], read_secret(secret_file(hosts))
        assert not machine_status(machine, secret).get("busy", True)
    assert not failures


def test_strangers_that_say_nothing_keep_no_machine_out(tiny_folder, tmp_path):
    with members(tiny_folder("llama-3.2"), tmp_path, ["500MB"]) as hosts, ExitStack() as stack:
        machine, secret = read_machines(hosts)[1], read_secret(secret_file(hosts))
        for _ in range(3):
            for _ in range(2 * MAX_OF_ONE):
                stack.enter_context(socket.create_connection(machine.address))
            assert not machine_status(machine, secret).get("busy", True)
