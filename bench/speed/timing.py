"""Repetitions of a test on a runtime: warmed up, timed when the arithmetic is done, and done again where the machine slept."""

# B sequences at once, L tokens

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgellm.bench.backends.registry import Runtime
from edgellm.bench.machine.energy import Meter
from edgellm.bench.speed.workload import Test

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

FIRST_ID, LAST_ID = 300, 4096
"""Token ids are drawn from here, behind the special tokens of every vocabulary; the same in every backend and model."""

STEPS = 64
"""Single steps that are timed one by one, at the most."""

WARM_STEPS = 4
SLEEP = 1.0
"""Seconds that the wall clock may run ahead of the other one in a repetition before the machine is taken to have slept."""

NAPS = 5
"""Repetitions of a test that may be lost to sleep; the next one is kept as it is."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Two ways to tell seconds: one that stands still while the machine sleeps, and one that does not."""

    awake: Callable[[], float] = time.perf_counter
    wall: Callable[[], float] = time.time


@dataclass(frozen=True, slots=True)
class Sample:
    """One repetition: its seconds, its joules where they are known, and whether the machine slept through a part of it."""

    seconds: float
    joules: float | None
    slept: bool


def token_ids(count: int, vocabulary: int | None, batch: int) -> npt.NDArray[np.int64]:
    """Token ids (B, L): drawn once and for all; a longer array begins with the shorter one."""
    import numpy as np

    last = min(LAST_ID, vocabulary or LAST_ID)
    first = FIRST_ID if last > 2 * FIRST_ID else 0
    rows = [
        np.random.default_rng(number).integers(first, last, size=count) for number in range(batch)
    ]
    return np.stack(rows).astype(np.int64)


class Trial:
    """A test on a runtime."""

    def __init__(
        self,
        runtime: Runtime,
        test: Test,
        vocabulary: int | None,
        *,
        meter: Meter | None,
        clock: Clock,
    ) -> None:
        self._runtime, self._test, self._meter, self._clock = runtime, test, meter, clock
        tokens = token_ids(test.depth + test.tokens + 1, vocabulary, test.batch)
        self._before, self._prompt = (
            tokens[:, : test.depth],
            tokens[:, test.depth : test.depth + test.tokens],
        )
        self._first = tokens[:, : max(1, test.depth)]

    def warm_up(self) -> None:
        """Go the way once, untimed; of a generation only some steps."""
        self._prepare()
        self._work(min(self._test.tokens, WARM_STEPS))

    def repetitions(self, count: int, max_seconds: float) -> Iterator[Sample]:
        """Yield repetitions until ``count`` counted ones have come, or no further one may begin; at least one counts."""
        ends = self._clock.awake() + max_seconds
        counted = naps = 0
        while counted < count and (not counted or self._clock.awake() < ends):
            self._prepare()
            sample = self._timed(self._test.tokens, may_discard=naps < NAPS)
            naps += sample.slept
            counted += not sample.slept
            yield sample

    def steps(self, max_seconds: float) -> Iterator[float]:
        """Yield the seconds of single steps of a generation, each waited for; none of a prompt."""
        if self._test.kind != "tg":
            return
        ends = self._clock.awake() + max_seconds
        self._prepare()
        for number in range(min(STEPS, self._test.tokens)):
            if number and self._clock.awake() > ends:
                return
            sample = self._timed(1, may_discard=True)
            if not sample.slept:
                yield sample.seconds

    def _prepare(self) -> None:
        test = self._test
        self._runtime.begin(batch=test.batch, capacity=max(1, test.depth) + test.tokens + 1)
        if test.kind == "tg":
            self._runtime.prompt(self._first)
        elif test.depth:
            self._runtime.prompt(self._before)

    def _work(self, tokens: int) -> None:
        if self._test.kind == "tg":
            self._runtime.decode(tokens)
        else:
            self._runtime.prompt(self._prompt)

    def _timed(self, tokens: int, *, may_discard: bool) -> Sample:
        meter, clock = self._meter, self._clock
        joules = meter.joules() if meter else 0.0
        wall, begun = clock.wall(), clock.awake()
        self._work(tokens)
        seconds = clock.awake() - begun
        asleep = clock.wall() - wall - seconds
        used = meter.joules() - joules if meter else None
        return Sample(seconds, used, slept=may_discard and asleep > SLEEP)
