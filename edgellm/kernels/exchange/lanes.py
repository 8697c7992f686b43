"""Frames over lanes: sent, received and waited for, as many at once as there are lanes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from llvmlite import ir

from edgellm.kernels.codegen.emitter import CACHE_LINE, Emitter
from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.codegen.values import I16, I32, I64, POINTER, VOID, Value
from edgellm.kernels.exchange.words import (
    AGAIN,
    AHEAD_BYTES,
    DONE,
    LANE,
    LANE_BYTES,
    LOST,
    RELAY,
    RELAY_BYTES,
    WORD_BYTES,
)

_AHEAD_AT_ONCE = 32 << 10
"""Bytes that are read between two looks at the lanes: memory takes some microseconds."""

_POLL_MILLISECONDS = 100
_POLL_BYTES = 8
_POLL_IN, _POLL_OUT = 0x1, 0x4
_POLL_BROKEN = 0x8 | 0x10 | 0x20
_POLL_NOBODY = -1
"""``struct pollfd``, its events (error, hang-up, no descriptor), and who is passed over: the same
on Linux and macOS."""


class EmittedTable:
    """Reads and writes the words of a table, or of one of its lanes."""

    def __init__(self, e: Emitter, base: Value, words: Mapping[str, int]) -> None:
        self._e, self._base, self._words = e, base, words

    def at(self, name: str) -> Value:
        """Return where a word is."""
        return self._e.at(self._base, WORD_BYTES * self._words[name])

    def get(self, name: str, typ: Value = I64) -> Value:
        """Return a word."""
        return self._e.load(self.at(name), 0, typ, align=8)

    def set(self, name: str, value: int | Value) -> None:
        """Write a word."""
        self._e.store(self._e.index(value), self.at(name), 0, align=8)

    def is_set(self, name: str) -> Value:
        """Return whether a word is not 0."""
        return self._e.b.icmp_signed("!=", self.get(name), self._e.index(0))

    def move(self, at: str, left: str, count: Value) -> None:
        """Go on by so many bytes."""
        self.set(at, self._e.add(self.get(at), count))
        self.set(left, self._e.sub(self.get(left), count))


def emit_exchange(isa: Isa, name: str) -> str:
    """Emit ``void exchange(table)``: send and receive what is left of the frames on their way."""
    e = Emitter(isa, name, arguments=[POINTER])
    exchange(e, relay_table(e))
    return e.finish()


def relay_table(e: Emitter) -> EmittedTable:
    """Return the words of the relay whose table is the function's argument."""
    return EmittedTable(e, e.arguments[0], RELAY)


def each_lane(
    e: Emitter, table: EmittedTable, body: Callable[[Value, EmittedTable], object]
) -> None:
    """Let ``body`` emit what is done with each lane, of its number and its words."""

    def one(number: Value) -> None:
        base = e.at(e.arguments[0], e.add(RELAY_BYTES, e.mul(number, LANE_BYTES)))
        body(number, EmittedTable(e, base, LANE))

    e.loop(0, table.get("lanes"), one)


def has_status(e: Emitter, table: EmittedTable, status: int) -> Value:
    """Return whether that is the relay's status so far."""
    return e.b.icmp_signed("==", table.get("status"), e.index(status))


def exchange(e: Emitter, table: EmittedTable) -> Value:
    """Move all frames; ``status`` is DONE, AGAIN or LOST then. Return memory for a time."""
    timespec = e.b.alloca(I64, size=2)
    left = e.b.alloca(I64)
    ahead = e.b.alloca(I64, size=2)  # the part that is read ahead, and the place in it
    e.store(e.index(0), ahead, 0, align=8)
    e.store(e.index(0), ahead, WORD_BYTES, align=8)
    table.set("status", DONE)
    table.set("slept", 0)
    ends_at = e.add(now(e, table, timespec), table.get("awake"))

    def again() -> Value:
        e.b.store(e.index(0), left)
        each_lane(e, table, lambda number, lane: _advance(e, table, number, lane, left))
        is_left = e.less(0, e.b.load(left, typ=I64))
        waits = e.b.and_(is_left, has_status(e, table, DONE))
        e.when(waits, lambda: _wait(e, table, timespec, ends_at, ahead))
        return e.b.and_(is_left, has_status(e, table, DONE))

    e.repeat(again)
    return timespec


def now(e: Emitter, table: EmittedTable, timespec: Value) -> Value:
    """Return the time of the table's clock in nanoseconds; ``timespec`` is memory for it."""
    e.call("clock_gettime", I32, [e.b.trunc(table.get("clock"), I32), timespec])
    seconds = e.load(timespec, 0, I64, align=8)
    return e.add(e.mul(seconds, 1_000_000_000), e.load(timespec, 8, I64, align=8))


