"""Addresses at which a machine listens, with their networks."""

import socket

import pytest

from edgellm.distributed.links.addresses import (
    NO_NETWORK,
    Address,
    is_here,
    listening_socket,
    parse_address,
)
from edgellm.errors import ConfigError, MachineError


def link_local():
    """An address of this machine in one of its networks, with its name; None: there is none."""
    try:
        with open("/proc/net/if_inet6") as file:
            for line in file:
                digits, *_, name = line.split()
                if digits.startswith("fe80"):
                    groups = [digits[place : place + 4] for place in range(0, 32, 4)]
                    return parse_address(f"[{':'.join(groups)}%{name}]").host
    except OSError:
        pass
    return None


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", link_local()])
def test_a_machine_listens_where_it_is_called(host):
    if host is None or not is_here(Address(host, 0)):
        pytest.skip("this machine has no such address")
    with listening_socket(Address(host, 0), 1) as listener:
        address = Address(host, listener.getsockname()[1])
        if "%" not in host:  # tests call no others
            socket.create_connection(address, timeout=20).close()
        with pytest.raises(MachineError, match=f"cannot listen at .*{address.port}") as raised:
            listening_socket(address, 1)
        assert raised.value.hint


def test_addresses_that_are_not_this_machines():
    for host in ("192.0.2.1", "fe80::1%no-such-network"):
        assert not is_here(Address(host, 0))
        with pytest.raises(MachineError, match="cannot listen at") as raised:
            listening_socket(Address(host, 0), 1)
    assert NO_NETWORK in raised.value.message


def test_an_address_that_is_in_every_network_is_told_how_to_name_one():
    with pytest.raises(ConfigError, match="in each network") as raised:
        parse_address("fe80::1")
    assert "fe80::1%eth0" in raised.value.hint
