"""Machines that cannot call each other say once who and why."""

import pytest
from support.ports import free_ports

from edgellm.distributed.links.addresses import Address
from edgellm.distributed.links.machines import Machine
from edgellm.distributed.members.meeting import Meeting, Neighbour
from edgellm.errors import MachineError


def test_a_machine_that_cannot_be_reached_is_named_once():
    [port] = free_ports(1)
    there = Neighbour(Machine("third", Address("127.0.0.1", port)), "session")
    with pytest.raises(MachineError) as raised:
        Meeting(b"s" * 43, "first")._call(there, "rows", 0, 1)
    assert raised.value.message == (
        f"it cannot reach machine third at 127.0.0.1:{port}: Connection refused"
    )
    assert "--split rows" in raised.value.hint
