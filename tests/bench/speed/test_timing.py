"""Repetitions: warmed up, timed, ended, and done again where the machine slept."""

import numpy as np

from edgellm.bench.speed.timing import FIRST_ID, Clock, Trial, token_ids
from edgellm.bench.speed.workload import Test as BenchTest


def test_the_same_ids_go_to_everyone():
    ids = token_ids(100, 32_000, 3)
    assert ids.shape == (3, 100)
    assert ids.min() >= FIRST_ID
    np.testing.assert_array_equal(ids[:, :10], token_ids(10, 128_256, 3))
    assert len({tuple(row) for row in ids}) == 3
    assert token_ids(100, 16, 1).max() < 16


class Counting:
    """A runtime that only counts what it is asked."""

    device = arithmetic = "none"
    weight_bytes_per_token = None

    def __init__(self):
        self.asked = []

    def begin(self, *, batch, capacity):
        self.asked.append(("begin", batch, capacity))

    def prefill(self, tokens):
        self.asked.append(("prefill", tokens.shape))

    def decode(self, count):
        self.asked.append(("decode", count))


class Times:
    """A clock that goes on by what it is told to at each reading."""

    def __init__(self, *steps):
        self.now, self.steps = 0.0, list(steps)

    def __call__(self):
        self.now += self.steps.pop(0) if self.steps else 1.0
        return self.now


def test_a_repetition_that_the_machine_slept_through_is_marked_and_done_again():
    awake, wall = Times(), Times(1.0, 3600.0)  # an hour passes within the first repetition
    trial = Trial(Counting(), BenchTest("tg", 5), None, meter=None, clock=Clock(awake, wall))
    samples = list(trial.repetitions(3, 1e9))
    assert [sample.slept for sample in samples] == [True, False, False, False]


def test_repetitions_end_when_their_time_is_over_but_one_is_always_there():
    trial = Trial(Counting(), BenchTest("pp", 5), None, meter=None, clock=Clock(Times(), Times()))
    assert len(list(trial.repetitions(10, 0.0))) == 1
    assert len(list(trial.repetitions(10, 8.5))) < 10


def test_what_is_timed_is_only_what_the_test_names():
    runtime = Counting()
    trial = Trial(runtime, BenchTest("tg", 5, depth=7, batch=2), None, meter=None, clock=Clock())
    list(trial.repetitions(1, 10))
    assert runtime.asked == [("begin", 2, 13), ("prefill", (2, 7)), ("decode", 5)]
    runtime.asked.clear()
    trial = Trial(runtime, BenchTest("pp", 5, depth=7), None, meter=None, clock=Clock())
    list(trial.repetitions(1, 10))
    assert runtime.asked == [("begin", 1, 13), ("prefill", (1, 7)), ("prefill", (1, 5))]