def _advance(
    e: Emitter, table: EmittedTable, number: Value, lane: EmittedTable, left: Value
) -> None:
    """Send and receive what can be at once; add to ``left`` what cannot."""
    descriptor = e.b.trunc(lane.get("descriptor"), I32)
    flags = e.b.trunc(table.get("flags"), I32)

    def lose() -> None:
        table.set("status", LOST)
        table.set("lost", number)

    def send() -> None:
        parts = [descriptor, lane.get("send_at", POINTER), lane.get("send_bytes"), flags]
        count = e.call("send", I64, parts)
        e.when(e.less(0, count), lambda: lane.move("send_at", "send_bytes", count))
        e.when(e.b.and_(e.less(count, 1), lane.is_set("broken")), lose)

    def receive() -> None:
        parts = [descriptor, lane.get("receive_at", POINTER), lane.get("receive_bytes")]
        count = e.call("recv", I64, [*parts, ir.Constant(I32, 0)])
        e.when(e.less(0, count), lambda: lane.move("receive_at", "receive_bytes", count))
        has_ended = e.b.icmp_signed("==", count, e.index(0))
        fails = e.b.and_(e.less(count, 0), lane.is_set("broken"))
        e.when(e.b.or_(has_ended, fails), lose)

    e.when(lane.is_set("send_bytes"), send)
    e.when(lane.is_set("receive_bytes"), receive)
    rest = e.add(lane.get("send_bytes"), lane.get("receive_bytes"))
    e.b.store(e.add(e.b.load(left, typ=I64), rest), left)


def _wait(e: Emitter, table: EmittedTable, timespec: Value, ends_at: Value, ahead: Value) -> None:
    """Read ahead, or let others compute; after a while, sleep until a lane can go on."""
    can_read = e.less(e.load(ahead, 0, I64, align=8), table.get("ahead_parts"))

    def wait() -> None:
        is_awake = e.less(now(e, table, timespec), ends_at)

        def stay_awake() -> None:
            e.call("sched_yield", I32, [])

        e.when(is_awake, stay_awake)
        e.when(e.b.not_(is_awake), lambda: _sleep(e, table))

    e.when(can_read, lambda: _read_ahead(e, table, ahead))
    e.when(e.b.not_(can_read), wait)


def _read_ahead(e: Emitter, table: EmittedTable, ahead: Value) -> None:
    """Read a piece of what is read next, and go on to the next one.

    Reads are waited for: of what is only asked for, much is not in the cache afterwards.
    """
    part, begin = (e.load(ahead, offset, I64, align=8) for offset in (0, WORD_BYTES))
    entry = e.at(table.get("ahead", POINTER), e.mul(part, AHEAD_BYTES))
    base, nbytes = e.load(entry, 0, POINTER, align=8), e.load(entry, WORD_BYTES, I64, align=8)
    end = e.min(e.add(begin, _AHEAD_AT_ONCE), nbytes)
    e.call("sched_yield", I32, [])

    def read(place: Value) -> None:
        used = ir.FunctionType(VOID, [I64])
        e.b.asm(used, "", "r", [e.load(base, place, I64)], True)

    e.loop(begin, e.sub(end, WORD_BYTES - 1), read, step=CACHE_LINE)
    is_through = e.b.icmp_signed("==", end, nbytes)
    next_part = e.b.select(is_through, e.add(part, 1), part)
    e.store(next_part, ahead, 0, align=8)
    e.store(e.b.select(is_through, e.index(0), end), ahead, WORD_BYTES, align=8)


def _sleep(e: Emitter, table: EmittedTable) -> None:
    table.set("slept", 1)
    polls = table.get("polls", POINTER)

    def ask(number: Value, lane: EmittedTable) -> None:
        own = e.mul(number, _POLL_BYTES)
        wants_out = e.b.select(lane.is_set("send_bytes"), *_events(_POLL_OUT))
        wants_in = e.b.select(lane.is_set("receive_bytes"), *_events(_POLL_IN))
        wants = e.b.or_(wants_in, wants_out)
        # one that is through may have ended: poll would return for it at once, again and again
        is_left = e.b.icmp_signed("!=", wants, ir.Constant(I16, 0))
        descriptor = e.b.trunc(lane.get("descriptor"), I32)
        heard = e.b.select(is_left, descriptor, ir.Constant(I32, _POLL_NOBODY))
        e.store(heard, polls, own, align=4)
        e.store(wants, polls, e.add(own, 4), align=2)
        e.store(ir.Constant(I16, 0), polls, e.add(own, 6), align=2)

    def hear(number: Value, lane: EmittedTable) -> None:
        found = e.load(polls, e.add(e.mul(number, _POLL_BYTES), 6), I16, align=2)
        lane.set("broken", e.b.zext(e.b.and_(found, ir.Constant(I16, _POLL_BROKEN)), I64))

    each_lane(e, table, ask)
    patience = ir.Constant(I32, _POLL_MILLISECONDS)
    found = e.call("poll", I32, [polls, table.get("lanes"), patience])
    # a signal, or one may have come just before: whoever has called may want to know
    is_interrupted = e.b.icmp_signed("<", found, ir.Constant(I32, 1))
    e.when(is_interrupted, lambda: table.set("status", AGAIN))
    e.when(e.b.not_(is_interrupted), lambda: each_lane(e, table, hear))


def _events(event: int) -> tuple[Value, Value]:
    return ir.Constant(I16, event), ir.Constant(I16, 0)
