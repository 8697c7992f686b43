"""The model lock: who may compute, who waits, and when the model is freed."""

import _thread
import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import mlx.core as mx
import pytest

from edgellm.device.model_lock import ModelLock
from edgellm.errors import ClosedError, EdgeLLMError

pytestmark = pytest.mark.timeout(30)


@pytest.fixture
def freed():
    return []


@pytest.fixture
def lock(freed):
    return ModelLock(mx.default_stream(mx.default_device()), lambda: freed.append(True))


def test_a_generation_holds_the_lock_from_its_first_item_to_its_last(lock):
    first = lock.run(iter_items(2))
    assert next(first) == 0
    with pytest.raises(EdgeLLMError, match="unfinished in this thread"):
        next(lock.run(iter_items(1)))
    assert list(first) == [1]
    assert list(lock.run(iter_items(3))) == [0, 1, 2]


def test_an_ended_threads_generation_is_waited_for_by_any_other(lock):
    """Even by one that has its identifier: threads are told apart as objects."""
    stream = lock.run(iter_items(3))
    thread = threading.Thread(target=next, args=(stream,))
    thread.start()
    thread.join()
    found = []
    for _ in range(20):
        waiter = threading.Thread(target=lambda: found.extend(lock.run(iter_items(1))))
        waiter.start()
        waiter.join(0.01)
        if waiter.ident == thread.ident:
            break
    assert waiter.is_alive(), "it waits, and has not failed"
    assert list(stream) == [1, 2]
    waiter.join()
    assert 0 in found


def test_a_thread_of_foreign_code_is_no_other_ones_successor(lock):
    """Python makes one object for threads that are not its own where they share an identifier."""
    stream = lock.run(iter_items(3))
    identifiers, found = queue.Queue(), queue.Queue()

    def advance():
        # where nobody asks for the object, Python makes none
        identifiers.put(threading.current_thread().ident)
        next(stream)

    def wait():
        identifiers.put(threading.current_thread().ident)
        try:
            found.put(list(lock.run(iter_items(1))))
        except EdgeLLMError as error:
            found.put(error)

    _thread.start_new_thread(advance, ())
    ended = identifiers.get(timeout=10)
    waiting = 0
    while waiting < 20:
        time.sleep(0.01)  # the identifier is free when the thread is gone
        _thread.start_new_thread(wait, ())
        waiting += 1
        if identifiers.get(timeout=10) == ended:
            break
    with pytest.raises(queue.Empty):
        found.get(timeout=0.1)
    assert list(stream) == [1, 2]
    assert [found.get(timeout=10) for _ in range(waiting)] == [[0]] * waiting


def test_closing_waits_for_the_step_and_frees_once(lock, freed):
    computing, go_on = threading.Event(), threading.Event()

    def step():
        with lock.acquire(), lock.computing():
            computing.set()
            go_on.wait()

    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(step)
        computing.wait()
        closing = pool.submit(lock.close)
        assert lock.cancelled.wait(10)
        assert not closing.done()
        assert freed == []
        go_on.set()
        running.result()
        closing.result()
    lock.close()
    assert freed == [True]
    with pytest.raises(ClosedError), lock.acquire():
        pass


def test_closed_within_a_step_it_is_freed_at_the_end_of_the_step(lock, freed):
    with lock.acquire():
        with lock.computing():
            lock.close()
            assert freed == []
        assert freed == [True]
        with pytest.raises(ClosedError), lock.computing():
            pass
    assert freed == [True]


def iter_items(count):
    yield from range(count)
