"""A relay: what comes from other machines, steps with it, and what goes to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from llvmlite import ir

from edgellm.kernels.codegen.emitter import CACHE_LINE, Emitter
from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.codegen.values import I8, I16, I32, I64, POINTER, VOID, Value
from edgellm.kernels.exchange.words import (
    AGAIN,
    AHEAD_BYTES,
    DONE,
    HEAD_BYTES,
    LANE,
    LANE_BYTES,
    LOST,
    OTHER_KIND,
    RELAY,
    RELAY_BYTES,
    ROWS_KIND,
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


class _Table:
    """Reads and writes the words of a table, or of one of its lanes."""

    def __init__(self, e: Emitter, base: Value, words: Mapping[str, int]) -> None:
        self._e, self._base, self._words = e, base, words

    def at(self, name: str) -> Value:
        return self._e.at(self._base, WORD_BYTES * self._words[name])

    def get(self, name: str, typ: Value = I64) -> Value:
        return self._e.load(self.at(name), 0, typ, align=8)

    def set(self, name: str, value: int | Value) -> None:
        self._e.store(self._e.index(value), self.at(name), 0, align=8)

    def is_set(self, name: str) -> Value:
        return self._e.b.icmp_signed("!=", self.get(name), self._e.index(0))

    def move(self, at: str, left: str, count: Value) -> None:
        """Go on by so many bytes."""
        self.set(at, self._e.add(self.get(at), count))
        self.set(left, self._e.sub(self.get(left), count))


def emit_exchange(isa: Isa, name: str) -> str:
    """Emit ``void exchange(table)``: send and receive what is left of the frames on their way."""
    e = Emitter(isa, name, arguments=[POINTER])
    _exchange(e, _relay_table(e))
    return e.finish()


def emit_relay(isa: Isa, name: str) -> str:
    """Emit ``void relay(table)``.

    It ends the exchange that is on its way, puts what came where it belongs, does the steps, and
    begins to send what they made.
    """
    e = Emitter(isa, name, arguments=[POINTER])
    table = _relay_table(e)
    timespec = _exchange(e, table)
    _require_rows(e, table)

    def send() -> None:
        _collect(e, table)
        _each_lane(e, table, lambda number, lane: _begin(e, table, lane))

    def go_on() -> None:
        table.set("came_at", _now(e, table, timespec))
        _each_lane(e, table, lambda number, lane: _place(e, table, lane))
        _run(e, table)
        table.set("made_at", _now(e, table, timespec))
        e.when(table.is_set("frame_bytes"), send)

    e.when(_is(e, table, DONE), go_on)
    return e.finish()


def _relay_table(e: Emitter) -> _Table:
    return _Table(e, e.arguments[0], RELAY)


def _each_lane(e: Emitter, table: _Table, body: Callable[[Value, _Table], object]) -> None:
    def one(number: Value) -> None:
        base = e.at(e.arguments[0], e.add(RELAY_BYTES, e.mul(number, LANE_BYTES)))
        body(number, _Table(e, base, LANE))

    e.loop(0, table.get("lanes"), one)


def _is(e: Emitter, table: _Table, status: int) -> Value:
    return e.b.icmp_signed("==", table.get("status"), e.index(status))


# --- sending and receiving


def _exchange(e: Emitter, table: _Table) -> Value:
    """Move all frames; ``status`` is DONE, AGAIN or LOST then. Return memory for a time."""
    timespec = e.b.alloca(I64, size=2)
    left = e.b.alloca(I64)
    ahead = e.b.alloca(I64, size=2)  # the part that is read ahead, and the place in it
    e.store(e.index(0), ahead, 0, align=8)
    e.store(e.index(0), ahead, WORD_BYTES, align=8)
    table.set("status", DONE)
    table.set("slept", 0)
    ends_at = e.add(_now(e, table, timespec), table.get("awake"))

    def again() -> Value:
        e.b.store(e.index(0), left)
        _each_lane(e, table, lambda number, lane: _advance(e, table, number, lane, left))
        is_left = e.less(0, e.b.load(left, typ=I64))
        waits = e.b.and_(is_left, _is(e, table, DONE))
        e.when(waits, lambda: _wait(e, table, timespec, ends_at, ahead))
        return e.b.and_(is_left, _is(e, table, DONE))

    e.repeat(again)
    return timespec


def _now(e: Emitter, table: _Table, timespec: Value) -> Value:
    e.call("clock_gettime", I32, [e.b.trunc(table.get("clock"), I32), timespec])
    seconds = e.load(timespec, 0, I64, align=8)
    return e.add(e.mul(seconds, 1_000_000_000), e.load(timespec, 8, I64, align=8))


def _advance(e: Emitter, table: _Table, number: Value, lane: _Table, left: Value) -> None:
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


def _wait(e: Emitter, table: _Table, timespec: Value, ends_at: Value, ahead: Value) -> None:
    """Read ahead, or let others compute; after a while, sleep until a lane can go on."""
    can_read = e.less(e.load(ahead, 0, I64, align=8), table.get("ahead_parts"))

    def wait() -> None:
        is_awake = e.less(_now(e, table, timespec), ends_at)

        def stay_awake() -> None:
            e.call("sched_yield", I32, [])

        e.when(is_awake, stay_awake)
        e.when(e.b.not_(is_awake), lambda: _sleep(e, table))

    e.when(can_read, lambda: _read_ahead(e, table, ahead))
    e.when(e.b.not_(can_read), wait)


def _read_ahead(e: Emitter, table: _Table, ahead: Value) -> None:
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


def _sleep(e: Emitter, table: _Table) -> None:
    table.set("slept", 1)
    polls = table.get("polls", POINTER)

    def ask(number: Value, lane: _Table) -> None:
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

    def hear(number: Value, lane: _Table) -> None:
        found = e.load(polls, e.add(e.mul(number, _POLL_BYTES), 6), I16, align=2)
        lane.set("broken", e.b.zext(e.b.and_(found, ir.Constant(I16, _POLL_BROKEN)), I64))

    _each_lane(e, table, ask)
    patience = ir.Constant(I32, _POLL_MILLISECONDS)
    found = e.call("poll", I32, [polls, table.get("lanes"), patience])
    # a signal, or one may have come just before: whoever has called may want to know
    is_interrupted = e.b.icmp_signed("<", found, ir.Constant(I32, 1))
    e.when(is_interrupted, lambda: table.set("status", AGAIN))
    e.when(e.b.not_(is_interrupted), lambda: _each_lane(e, table, hear))


def _events(event: int) -> tuple[Value, Value]:
    return ir.Constant(I16, event), ir.Constant(I16, 0)


# --- what came, and what goes out


def _require_rows(e: Emitter, table: _Table) -> None:
    """Let ``status`` say where a frame that came is none of rows."""

    def look(number: Value, lane: _Table) -> None:
        kind = e.load(lane.get("frame", POINTER), 0, I8)
        is_other = e.b.icmp_signed("!=", kind, ir.Constant(I8, ROWS_KIND))
        e.when(e.b.and_(lane.is_set("place"), is_other), lambda: table.set("status", OTHER_KIND))

    e.when(_is(e, table, DONE), lambda: _each_lane(e, table, look))


def _place(e: Emitter, table: _Table, lane: _Table) -> None:
    """Put the columns of another machine where they belong."""
    width = lane.get("width")
    rows, row_bytes = lane.get("frame", POINTER), table.get("row_bytes")
    place = lane.get("place", POINTER)

    def one_row(token: Value) -> None:
        source = e.at(rows, e.add(HEAD_BYTES, e.mul(token, width)))
        _copy(e, e.at(place, e.mul(token, row_bytes)), source, width)

    e.when(lane.is_set("place"), lambda: e.loop(0, table.get("tokens"), one_row))


def _run(e: Emitter, table: _Table) -> None:
    function = ir.FunctionType(VOID, [POINTER]).as_pointer()

    def run() -> None:
        e.b.call(table.get("run", function), [table.get("pool", POINTER)])

    e.when(table.is_set("run"), run)


def _collect(e: Emitter, table: _Table) -> None:
    """Put this machine's own columns into the frame, and where they belong here."""
    width = table.get("width")
    source, frame = table.get("source", POINTER), table.get("frame", POINTER)
    place = table.get("own_place", POINTER)
    _copy(e, frame, table.at("head"), e.index(HEAD_BYTES))

    def one_row(token: Value) -> None:
        own = e.at(source, e.mul(token, table.get("source_row_bytes")))
        _copy(e, e.at(frame, e.add(HEAD_BYTES, e.mul(token, width))), own, width)

        def put() -> None:
            _copy(e, e.at(place, e.mul(token, table.get("own_row_bytes"))), own, width)

        e.when(table.is_set("own_place"), put)

    e.loop(0, table.get("tokens"), one_row)


def _begin(e: Emitter, table: _Table, lane: _Table) -> None:
    """Send a first piece of the frame at once; the other machine's is expected from now on."""
    frame, frame_bytes = table.get("frame", POINTER), table.get("frame_bytes")
    descriptor = e.b.trunc(lane.get("descriptor"), I32)
    flags = e.b.trunc(table.get("flags"), I32)
    count = e.call("send", I64, [descriptor, frame, frame_bytes, flags])
    sent = e.b.select(e.less(0, count), count, e.index(0))
    lane.set("send_at", e.add(table.get("frame"), sent))
    lane.set("send_bytes", e.sub(frame_bytes, sent))
    lane.set("receive_at", lane.get("frame"))
    lane.set("receive_bytes", lane.get("next_bytes"))


def _copy(e: Emitter, target: Value, source: Value, nbytes: Value) -> None:
    parts = [target, source, nbytes, e.const_bit(False)]
    e.call("llvm.memcpy.p0.p0.i64", VOID, parts)
