"""The suite itself keeps off the network."""

import socket

import pytest


@pytest.mark.parametrize("address", ["192.0.2.1", "models.example", "2001:db8::1"])
def test_a_connection_to_another_machine_fails_the_test(address):
    with pytest.raises(pytest.fail.Exception, match=address):
        socket.create_connection((address, 80), timeout=1)


def test_a_connection_to_this_machine_is_allowed():
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(("localhost", server.getsockname()[1]), timeout=10) as client,
    ):
        client.sendall(b"x")
        accepted, _ = server.accept()
        with accepted:
            assert accepted.recv(1) == b"x"
