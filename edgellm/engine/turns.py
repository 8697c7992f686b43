"""Groups of sequences that take turns on several machines, each of which has another group.

A pass over layers on S machines leaves S - 1 of them idle at any time. S groups keep all of them
busy, and each sequence gets its token in the time of a pass of one group. That is less than the
time of a pass of all, unless arithmetic is bound by reading weights: then a pass of all takes no
longer than that of a group, and groups cost what links and Python take. So both ways are tried, and
the faster one is taken.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable
from collections.abc import Sequence as ListOf

from edgellm.engine.scheduling.batched_forward import SequenceInput
from edgellm.engine.scheduling.context import EngineContext
from edgellm.engine.scheduling.scheduler import Scheduler
from edgellm.engine.scheduling.sequence import Sequence
from edgellm.engine.work import Work
from edgellm.models.layers import StagedLayers

Landed = Callable[[Work, bool], None]
"""Takes a group that is through; or, with false, one that was told to stop."""

TRIED_ROUNDS = 5
"""Rounds after which a way is known well enough; in a round each group takes a step."""

KEPT_ROUNDS = 9
"""Rounds of which the median counts: what else the machines do disturbs some of them."""

AGAIN_STEPS = 300
"""Steps after which the slower way is tried again: the machines may have changed."""

CLEAR_GAIN = 0.95
"""Groups are taken where a token takes less than this share of what it takes when all go together.

Where both are alike, all together is simpler: nothing is under way between two steps.
"""


class Turns:
    """Groups of sequences, each under way on another machine.

    Args:
        context: the model.
        scheduler: who runs.
    """

    def __init__(self, context: EngineContext, scheduler: Scheduler) -> None:
        self._context = context
        self._scheduler = scheduler
        self._works: deque[Work] = deque()
        self._paces: dict[int, TurnPace] = {}
        self._pace: TurnPace | None = None
        """Of the sequences of this step; None where they cannot take turns."""

    @property
    def under_way(self) -> int:
        """How many groups have yet to land."""
        return len(self._works)

    def advance(self, landed: Landed) -> bool:
        """Launch what is here, and land what was launched first; false where all go together."""
        running = self._scheduler.running
        self._pace = pace = self._pace_of(running)
        groups = 1 if pace is None else pace.groups
        is_steady = self.under_way == groups - 1
        begun = time.perf_counter()
        try:
            while self.under_way < groups > 1:
                busy = [sequence for work in self._works for sequence in work.sequences]
                steps = self._scheduler.schedule(0, busy)
                if not steps:
                    break
                self._launch(steps[: -(-len(running) // groups)])
            if not self._works:
                return False
            tokens = len(self._works[0].sequences)
            self._land(self._works[0], landed)
        except BaseException:
            self.close()
            raise
        if pace is not None and is_steady and tokens:
            pace.observe(groups, tokens, time.perf_counter() - begun)
        return True

    def land_all_of(self, sequences: ListOf[Sequence], landed: Landed) -> None:
        """Land the groups that have some of these sequences: their caches are about to change."""
        for work in list(self._works):
            if work.has_any(sequences):
                self._land(work, landed)

    def observe_together(self, tokens: int, seconds: float) -> None:
        """Note how long a step took in which all went together."""
        if self._pace is not None:
            self._pace.observe(1, tokens, seconds)

    def close(self) -> None:
        """End what is under way; the sequences go back to where they were before."""
        while self._works:
            self._works.popleft().close()

    def _pace_of(self, running: ListOf[Sequence]) -> TurnPace | None:
        """Return how fast steps of sequences are; None where all go together.

        That is so on one machine, of a single sequence, and while a prompt is computed, which is
        on all machines at once itself.
        """
        layers = self._context.model.layers
        if len(running) < 2 or not isinstance(layers, StagedLayers) or layers.stages < 2:
            return None
        if any(not one.is_started or one.is_prefilling for one in running):
            return None
        groups = min(layers.stages, len(running))
        return self._paces.setdefault(len(running), TurnPace(groups))

    def _launch(self, scheduled: ListOf[tuple[Sequence, SequenceInput]]) -> None:
        layers = self._context.model.layers
        assert isinstance(layers, StagedLayers), "their sequences have a pace"
        work = Work(self._context, scheduled)
        work.launch(layers)
        self._works.append(work)

    def _land(self, work: Work, landed: Landed) -> None:
        self._works.remove(work)
        landed(work, work.land())


class TurnPace:
    """How fast steps of a number of sequences are, in groups and all together.

    Args:
        groups: into how many the sequences are divided, where they take turns.
    """

    def __init__(self, groups: int) -> None:
        self._most = groups
        # seconds of a token, of the latest rounds; in a round each group takes a step
        self._rounds: dict[int, deque[float]] = {
            way: deque(maxlen=KEPT_ROUNDS) for way in (groups, 1)
        }
        self._round: dict[int, list[tuple[int, float]]] = {groups: [], 1: []}
        self._steps = 0

    @property
    def groups(self) -> int:
        """How many groups the sequences are best divided into now; 1: all go together."""
        for groups, rounds in self._rounds.items():
            if len(rounds) < TRIED_ROUNDS:
                return groups
        in_groups, together = (statistics.median(rounds) for rounds in self._rounds.values())
        best, other = 1, self._most
        if in_groups < CLEAR_GAIN * together:
            best, other = other, best
        if self._steps >= AGAIN_STEPS:
            self._steps = 0
            self._rounds[other].clear()
        return best

    def observe(self, groups: int, tokens: int, seconds: float) -> None:
        """Note how long a step took that gave so many tokens."""
        self._steps += 1
        steps = self._round[groups]
        steps.append((tokens, seconds))
        if len(steps) == groups:
            taken = sum(seconds for _, seconds in steps)
            self._rounds[groups].append(taken / sum(tokens for tokens, _ in steps))
            steps.clear()
