"""The native side of the thread pool: the steps of a call, one after the other, each by all threads, with a barrier between.

Idle threads spin for about 0.1 milliseconds, so that the next layer finds them awake, and then
sleep until they are called: other libraries' threads want the cores, too. At a barrier they do the
same: where other programs hold the cores, the thread that is waited for needs the core of the one
that waits.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from edgellm.kernels.codegen.abi import GROUP_BYTES, POOL, STEP_BYTES
from edgellm.kernels.codegen.emitter import I32, I64, POINTER, VOID, Emitter, Value
from edgellm.kernels.codegen.isa import Isa

_AWAKE_SPINS = 3_000
_BARRIER_SPINS = 2_000
"""Pauses; one takes about 40 ns on recent x86. After them the thread sleeps."""


def next_items(e: Emitter, count: Value, body: Callable[[Value], object]) -> None:
    """Do ``body(item)`` for items that no other thread took, until all ``count`` are taken."""
    counter = e.at(e.arguments[2], POOL["next_item"])

    def again() -> Value:
        item = e.b.atomic_rmw("add", counter, e.index(1), "monotonic")
        more = e.less(item, count)
        e.when(more, lambda: body(item))
        return more

    e.repeat(again)


def next_places(e: Emitter, count: Value, size: int, body: Callable[[Value], object]) -> None:
    """Do ``body(place)`` for ``count`` places; threads take ``size`` at once, since each taking costs 0.1 microseconds."""

    def some(item: Value) -> None:
        first = e.mul(item, size)
        e.loop(first, e.min(e.add(first, size), count), lambda place: _nothing(body(place)))

    next_items(e, e.ceil_div(count, size), some)


def _nothing(_: object) -> None:
    """A loop's body that carries nothing."""


def _read(e: Emitter, pool: Value, field: str) -> Value:
    return e.b.load_atomic(e.at(pool, POOL[field]), "seq_cst", 8, typ=I64)


def _write(e: Emitter, pool: Value, field: str, value: int | Value) -> None:
    e.b.atomic_rmw("xchg", e.at(pool, POOL[field]), e.index(value), "seq_cst")


def _pause(e: Emitter) -> None:
    if e.isa.machine == "aarch64":
        e.call("llvm.aarch64.hint", VOID, [ir.Constant(I32, 1)])
    else:
        e.call("llvm.x86.sse2.pause", VOID, [])


def _wait(e: Emitter, spins: int, changed: Callable[[], Value]) -> Value:
    """Spin until something changed; returns whether it did within the given number of pauses."""
    before = e.b.block
    head, after = (e.function.append_basic_block(part) for part in ("spin", "spun"))
    e.b.branch(head)
    e.b.position_at_end(head)
    count = e.b.phi(I64)
    count.add_incoming(e.index(0), before)
    done = changed()
    _pause(e)
    following = e.add(count, 1)
    count.add_incoming(following, e.b.block)
    e.b.cbranch(e.b.or_(done, e.less(spins, following)), after, head)
    e.b.position_at_end(after)
    return done


def _sleep(
    e: Emitter, pool: Value, count: str, condition: str, changed: Callable[[], Value]
) -> None:
    """Sleep until something changed and somebody said so; ``count`` holds how many sleep for it."""
    mutex, signal = (e.at(pool, POOL[field]) for field in ("mutex", condition))
    e.call("pthread_mutex_lock", I32, [mutex])
    e.b.atomic_rmw("add", e.at(pool, POOL[count]), e.index(1), "seq_cst")
    head, inside, after = (
        e.function.append_basic_block(part) for part in ("asleep", "sleep", "awake")
    )
    e.b.branch(head)
    e.b.position_at_end(head)
    e.b.cbranch(changed(), after, inside)
    e.b.position_at_end(inside)
    e.call("pthread_cond_wait", I32, [signal, mutex])
    e.b.branch(head)
    e.b.position_at_end(after)
    e.b.atomic_rmw("sub", e.at(pool, POOL[count]), e.index(1), "seq_cst")
    e.call("pthread_mutex_unlock", I32, [mutex])


def _wake(e: Emitter, pool: Value, count: str, condition: str) -> None:
    """Wake those who sleep, if any do."""
    mutex, signal = (e.at(pool, POOL[field]) for field in ("mutex", condition))

    def wake() -> None:
        e.call("pthread_mutex_lock", I32, [mutex])
        e.call("pthread_cond_broadcast", I32, [signal])
        e.call("pthread_mutex_unlock", I32, [mutex])

    e.when(e.less(0, _read(e, pool, count)), wake)


