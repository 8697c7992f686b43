"""Rows go both ways at once; what was changed on the way is found before a pass has ended."""

import os
import socket
import threading
from contextlib import suppress

import numpy as np
import pytest

from edgellm.distributed.links.handshake import Keys
from edgellm.distributed.links.lane import Kind, Lane, LaneError, head_of
from edgellm.distributed.links.mesh import Mesh
from edgellm.kernels.exchange.gather import Gather
from edgellm.kernels.exchange.words import HEAD_BYTES, TAG_BYTES
from edgellm.kernels.host import unavailable

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))

ALL = [(0, 3), (3, 4), (4, 9)]
"""Columns of three machines."""


def connected():
    """Return both ends of a connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return [socket.create_connection(server.getsockname()), server.accept()[0]]


def tampered(connection, sizes, change):
    """Return a connection over which frames come as ``change`` leaves them; ``sizes`` are theirs.

    Frames behind those are left as they are.
    """
    here, there = connected()

    def forward():
        with there, suppress(OSError):
            for number, size in enumerate(sizes):
                data = bytearray()
                while len(data) < size:
                    part = connection.recv(size - len(data))
                    if not part:
                        return
                    data += part
                change(number, data)
                there.sendall(data)
            while data := connection.recv(1 << 16):
                there.sendall(data)

    def back():
        with suppress(OSError):
            while data := there.recv(1 << 16):
                connection.sendall(data)
            connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    for pump in (forward, back):
        threading.Thread(target=pump, daemon=True).start()
    return here


def meshes(count, change=None, sizes=()):
    """Meshes of machines in this process; ``change`` alters what the first receives of another."""
    lanes = [{} for _ in range(count)]
    for one in range(count):
        for other in range(one):
            ends = connected()
            if change is not None and other == 0 and one == 1:
                ends[1] = tampered(ends[1], sizes, change)
            keys = Keys(os.urandom(32), os.urandom(32))
            lanes[one][other] = Lane(ends[0], keys, f"machine-{other}")
            lanes[other][one] = Lane(ends[1], Keys(keys.received, keys.sent), f"machine-{one}")
    return [Mesh(place, own) for place, own in enumerate(lanes)]


def at_once(machines, act):
    """Return what ``act`` returns or raises on all machines, each in a thread of its own."""
    results = [None] * len(machines)

    def run(place):
        try:
            results[place] = act(place, machines[place])
        except LaneError as error:
            results[place] = error

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(machines))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for mesh in machines:
        mesh.close()
    return results


def begun(mesh, own, columns):
    """Begin to gather columns (L, own); return what all of them (L, all) come into, if it did."""
    whole = np.zeros((len(own), columns[-1][1]), np.float32)
    mesh.prepare(len(own), [columns])
    gather = Gather(own.ctypes.data, own.strides[0], whole.ctypes.data, columns)
    return whole if mesh.relay(gather, len(own)) else None


def gathered(place, mesh, tokens=1, columns=ALL):
    """Return what three gathers give, the last of which ends a pass."""
    first, stop = columns[place]
    own = np.full((tokens, stop - first), place + 1, np.float32)
    ten = 10 * own
    results = [begun(mesh, own, columns), begun(mesh, ten, columns)]
    assert mesh.finish()
    return [*results, mesh.end(100 * own, columns)]


def gathered_of_two(place, mesh):
    return gathered(place, mesh, columns=[(0, 3), (3, 4)])


@pytest.mark.parametrize("tokens", [1, 2, 5])
def test_all_have_the_columns_of_all(tokens):
    row = np.repeat([1, 2, 3], [3, 1, 5]).astype(np.float32)
    for results in at_once(meshes(3), lambda *own: gathered(*own, tokens)):
        for result, factor in zip(results, (1, 10, 100), strict=True):
            assert np.array_equal(result, np.tile(factor * row, (tokens, 1)))


def test_the_first_machine_alone_has_what_it_collects():
    def act(place, mesh):
        first, stop = ALL[place]
        own = np.full((2, stop - first), place + 1, np.float32)
        return own, mesh.end(own, ALL, on_all=False)

    (_, whole), *others = at_once(meshes(3), act)
    assert whole.tolist() == [[1, 1, 1, 2, 3, 3, 3, 3, 3]] * 2
    for own, result in others:
        assert np.array_equal(result, own)


def test_more_than_connections_hold_goes_both_ways():
    columns = [(0, 2_000_000), (2_000_000, 4_000_000)]
    for _, whole, _ in at_once(meshes(2), lambda *own: gathered(*own, 2, columns)):
        assert whole[1, 0] == 10
        assert whole[1, -1] == 20


def test_a_frame_that_waits_for_a_full_connection_keeps_its_head():
    columns = [(0, 3), (3, 4)]
    here, there = connected()
    mesh = Mesh(0, {1: Lane(here, Keys(os.urandom(32), os.urandom(32)), "machine-1")})
    filled = 0
    with suppress(BlockingIOError):
        while True:
            filled += here.send(bytes(1 << 16))
    own = np.ones((1, 3), np.float32)
    assert begun(mesh, own, columns) is not None
    heads = []

    def answer():
        with there.makefile("rb") as frames:
            frames.read(filled)
            heads.append(frames.read(HEAD_BYTES))
        there.sendall(head_of(Kind.ROWS, 0, 4) + bytes(TAG_BYTES))

    thread = threading.Thread(target=answer)
    thread.start()
    begun(mesh, own, columns)
    thread.join()
    mesh.close()
    there.close()
    assert heads == [head_of(Kind.ROWS, 0, 12)]


def test_a_pass_is_stopped_for_all_and_the_next_one_goes_on():
    def act(place, mesh):
        own = np.ones((1, ALL[place][1] - ALL[place][0]), np.float32)
        before = begun(mesh, own, ALL)
        if place == 0:
            assert mesh.finish()
            mesh.stop(1, ALL)
        else:
            assert begun(mesh, own, ALL) is not None
            untouched = np.zeros_like(own)
            assert begun(mesh, untouched, ALL) is None
        assert before.all()
        assert mesh.is_whole
        return gathered(place, mesh)

    for _, whole, _ in at_once(meshes(3), act):
        assert whole.tolist() == [[10, 10, 10, 20, 30, 30, 30, 30, 30]]


@pytest.mark.parametrize("frame", [0, 1, 2])
@pytest.mark.parametrize("place", [0, 7, 15, -1], ids=["kind", "number", "length", "bytes"])
def test_changed_frames_are_refused(frame, place):
    def change(received, data):
        if received == frame:
            data[place] ^= 1

    first, second = at_once(meshes(2, change, sizes=[32, 32, 36]), gathered_of_two)
    assert "damaged" in first.message
    assert isinstance(second, LaneError | list)  # it may have been through already


def test_who_sends_another_kind_than_is_expected_is_refused():
    def act(place, mesh):
        if place == 0:
            mesh.end(np.ones((1, 3), np.float32), [(0, 3), (3, 4)])
        else:
            begun(mesh, np.ones((1, 1), np.float32), [(0, 3), (3, 4)])
            mesh.finish()

    for error in at_once(meshes(2), act):
        assert isinstance(error, LaneError)


def test_a_lane_that_ends_says_why():
    has_ended = threading.Event()

    def act(place, mesh):
        if place == 1:
            return has_ended.wait(20)
        threading.Timer(0.1, mesh.fail, ["the cable is cut"]).start()
        try:
            return gathered_of_two(place, mesh)
        finally:
            has_ended.set()

    first, _ = at_once(meshes(2), act)
    assert "machine-1 is gone: the cable is cut" in first.message
