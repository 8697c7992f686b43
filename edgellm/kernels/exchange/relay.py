"""A relay: what comes from other machines, steps with it, and what goes to them."""

from __future__ import annotations

from llvmlite import ir

from edgellm.kernels.codegen.emitter import Emitter
from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.codegen.values import I8, I32, I64, POINTER, VOID, Value
from edgellm.kernels.exchange.lanes import (
    EmittedTable,
    each_lane,
    exchange,
    has_status,
    now,
    relay_table,
)
from edgellm.kernels.exchange.words import DONE, HEAD_BYTES, OTHER_KIND, ROWS_KIND


def emit_relay(isa: Isa, name: str) -> str:
    """Emit ``void relay(table)``.

    It ends the exchange that is on its way, puts what came where it belongs, does the steps, and
    begins to send what they made.
    """
    e = Emitter(isa, name, arguments=[POINTER])
    table = relay_table(e)
    timespec = exchange(e, table)
    _require_rows(e, table)

    def send() -> None:
        _collect(e, table)
        each_lane(e, table, lambda number, lane: _begin(e, table, lane))

    def go_on() -> None:
        table.set("came_at", now(e, table, timespec))
        each_lane(e, table, lambda number, lane: _place(e, table, lane))
        _run(e, table)
        table.set("made_at", now(e, table, timespec))
        e.when(table.is_set("frame_bytes"), send)

    e.when(has_status(e, table, DONE), go_on)
    return e.finish()


def _require_rows(e: Emitter, table: EmittedTable) -> None:
    """Let ``status`` say where a frame that came is none of rows."""

    def look(number: Value, lane: EmittedTable) -> None:
        kind = e.load(lane.get("frame", POINTER), 0, I8)
        is_other = e.b.icmp_signed("!=", kind, ir.Constant(I8, ROWS_KIND))
        e.when(e.b.and_(lane.is_set("place"), is_other), lambda: table.set("status", OTHER_KIND))

    e.when(has_status(e, table, DONE), lambda: each_lane(e, table, look))


def _place(e: Emitter, table: EmittedTable, lane: EmittedTable) -> None:
    """Put the columns of another machine where they belong."""
    width = lane.get("width")
    rows, row_bytes = lane.get("frame", POINTER), table.get("row_bytes")
    place = lane.get("place", POINTER)

    def one_row(token: Value) -> None:
        source = e.at(rows, e.add(HEAD_BYTES, e.mul(token, width)))
        _copy(e, e.at(place, e.mul(token, row_bytes)), source, width)

    e.when(lane.is_set("place"), lambda: e.loop(0, table.get("tokens"), one_row))


def _run(e: Emitter, table: EmittedTable) -> None:
    function = ir.FunctionType(VOID, [POINTER]).as_pointer()

    def run() -> None:
        e.b.call(table.get("run", function), [table.get("pool", POINTER)])

    e.when(table.is_set("run"), run)


def _collect(e: Emitter, table: EmittedTable) -> None:
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


def _begin(e: Emitter, table: EmittedTable, lane: EmittedTable) -> None:
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
