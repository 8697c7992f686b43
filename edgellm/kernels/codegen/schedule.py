"""Items of a step shared out to threads, and the native side of the thread pool.

The steps of a call are done one after the other, each by all threads, with a barrier between. Idle
threads spin for about 0.1 milliseconds, so that the next layer finds them awake, and then sleep
until they are called: other libraries' threads want the cores, too. At a barrier they do the same:
where other programs hold the cores, the thread that is waited for needs the core of the one that
waits.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from edgellm.kernels.codegen.abi import APART, GROUP_BYTES, POOL, STEP_BYTES
from edgellm.kernels.codegen.emitter import KERNEL_ARGUMENTS, Emitter
from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.codegen.values import I32, I64, POINTER, VOID, Value

_COUNT_BITS = 16
"""Of a call's generation, the low bits that say how many threads work on it."""

_IDLE_SPINS = 3_000
_BARRIER_SPINS = 2_000
"""Pauses; one takes about 40 ns on recent x86. After them the thread sleeps."""


def parallel_for(e: Emitter, count: Value, body: Callable[[Value], object]) -> None:
    """Do ``body(item)`` for items that no other thread took, until all ``count`` are taken."""
    counter = e.at(e.arguments[2], POOL["next_item"])

    def take_item() -> Value:
        # each thread gets another number; nothing else has to be ordered by it
        item = e.b.atomic_rmw("add", counter, e.index(1), "monotonic")
        is_left = e.less(item, count)
        e.when(is_left, lambda: body(item))
        return is_left

    e.repeat(take_item)


def parallel_for_chunks(
    e: Emitter, count: Value, chunk: int, body: Callable[[Value], object]
) -> None:
    """Do ``body(place)`` for ``count`` places, of which a thread takes ``chunk`` at once.

    Taking costs 0.1 microseconds, which a short body alone is not worth.
    """

    def one_chunk(item: Value) -> None:
        first = e.mul(item, chunk)
        stop = e.min(e.add(first, chunk), count)

        def one_place(place: Value) -> None:
            body(place)

        e.loop(first, stop, one_place)

    parallel_for(e, e.ceil_div(count, chunk), one_chunk)


def parallel_for_runs(
    e: Emitter,
    count: Value,
    body: Callable[[Value, Value], object],
    *,
    stretch: Value,
    chunk: Value,
) -> None:
    """Do ``body(first, stop)`` for runs of places; each thread has a stretch of its own.

    A stretch is one long run of memory. Of the ``count`` places, those behind all stretches are
    taken ``chunk`` at once by threads that are ready. A run may be empty.
    """
    counter = e.at(e.arguments[2], POOL["next_item"])
    shared = e.mul(stretch, _threads(e, e.arguments[2]))
    run_start, run_stop = e.b.alloca(I64), e.b.alloca(I64)
    first_place = e.mul(e.arguments[3], stretch)
    e.b.store(first_place, run_start)
    e.b.store(e.add(first_place, stretch), run_stop)

    def one_run() -> Value:
        body(e.b.load(run_start, typ=I64), e.b.load(run_stop, typ=I64))
        # each thread gets another number; nothing else has to be ordered by it
        item = e.b.atomic_rmw("add", counter, e.index(1), "monotonic")
        next_place = e.add(shared, e.mul(item, chunk))
        e.b.store(next_place, run_start)
        e.b.store(e.min(e.add(next_place, chunk), count), run_stop)
        return e.less(next_place, count)

    e.repeat(one_run)


def parallel_for_tiles(
    e: Emitter,
    count: Value,
    tile: int,
    body: Callable[[Value, int], object],
    *,
    stretch: Value,
    chunk: Value,
) -> None:
    """Do ``body(place, places)`` for ``count`` places, shared out as ``parallel_for_runs`` does.

    ``places`` is ``tile``, then 1 for the remainder of a run.
    """

    def one_run(first: Value, stop: Value) -> None:
        tiles_end = e.add(first, e.round_down(e.sub(stop, first), tile))

        def one_tile(place: Value) -> None:
            body(place, tile)

        def one_place(place: Value) -> None:
            body(place, 1)

        e.loop(first, tiles_end, one_tile, step=tile)
        if tile > 1:
            e.loop(tiles_end, stop, one_place)

    parallel_for_runs(e, count, one_run, stretch=stretch, chunk=chunk)


