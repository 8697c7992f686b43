"""Relays: native code receives, runs a kernel, and sends what it made."""

import ctypes
import signal
import socket
import threading
import time

import numpy as np
import pytest

from edgellm.kernels.codegen.abi import SWIGLU
from edgellm.kernels.exchange.gather import Gather
from edgellm.kernels.exchange.table import AWAKE_NANOSECONDS, RelayTable, frame_bytes
from edgellm.kernels.exchange.words import DONE, HEAD_BYTES, LANE, LOST, OTHER_KIND, ROWS_KIND
from edgellm.kernels.host import kernel_engine, unavailable
from edgellm.kernels.kernel_engine import make_step, step_array

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))

TOKENS, COLUMNS = 3, [(0, 5), (5, 12)]


@pytest.fixture
def pair():
    """A table of the first of two machines, and the other end of its connection."""
    here, there = socket.socketpair()
    here.setblocking(False)
    with here, there:
        table = RelayTable(0, {1: here.fileno()})
        table.make_frames(4 * TOKENS * 12)
        yield table, there


def frame_of(rows, kind=ROWS_KIND):
    return bytes([kind]).ljust(HEAD_BYTES, b"\0") + rows.tobytes()


def gather_of(own, whole):
    return Gather(own.ctypes.data, own.strides[0], whole.ctypes.data, COLUMNS)


def begin(table, own, whole):
    """Begin a gather; ``own`` (L, 5) stays where it is."""
    head = bytes([ROWS_KIND]).ljust(HEAD_BYTES, b"\0")
    return table.relay(gather_of(own, whole), TOKENS, head=head)


def received(there, rows):
    data = b""
    while len(data) < frame_bytes(rows):
        data += there.recv(frame_bytes(rows) - len(data))
    return data


def test_a_relay_computes_with_what_came_and_sends_what_it_made(pair):
    table, there = pair
    own = np.arange(TOKENS * 5, dtype=np.float32).reshape(TOKENS, 5)
    theirs = -np.arange(TOKENS * 7, dtype=np.float32).reshape(TOKENS, 7)
    whole = np.zeros((TOKENS, 12), np.float32)
    assert begin(table, own, whole) == DONE
    assert received(there, own.nbytes) == frame_of(own)
    there.sendall(frame_of(theirs))
    # gates and what they gate: all that was gathered
    engine = kernel_engine(threads=2, activations="float").twin()
    gated, next_whole = np.zeros((TOKENS, 6), np.float32), np.zeros((TOKENS, 12), np.float32)
    addresses = {"gate_up": whole.ctypes.data, "out": gated.ctypes.data}
    step = make_step(engine.kernel("swiglu"), SWIGLU, **addresses, inner=6)
    steps = step_array([step])
    # five of its columns are sent, and one stays
    gather = Gather(gated.ctypes.data, gated.strides[0], next_whole.ctypes.data, COLUMNS)
    with engine.lock:
        assert table.relay(gather, TOKENS, engine.ready(steps, TOKENS)) == DONE
    assert np.array_equal(whole, np.hstack([own, theirs]))
    gate, gated_by = whole[:, :6], whole[:, 6:]
    assert np.allclose(gated, gate / (1 + np.exp(-gate)) * gated_by, rtol=1e-5)
    sent = np.frombuffer(received(there, own.nbytes), np.float32, offset=HEAD_BYTES)
    assert np.array_equal(sent.reshape(TOKENS, 5), gated[:, :5])
    there.sendall(frame_of(theirs))
    assert table.relay(None, TOKENS) == DONE
    assert np.array_equal(next_whole, np.hstack([gated[:, :5], theirs]))
    assert table.made_at >= table.came_at > 0


def test_it_stops_before_its_steps_at_a_frame_of_another_kind(pair):
    table, there = pair
    own, whole = np.ones((TOKENS, 5), np.float32), np.zeros((TOKENS, 12), np.float32)
    assert begin(table, own, whole) == DONE
    there.sendall(frame_of(np.ones((TOKENS, 7), np.float32), kind=3))
    nowhere = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: pytest.fail("it was called"))
    run = ctypes.cast(nowhere, ctypes.c_void_p).value, 0
    assert table.relay(gather_of(own, whole), TOKENS, run) == OTHER_KIND
    assert not whole[:, 5:].any()


def test_who_is_gone_is_named_before_and_while_it_is_waited_for(pair):
    table, there = pair
    own, whole = np.ones((TOKENS, 5), np.float32), np.zeros((TOKENS, 12), np.float32)
    assert begin(table, own, whole) == DONE
    threading.Timer(0.05, there.shutdown, [socket.SHUT_RDWR]).start()
    assert table.relay(None, TOKENS) == LOST
    assert table.lost == 0
    assert table.swap([bytes(32)], [32]) == LOST


def test_more_than_a_connection_holds_goes_both_ways(pair):
    table, there = pair
    size = 8 << 20
    table.make_frames(size)
    threading.Thread(target=lambda: there.sendall(received(there, size))).start()
    sent = bytes([ROWS_KIND]) + bytes(frame_bytes(size) - 2) + b"\1"
    assert table.swap([sent], [len(sent)]) == DONE
    assert bytes(table.came[0]) == sent


def test_a_signal_is_handled_while_it_waits(pair):
    table, _ = pair

    def interrupt(*_):
        raise InterruptedError("a signal")

    def wait():
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        table.swap([bytes(32)], [32])

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(InterruptedError):
            wait()
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_signal_is_handled_while_one_is_gone_that_had_sent_all():
    def interrupt(*_):
        raise InterruptedError("too late" if other.fileno() < 0 else "while it waits")

    def wait():
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        table.swap([b"", bytes(32)], [32, 32])

    ends = [socket.socketpair() for _ in range(2)]
    (gone, last_word), (silent, other) = ends
    last_word.sendall(bytes(32))
    table = RelayTable(0, {1: gone.fileno(), 2: silent.fileno()})
    for end in (gone, silent):
        end.setblocking(False)
    assert gone.send(bytes(32)) == len(last_word.recv(32)) == 32
    last_word.close()
    before = signal.signal(signal.SIGALRM, interrupt)
    limit = threading.Timer(5, other.close)
    limit.start()
    try:
        with pytest.raises(InterruptedError, match="while it waits"):
            wait()
    finally:
        limit.cancel()
        signal.signal(signal.SIGALRM, before)
        for end in (gone, silent, other):
            end.close()


def test_who_is_seldom_in_time_is_waited_for_asleep(pair):
    table, there = pair

    def swap(seconds):
        if not seconds:
            there.sendall(bytes(32))
        else:
            threading.Timer(seconds, there.sendall, [bytes(32)]).start()
        assert table.swap([bytes(32)], [32]) == DONE

    for _ in range(200):
        if table._awake == 0:
            break
        swap(0.005)
    assert table._awake == 0
    begun = time.process_time()
    swap(0.3)
    assert time.process_time() - begun < 0.1
    swap(0)
    assert table._awake == AWAKE_NANOSECONDS
    assert table._lanes[0, LANE["send_bytes"]] == 0
