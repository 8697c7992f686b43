"""A machine that waits for clusters waits on, whatever becomes of one that calls."""

import errno
import socket
import threading
from contextlib import ExitStack, closing

import pytest
from support.clusters import members

from edgellm.distributed.links.call import call
from edgellm.distributed.links.machines import read_machines, secret_file
from edgellm.distributed.links.secret import read_secret
from edgellm.distributed.members import member as members_module
from edgellm.distributed.members.lobby import MAX_OF_ONE
from edgellm.distributed.start import machine_status
from edgellm.errors import MachineError


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


def test_a_machine_that_asks_in_another_form_is_refused(tiny_folder, tmp_path):
    said = []
    with members(tiny_folder("llama-3.2"), tmp_path, ["500MB"], said=said) as hosts:
        machine, secret = read_machines(hosts)[1], read_secret(secret_file(hosts))
        with closing(call(machine, secret)) as control, closing(call(machine, secret)) as lane:
            control.send({"for": "control"})
            session = control.receive()[0]["session"]
            lane.send({"for": "rows", "session": session})
            with pytest.raises(MachineError):
                lane.receive()
    assert any("in another form" in line for line in said)


def test_an_address_that_this_machine_loses_and_gets_back_is_told_once(
    tiny_folder, tmp_path, monkeypatch
):
    looks = iter([True, False, False, True, True])
    seen, said = threading.Event(), []

    def is_here(_):
        found = next(looks, None)
        if found is None:
            seen.set()
        return found is not False

    monkeypatch.setattr(members_module, "is_here", is_here)
    monkeypatch.setattr(members_module, "LOOK_SECONDS", 0.02)
    with members(tiny_folder("llama-3.2"), tmp_path, ["500MB"], said=said) as hosts:
        assert seen.wait(20)
        machine, secret = read_machines(hosts)[1], read_secret(secret_file(hosts))
        assert not machine_status(machine, secret).get("busy", True), "and it still answers"
    assert [line.partition(" the address")[0] for line in said] == [
        "this machine no longer has",
        "this machine has",
    ]