# --- the pool's state

# Sequentially consistent throughout: a thread that is about to sleep and one that is about to wake
# it must not both miss what the other wrote.


def _read(e: Emitter, pool: Value, field: str) -> Value:
    return e.b.load_atomic(e.at(pool, POOL[field]), "seq_cst", 8, typ=I64)


def _write(e: Emitter, pool: Value, field: str, value: int | Value) -> None:
    e.b.atomic_rmw("xchg", e.at(pool, POOL[field]), e.index(value), "seq_cst")


def _add(e: Emitter, pool: Value, field: str) -> Value:
    """Add 1 to a field; return what it was before."""
    return e.b.atomic_rmw("add", e.at(pool, POOL[field]), e.index(1), "seq_cst")


def _threads(e: Emitter, pool: Value) -> Value:
    """Return how many threads work on the call."""
    return e.load(e.at(pool, POOL["job"]), 24, I64, align=8)


# --- waiting

Changed = Callable[[], Value]
"""Emits the question whether what a thread waits for has come."""


def _pause(e: Emitter) -> None:
    """Tell the processor that this is a loop that waits."""
    if e.isa.machine == "aarch64":
        e.call("llvm.aarch64.hint", VOID, [ir.Constant(I32, 1)])  # yield
    else:
        e.call("llvm.x86.sse2.pause", VOID, [])


def _spin(e: Emitter, spins: int, changed: Changed) -> Value:
    """Wait awake; return whether it changed within the given number of pauses."""
    before = e.b.block
    head, after = e.blocks("spin", "spun")
    e.b.branch(head)
    e.b.position_at_end(head)
    count = e.b.phi(I64)
    count.add_incoming(e.index(0), before)
    done = changed()
    _pause(e)
    next_count = e.add(count, 1)
    count.add_incoming(next_count, e.b.block)
    e.b.cbranch(e.b.or_(done, e.less(spins, next_count)), after, head)
    e.b.position_at_end(after)
    return done


def _sleep(e: Emitter, pool: Value, count: str, condition: str, changed: Changed) -> None:
    """Sleep until it changed and somebody said so; ``count`` holds how many sleep for it."""
    mutex = e.at(pool, POOL["mutex"])
    signal = e.at(pool, POOL[condition])
    e.call("pthread_mutex_lock", I32, [mutex])
    _add(e, pool, count)
    # asked again under the lock: whoever wakes takes it, too, after it has seen the count
    head, inside, after = e.blocks("asleep", "sleep", "awake")
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
    mutex = e.at(pool, POOL["mutex"])
    signal = e.at(pool, POOL[condition])

    def wake_all() -> None:
        e.call("pthread_mutex_lock", I32, [mutex])
        e.call("pthread_cond_broadcast", I32, [signal])
        e.call("pthread_mutex_unlock", I32, [mutex])

    e.when(e.less(0, _read(e, pool, count)), wake_all)


def _barrier(e: Emitter, pool: Value, threads: Value) -> None:
    """Wait until every thread is here; the last one resets the count and opens the next phase."""
    phase = _read(e, pool, "phase")
    arrived = _add(e, pool, "arrived")
    last, wait, after = e.blocks("last", "wait", "passed")
    e.b.cbranch(e.b.icmp_signed("==", e.add(arrived, 1), threads), last, wait)
    e.b.position_at_end(last)
    _write(e, pool, "arrived", 0)
    _write(e, pool, "next_item", 0)
    _write(e, pool, "phase", e.add(phase, 1))
    _wake(e, pool, "waiters", "barrier_condition")
    e.b.branch(after)
    e.b.position_at_end(wait)

    def changed() -> Value:
        return e.b.icmp_signed("!=", _read(e, pool, "phase"), phase)

    passed = _spin(e, _BARRIER_SPINS, changed)
    e.when(e.b.not_(passed), lambda: _sleep(e, pool, "waiters", "barrier_condition", changed))
    e.b.branch(after)
    e.b.position_at_end(after)