def _barrier(e: Emitter, pool: Value, threads: Value) -> None:
    phase = _read(e, pool, "phase")
    arrived = e.b.atomic_rmw("add", e.at(pool, POOL["arrived"]), e.index(1), "seq_cst")
    last, wait, after = (e.function.append_basic_block(part) for part in ("last", "wait", "passed"))
    e.b.cbranch(e.b.icmp_signed("==", e.add(arrived, 1), threads), last, wait)
    e.b.position_at_end(last)
    _write(e, pool, "arrived", 0)
    _write(e, pool, "next_item", 0)
    _write(e, pool, "phase", e.add(phase, 1))
    _wake(e, pool, "waiters", "passed")
    e.b.branch(after)
    e.b.position_at_end(wait)

    def changed() -> Value:
        return e.b.icmp_signed("!=", _read(e, pool, "phase"), phase)

    e.when(
        e.b.not_(_wait(e, _BARRIER_SPINS, changed)),
        lambda: _sleep(e, pool, "waiters", "passed", changed),
    )
    e.b.branch(after)
    e.b.position_at_end(after)


def _steps(e: Emitter, pool: Value, thread: Value) -> None:
    """Every step of the call that stands in the pool."""
    job = e.at(pool, POOL["job"])
    steps, call = (e.load(job, offset, POINTER, align=8) for offset in (0, 16))
    count, threads = (e.load(job, offset, I64, align=8) for offset in (8, 24))

    def one(number: Value) -> None:
        _do(e, e.at(steps, e.mul(number, STEP_BYTES)), call, pool, thread)
        _barrier(e, pool, threads)

    e.loop(0, count, one)


def _do(e: Emitter, step: Value, call: Value, pool: Value, thread: Value) -> None:
    """One step, as far as this thread has a part in it."""
    kernel = ir.FunctionType(VOID, [POINTER, POINTER, POINTER, I64]).as_pointer()
    e.b.call(e.load(step, 0, kernel, align=8), [step, call, pool, thread])


def emit_apart(isa: Isa, name: str) -> str:
    """Groups of steps that have nothing to do with each other: each is done by one thread, one step after the other.

    No thread waits for another within a group: 8 sequences of a batch have 24 steps a layer between
    the products.

    Arguments: 1 the steps, group after group; 2 groups; 3 steps a group; 4 memory for each group
        (``GROUP_BYTES``).
    """
    e = Emitter(isa, name)
    count = e.argument(3)

    def group(number: Value) -> None:
        own = e.at(e.address(4), e.mul(number, GROUP_BYTES))

        def one(place: Value) -> None:
            e.store(e.index(0), own, POOL["next_item"], align=8)
            step = e.at(e.address(1), e.mul(e.add(e.mul(number, count), place), STEP_BYTES))
            _do(e, step, e.arguments[1], own, e.arguments[3])

        e.loop(0, count, one)

    next_items(e, e.argument(2), group)
    return e.finish()


def emit_run(isa: Isa, name: str) -> str:
    """``void (pool)``: does the call that stands in the pool, as thread 0."""
    e = Emitter(isa, name, arguments=[POINTER])
    pool = e.arguments[0]
    e.b.atomic_rmw("add", e.at(pool, POOL["generation"]), e.index(1), "seq_cst")
    _wake(e, pool, "sleepers", "condition")
    _steps(e, pool, e.index(0))
    return e.finish()


def emit_work(isa: Isa, name: str) -> str:
    """``void (pool)``: a worker's life, until the pool says stop."""
    e = Emitter(isa, name, arguments=[POINTER])
    pool = e.arguments[0]
    thread = e.add(e.b.atomic_rmw("add", e.at(pool, POOL["workers"]), e.index(1), "seq_cst"), 1)
    seen = e.b.alloca(I64)
    e.b.store(e.index(0), seen)

    def changed() -> Value:
        return e.b.icmp_signed("!=", _read(e, pool, "generation"), e.b.load(seen, typ=I64))

    def again() -> Value:
        e.when(
            e.b.not_(_wait(e, _AWAKE_SPINS, changed)),
            lambda: _sleep(e, pool, "sleepers", "condition", changed),
        )
        e.b.store(_read(e, pool, "generation"), seen)
        running = e.b.icmp_signed("==", _read(e, pool, "stop"), e.index(0))
        e.when(running, lambda: _steps(e, pool, thread))
        return running

    e.repeat(again)
    return e.finish()
