"""Callers who prove nothing give way to those who come after."""

import socket
from contextlib import ExitStack

import pytest

from edgellm.distributed.members.lobby import MAX_CALLERS, MAX_OF_ONE, Lobby


@pytest.fixture
def come():
    """Lets callers from an address into a lobby; returns them."""
    with ExitStack() as stack:

        def enter(lobby, host, count=1):
            callers = []
            for _ in range(count):
                one, other = socket.socketpair()
                stack.enter_context(one)
                stack.enter_context(other)
                callers.append(lobby.enter(one, host))
            return callers

        yield enter


def away(callers):
    return [caller.is_sent_away for caller in callers]


def test_one_address_has_so_many_and_the_oldest_goes_first(come):
    lobby = Lobby()
    others = come(lobby, "10.0.0.2")
    callers = come(lobby, "10.0.0.1", MAX_OF_ONE + 2)
    assert away(callers) == [True] * 2 + [False] * MAX_OF_ONE
    assert callers[0].connection.recv(1) == b""  # whoever reads it goes on
    assert away(others) == [False]
    for caller in callers:
        lobby.leave(caller, is_known=False)
    assert not any(away(come(lobby, "10.0.0.1", MAX_OF_ONE)))


def test_where_all_is_full_the_address_with_the_most_gives_way(come):
    lobby = Lobby()
    strangers = [come(lobby, f"10.0.0.{i}", 2) for i in range(1, MAX_CALLERS // 2)]
    many = come(lobby, "10.0.1.1", 7)
    assert away(many) == [True] * 4 + [False] * 3
    assert sum(map(sum, map(away, strangers))) == 1
    come(lobby, "10.0.2.1")
    assert away(many) == [True] * 5 + [False] * 2


def test_known_addresses_stay_longest(come):
    lobby = Lobby()
    for known in come(lobby, "10.0.9.9"):
        lobby.leave(known, is_known=True)
    waiting = come(lobby, "10.0.9.9", MAX_OF_ONE)
    for i in range(2 * MAX_CALLERS):
        come(lobby, f"10.0.{i // 100}.{i % 100}")
    assert not any(away(waiting))


def test_a_network_of_ipv6_is_one_address(come):
    lobby = Lobby()
    callers = [come(lobby, f"fd00:1::{i:x}")[0] for i in range(MAX_OF_ONE + 1)]
    assert away(callers) == [True] + [False] * MAX_OF_ONE
    # of machines on one cable
    assert not any(away([come(lobby, f"fe80::{i:x}%eth0")[0] for i in range(MAX_OF_ONE + 1)]))
