"""The model lock: who may compute, who waits, who gives way, and when the model is freed."""

import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import mlx.core as mx
import pytest

from edgellm.device.model_lock import ModelLock
from edgellm.device.place import IDLE_SECONDS
from edgellm.errors import ClosedError, EdgeLLMError


@pytest.fixture
def freed():
    return []


@pytest.fixture
def lock(freed):
    return ModelLock(mx.default_stream(mx.default_device()), lambda: freed.append(True))


class Counting:
    """An occupant that counts its steps, and how often it gave way."""

    step_seconds = return_seconds = 0.0

    def __init__(self, steps=10**9, before_step=lambda: None):
        self.steps, self.computed, self.read, self.given_way = steps, 0, 0, 0
        self.before_step = before_step

    @property
    def is_ready(self):
        return self.computed > self.read

    @property
    def has_ended(self):
        return self.computed >= self.steps

    def step(self, keep_going):
        self.before_step()
        self.computed += keep_going()

    def give_way(self):
        self.given_way += 1


def read(place):
    """Read one step of a place; whether there was one."""
    with place.reading():
        while not place.is_ready:
            if place.is_done or not place.advance():
                return False
        place.occupant.read += 1
        return True


def places(lock, count, **settings):
    return [lock.place(Counting(**settings)) for _ in range(count)]


def in_thread(function, *arguments):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *arguments).result(timeout=20)


def test_in_one_thread_places_give_way_to_each_other_at_once(lock):
    one, other = places(lock, 2, steps=3)
    for _ in range(3):
        assert read(one)
        assert read(other)
    assert not read(one)
    assert (one.occupant.given_way, other.occupant.given_way) == (3, 3)


def read_for(place, seconds):
    """Read a place again and again; the longest time that nobody read, if the machine was busy."""
    longest, last = 0.0, time.monotonic()
    end = last + seconds
    while last < end:
        assert read(place)
        now = time.monotonic()
        longest, last = max(longest, now - last), now
    return longest


def test_a_place_that_is_read_is_waited_for(lock):
    """And one that nobody reads is not, whichever threads have read it; nothing of it is lost."""
    longest = IDLE_SECONDS
    while longest > IDLE_SECONDS / 2:  # whoever is held up that long may count as gone
        one, other = places(lock, 2)
        assert in_thread(read, one)
        start = time.monotonic()
        assert read(one)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(read, other)
            longest = read_for(one, 0.1)
            done, given_way = waiting.done(), one.occupant.given_way
            longest = max(longest, time.monotonic() - start - 0.1)
            assert waiting.result(timeout=20)
    assert not done
    assert given_way == 0
    assert one.occupant.given_way == 1
    while one.is_ready:
        assert read(one)
    assert read(one), "it comes back"
    assert other.occupant.given_way == 1


def test_who_waits_computes_for_a_reader_that_is_late(lock):
    one, other = places(lock, 2, steps=4)
    assert in_thread(read, one)
    assert in_thread(read, one)
    assert read(other)
    assert one.is_done
    assert [read(one) for _ in range(3)] == [True, True, False]


def test_a_held_place_without_steps_is_waited_for_in_any_other_thread(lock):
    (other,) = places(lock, 1)
    with lock.acquire() as held:
        with held.computing():
            pass
        with pytest.raises(EdgeLLMError, match="unfinished sequences"):
            read(other)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(read, other)
            time.sleep(0.02)
            assert not waiting.done()
            held.leave()
            assert waiting.result(timeout=20)


def test_one_is_cancelled_closed_and_late_for_itself(lock):
    one, two, three = places(lock, 3)
    late = lock.place(Counting(), deadline=time.monotonic() + 0.05)
    with lock.acquire(), ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(read, place) for place in (one, two, late)]
        time.sleep(0.02)
        one.cancel()
        two.close()
        assert [future.result(timeout=20) for future in waiting] == [False] * 3
    assert (one.end_reason, late.end_reason) == ("cancelled", "timeout")
    assert read(three)


def test_cancel_ends_all_that_exist_and_none_that_come_later(lock):
    begun, waiting = places(lock, 2)
    assert read(begun)
    lock.cancel()
    assert not read(begun)
    assert not read(waiting)
    (later,) = places(lock, 1)
    assert read(later)


def test_a_step_of_a_step_is_an_error_and_no_deadlock(lock):
    (other,) = places(lock, 1)

    def ask():
        with pytest.raises(EdgeLLMError, match="is computing a step"):
            read(other)

    assert read(lock.place(Counting(before_step=ask)))


def test_closing_a_place_waits_for_its_step_save_from_within(lock):
    computing, go_on = threading.Event(), threading.Event()

    def wait():
        computing.set()
        go_on.wait(20)

    place = lock.place(Counting(before_step=wait))
    with ThreadPoolExecutor(2) as pool:
        reader = pool.submit(read, place)
        assert computing.wait(20)
        closing = pool.submit(place.close)
        time.sleep(0.02)
        assert not closing.done()
        go_on.set()
        closing.result(timeout=20)
        assert not reader.result(timeout=20)
    assert place.occupant.given_way == 1
    own = lock.place()
    own.occupant = Counting(before_step=own.close)
    assert not read(own)
    assert own.occupant.given_way == 1


def test_an_abandoned_place_is_free_and_holds_nothing(lock):
    (place,) = places(lock, 1)
    occupant = place.occupant
    assert read(place)
    place.abandon()
    assert occupant.given_way == 1
    del place
    gc.collect()
    with lock.acquire():
        pass


def test_closing_waits_for_the_step_and_frees_once(lock, freed):
    computing, go_on = threading.Event(), threading.Event()

    def step():
        with lock.acquire() as place, place.computing():
            computing.set()
            go_on.wait(20)
            return place.keep_going()

    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(step)
        assert computing.wait(20)
        closing = pool.submit(lock.close)
        while not lock.closed:
            time.sleep(0.001)
        assert not closing.done()
        assert freed == []
        go_on.set()
        assert not running.result()
        closing.result()
    lock.close()
    assert freed == [True]
    with pytest.raises(ClosedError), lock.acquire():
        pass


def test_closed_within_a_step_it_is_freed_at_the_end_of_the_step(lock, freed):
    with lock.acquire() as place:
        with place.computing():
            lock.close()
            assert freed == []
        assert freed == [True]
        with pytest.raises(ClosedError), place.computing():
            pass
    assert freed == [True]
