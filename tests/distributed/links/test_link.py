"""Frames arrive whole, in their order, from the other side alone, or not at all."""

import os
import socket
import threading
from contextlib import contextmanager

import pytest

from edgellm.distributed.links.handshake import GREETING, Keys, shake_hands
from edgellm.distributed.links.link import Link
from edgellm.errors import MachineError


@contextmanager
def connected():
    """Two ends of a connection of TCP on this machine."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as one,
    ):
        other, _ = server.accept()
        with other:
            yield one, other


@pytest.fixture
def pair():
    """Two ends of a connection."""
    with connected() as ends:
        yield ends


@pytest.fixture
def both(pair):
    """Two ends of a connection whose sides know each other."""
    keys = Keys(os.urandom(32), os.urandom(32))
    return Link(pair[0], keys, "one"), Link(pair[1], Keys(keys.received, keys.sent), "other")


def test_frames_arrive_as_they_were(both):
    one, other = both
    body = [memoryview(os.urandom(70_000)), memoryview(b""), memoryview(os.urandom(5))]
    sender = threading.Thread(target=one.send, args=({"a": [1, "x"]}, *body))
    sender.start()
    head, got = other.receive()
    sender.join()
    assert head == {"a": [1, "x"]}
    assert bytes(got) == b"".join(map(bytes, body))
    other.send({})
    assert one.receive() == ({}, memoryview(b""))


class Tampered:
    """A connection in which somebody changes what is sent."""

    def __init__(self, connection, change):
        self._connection = connection
        self._change = change

    def setsockopt(self, *options):
        self._connection.setsockopt(*options)

    def fileno(self):
        return self._connection.fileno()

    def sendmsg(self, parts):
        data = b"".join(map(bytes, parts))
        self._connection.sendall(self._change(data))
        return len(data)


CHANGES = {
    "a bit of the lengths": lambda data: bytes([data[0], data[1], data[2], data[3] ^ 1]) + data[4:],
    "a huge length": lambda data: b"\xff" + data[1:],
    "a bit of the tag": lambda data: data[:12] + bytes([data[12] ^ 1]) + data[13:],
    "a bit of the object": lambda data: data[:30] + bytes([data[30] ^ 1]) + data[31:],
    "a bit of the bytes": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "twice the same": lambda data: data + data,
    "the end is missing": lambda data: data[:-1],
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changed_frames_are_refused(pair, change):
    one, other = pair
    keys = Keys(os.urandom(32), os.urandom(32))
    sender = Link(Tampered(one, change), keys, "one")
    receiver = Link(other, Keys(keys.received, keys.sent), "other")
    sender.send({"number": 1}, memoryview(b"bytes"))
    one.shutdown(socket.SHUT_WR)
    with pytest.raises(MachineError):
        [receiver.receive() for _ in range(2)]  # of what is repeated, the second one


@pytest.mark.parametrize("text", [b"[1]", b'"x"', b"", b"{", b"\xff", b"[" * 100_000])
def test_a_signed_frame_that_is_no_object_is_refused(pair, monkeypatch, text):
    keys = Keys(os.urandom(32), os.urandom(32))
    sender = Link(pair[0], keys, "one")
    receiver = Link(pair[1], Keys(keys.received, keys.sent), "other")
    monkeypatch.setattr("edgellm.distributed.links.link.json.dumps", lambda *_, **__: Encoded(text))
    sender.send({})
    with pytest.raises(MachineError, match="damaged"):
        receiver.receive()


class Encoded:
    """What stands for the text of a frame."""

    def __init__(self, text):
        self.encode = lambda: text


def test_a_frame_of_the_other_direction_is_refused(pair):
    one, other = pair
    keys = Keys(os.urandom(32), os.urandom(32))
    Link(one, keys, "one").send({"to": "other"})
    with pytest.raises(MachineError, match="not from it"):
        Link(other, keys, "other").receive()


def shaken(one, other, one_secret, other_secret):
    """Let both sides shake hands; return their keys, or what was wrong."""
    results = {}

    def side(name, connection, secret, calls):
        try:
            results[name] = shake_hands(connection, secret, calls=calls, name=name)
        except MachineError as error:
            results[name] = error
            connection.close()

    listener = threading.Thread(target=side, args=("listener", other, other_secret, False))
    listener.start()
    side("caller", one, one_secret, calls=True)
    listener.join()
    return results["caller"], results["listener"]


def test_who_knows_the_secret_gets_keys_of_this_connection(pair):
    caller, listener = shaken(*pair, b"s" * 43, b"s" * 43)
    assert caller == Keys(listener.received, listener.sent)
    assert caller.sent != caller.received
    with connected() as others:
        again, _ = shaken(*others, b"s" * 43, b"s" * 43)
    assert again != caller


def test_who_does_not_know_the_secret_gets_none(pair):
    caller, listener = shaken(*pair, b"s" * 43, b"t" * 43)
    assert "another secret" in caller.message
    assert "another secret" in listener.message


@pytest.mark.parametrize("calls", [True, False])
def test_who_hangs_up_has_no_other_secret(pair, calls):
    one, other = pair
    if not calls:  # a caller that is interrupted before its proof
        one.sendall(GREETING + bytes(32))
    one.shutdown(socket.SHUT_WR)
    with pytest.raises(MachineError, match="it hung up") as raised:
        shake_hands(other, b"s" * 43, calls=calls, name="it")
    assert raised.value.hint


def test_a_side_that_says_nothing_is_not_waited_for(pair):
    with pytest.raises(MachineError, match="did not answer"):
        shake_hands(pair[0], b"s" * 43, calls=True, name="it", seconds=0.2)


def test_waiting_can_be_left(both):
    one, _ = both
    asked = []

    def ask():
        asked.append(1)
        if len(asked) == 3:
            one.fail("enough")

    with pytest.raises(MachineError, match="one is gone: enough"):
        one.receive(ask)
