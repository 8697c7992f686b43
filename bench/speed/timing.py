"""The repetitions of a test: warmed up, timed, and done again where the machine slept."""

# B sequences at once, L tokens

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgellm.bench.backends.registry import Runtime
from edgellm.bench.machine.energy import EnergyMeter
from edgellm.bench.speed.workload import Test

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

FIRST_ID, LAST_ID = 300, 4096
"""Token ids are drawn from this range, which lies behind the special tokens of every vocabulary."""

MAX_STEPS = 64
"""Single steps of a generation that are timed one by one."""

WARM_STEPS = 4

SLEEP_SECONDS = 1.0
"""The wall clock's lead over the other in a repetition from which on the machine has slept."""

MAX_SLEPT = 5
"""Repetitions of a test that may be lost to sleep; the next one counts as it is."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Two clocks: ``awake`` stands still while the machine sleeps, and ``wall`` does not."""

    awake: Callable[[], float] = time.perf_counter
    wall: Callable[[], float] = time.time

    def start(self) -> Stopwatch:
        """Start to measure."""
        wall = self.wall()
        return Stopwatch(self, wall, self.awake())


@dataclass(frozen=True, slots=True)
class Stopwatch:
    """The readings of both clocks at a start."""

    clock: Clock
    wall: float
    awake: float

    def stop(self) -> tuple[float, float]:
        """Return the seconds since the start: those awake, and those asleep."""
        seconds = self.clock.awake() - self.awake
        return seconds, self.clock.wall() - self.wall - seconds


@dataclass(frozen=True, slots=True)
class Sample:
    """One repetition.

    Attributes:
        seconds: seconds that it took.
        joules: joules that the machine used; None where it does not tell.
        slept: whether the machine slept through a part of it, which makes it worthless.
    """

    seconds: float
    joules: float | None
    slept: bool


def token_ids(count: int, vocabulary: int | None, batch: int) -> npt.NDArray[np.int64]:
    """Return token ids (B, L), the same in every run; a longer array begins like a shorter one."""
    import numpy as np

    last = min(LAST_ID, vocabulary or LAST_ID)
    first = FIRST_ID
    if last <= 2 * FIRST_ID:  # a tiny vocabulary
        first = 0
    rows = [np.random.default_rng(seed).integers(first, last, size=count) for seed in range(batch)]
    return np.stack(rows).astype(np.int64)


class Trial:
    """A test on a runtime.

    Args:
        runtime: a loaded model.
        test: a prompt (``pp``) or a generation (``tg``).
        vocabulary: tokens that the model knows; None where nobody can tell.
        meter: counts the energy of each repetition, where there is one.
        clock: tells the time.
    """

    def __init__(
        self,
        runtime: Runtime,
        test: Test,
        vocabulary: int | None,
        *,
        meter: EnergyMeter | None,
        clock: Clock,
    ) -> None:
        self._runtime, self._test, self._meter, self._clock = runtime, test, meter, clock
        tokens = token_ids(test.depth + test.tokens + 1, vocabulary, test.batch)
        self._context = tokens[:, : test.depth]
        self._prompt = tokens[:, test.depth : test.depth + test.tokens]
        if test.kind == "tg":  # it goes on from one token at least
            self._context = tokens[:, : max(1, test.depth)]

    def warm_up(self) -> None:
        """Run the test once, untimed; of a generation only some steps."""
        self._prepare()
        self._run(min(self._test.tokens, WARM_STEPS))

    def repetitions(self, count: int, max_seconds: float) -> Iterator[Sample]:
        """Yield repetitions until ``count`` were awake, or no further one may begin.

        The first that counts is always there, and those that the machine slept through come as
        well.
        """
        ends = self._clock.awake() + max_seconds
        counted = slept = 0
        while counted < count and (not counted or self._clock.awake() < ends):
            self._prepare()
            sample = self._timed(self._test.tokens, may_discard=slept < MAX_SLEPT)
            slept += sample.slept
            counted += not sample.slept
            yield sample

    def steps(self, max_seconds: float) -> Iterator[float]:
        """Yield the seconds of single steps of a generation, each waited for; none of a prompt."""
        if self._test.kind != "tg":
            return
        ends = self._clock.awake() + max_seconds
        self._prepare()
        for number in range(min(MAX_STEPS, self._test.tokens)):
            if number and self._clock.awake() > ends:
                return
            sample = self._timed(1, may_discard=True)
            if not sample.slept:
                yield sample.seconds

    def _prepare(self) -> None:
        test = self._test
        self._runtime.begin(batch=test.batch, capacity=max(1, test.depth) + test.tokens + 1)
        if self._context.size:
            self._runtime.prefill(self._context)

    def _run(self, tokens: int) -> None:
        if self._test.kind == "tg":
            self._runtime.decode(tokens)
        else:
            self._runtime.prefill(self._prompt)

    def _timed(self, tokens: int, *, may_discard: bool) -> Sample:
        joules_before = self._meter.joules() if self._meter else 0.0
        watch = self._clock.start()
        self._run(tokens)
        seconds, asleep = watch.stop()
        joules = self._meter.joules() - joules_before if self._meter else None
        return Sample(seconds, joules, slept=may_discard and asleep > SLEEP_SECONDS)