# --- steps


def _call_steps(e: Emitter, pool: Value, thread: Value) -> None:
    """Do every step of the call that stands in the pool."""
    job = e.at(pool, POOL["job"])
    steps = e.load(job, 0, POINTER, align=8)
    call = e.load(job, 16, POINTER, align=8)
    count = e.load(job, 8, I64, align=8)
    threads = _threads(e, pool)

    def one_step(number: Value) -> None:
        _call_kernel(e, e.at(steps, e.mul(number, STEP_BYTES)), call, pool, thread)
        _barrier(e, pool, threads)

    e.loop(0, count, one_step)


def _call_kernel(e: Emitter, step: Value, call: Value, pool: Value, thread: Value) -> None:
    """Do this thread's part of a step; slot 0 is the kernel's address."""
    kernel = ir.FunctionType(VOID, KERNEL_ARGUMENTS).as_pointer()
    e.b.call(e.load(step, 0, kernel, align=8), [step, call, pool, thread])


def emit_apart(isa: Isa, name: str) -> str:
    """Emit ``apart``: groups of steps that do not touch each other, each done by one thread.

    No thread waits for another within a group: 8 sequences of a batch have 24 steps a layer between
    the products. The arguments are those of ``abi.APART``.
    """
    e = Emitter(isa, name, APART)
    group_steps = e.argument("group_steps")

    def one_group(group: Value) -> None:
        # steps take their items from a state of the group's own: this thread gets them all
        state = e.at(e.address("states"), e.mul(group, GROUP_BYTES))

        def one_step(place: Value) -> None:
            e.store(e.index(0), state, POOL["next_item"], align=8)
            steps = e.address("steps")
            number = e.add(e.mul(group, group_steps), place)
            step = e.at(steps, e.mul(number, STEP_BYTES))
            _call_kernel(e, step, e.arguments[1], state, e.arguments[3])

        e.loop(0, group_steps, one_step)

    parallel_for(e, e.argument("groups"), one_group)
    return e.finish()


def emit_run(isa: Isa, name: str) -> str:
    """Emit ``void run(pool)``: do the call that stands in the pool, as thread 0."""
    e = Emitter(isa, name, arguments=[POINTER])
    pool = e.arguments[0]
    threads = _threads(e, pool)

    def call_others() -> None:
        # together in one word: a thread that looks late sees whether it works on this very call
        number = e.add(e.b.lshr(_read(e, pool, "generation"), e.index(_COUNT_BITS)), 1)
        _write(e, pool, "generation", e.add(e.mul(number, 1 << _COUNT_BITS), threads))
        _wake(e, pool, "sleepers", "work_condition")

    e.when(e.less(1, threads), call_others)
    _call_steps(e, pool, e.index(0))
    return e.finish()


def emit_work(isa: Isa, name: str) -> str:
    """Emit ``void work(pool)``: a worker's life, until the pool says stop."""
    e = Emitter(isa, name, arguments=[POINTER])
    pool = e.arguments[0]
    thread = e.add(_add(e, pool, "workers"), 1)
    last_generation = e.b.alloca(I64)  # of the last call that this thread worked on
    e.b.store(e.index(0), last_generation)

    def changed() -> Value:
        generation = _read(e, pool, "generation")
        return e.b.icmp_signed("!=", generation, e.b.load(last_generation, typ=I64))

    def one_call() -> Value:
        is_called = _spin(e, _IDLE_SPINS, changed)
        e.when(e.b.not_(is_called), lambda: _sleep(e, pool, "sleepers", "work_condition", changed))
        generation = _read(e, pool, "generation")
        e.b.store(generation, last_generation)
        running = e.b.icmp_signed("==", _read(e, pool, "stop"), e.index(0))
        threads = e.b.and_(generation, e.index((1 << _COUNT_BITS) - 1))
        works = e.b.and_(running, e.less(thread, threads))
        e.when(works, lambda: _call_steps(e, pool, thread))
        return running

    e.repeat(one_call)
    return e.finish()
