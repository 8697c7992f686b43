"""Scores as they come: wave by wave, so that who stops early keeps those that are there."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgellm.device.bound_to_process import BoundToProcess
from edgellm.device.place import KeepGoing
from edgellm.engine.scheduling.context import EngineContext
from edgellm.scoring.pairs import Pair
from edgellm.scoring.scorer import Score, Scorer
from edgellm.scoring.workspace import Counts, Workspace, cancelled


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreStats:
    """The work of scoring so far; all numbers are exact.

    Attributes:
        pairs: pairs that are scored.
        waves: waves of pairs that went through the model.
        layer_tokens: tokens that went through the layers. Tokens that pairs begin with in common go
            once.
        head_rows: hidden states that went through the output matrix.
        passes: passes over the weights; where they are streamed, each reads all of them.
    """

    pairs: int
    waves: int
    layer_tokens: int
    head_rows: int
    passes: int


class _Work:
    """The waves of a stream of scores, as an occupant of its place: a step is a wave."""

    def __init__(self, pairs: Sequence[Pair], context: EngineContext) -> None:
        self.ready: deque[tuple[int, Score]] = deque()
        self.has_ended: bool = not pairs
        self.failure: Exception | None = None
        self.step_seconds: float = 0.0
        self.return_seconds: float = 0.0
        self.pairs_done: int = 0
        self.waves_done: int = 0
        self.counts: Counts = Counts()
        self._context = context
        self._scorer = Scorer(pairs, context)
        self._is_at_model = False

    @property
    def is_ready(self) -> bool:
        """Whether there is a score to read."""
        return bool(self.ready)

    def step(self, keep_going: KeepGoing) -> None:
        """Compute the next wave."""
        begun = time.perf_counter()
        if not self._is_at_model:
            self._context.prefix_cache.clear()  # all memory for KV caches is taken
            self._is_at_model = True
        workspace = Workspace(self._context, keep_going, self.counts)
        try:
            scores = self._scorer.run_wave(workspace)
        except Exception as error:
            self.failure = error
            self.has_ended = True
        except BaseException:  # of whichever thread has computed this
            self.give_way()
            raise
        else:
            self.ready.extend(scores)
            self.pairs_done += len(scores)
            self.waves_done += 1
            self.has_ended = self._scorer.is_done
        if self.has_ended:
            self.give_way()
        self.step_seconds = time.perf_counter() - begun

    def give_way(self) -> None:
        """Let go of the KV caches; what the next wave needs of them is computed again."""
        self._scorer.drop_caches()
        self._is_at_model = False


class ScoreStream(BoundToProcess, Iterator[tuple[int, Score]]):
    """Scores as they come, each with its pair's place; ``LLM.stream_scores`` returns it.

    Pairs go through the model in waves, in the order that shares most; the scores of a wave come
    together, and are final. It is read and closed from any threads, and ``with`` closes it. While
    nobody reads it, others that wait for the model go first.

    Args:
        pairs: what is scored.
        context: the model.
    """

    def __init__(self, pairs: Sequence[Pair], context: EngineContext) -> None:
        self._total = len(pairs)
        self._work = _Work(pairs, context)
        self._lock = context.model_lock
        self._place = self._lock.place(self._work)
        self._reading = threading.RLock()

    def __repr__(self) -> str:
        return f"<ScoreStream {self._work.pairs_done} of {self._total} pairs>"

    def __len__(self) -> int:
        """Return the number of pairs, scored or not."""
        return self._total

    def __iter__(self) -> ScoreStream:
        """Return the stream."""
        return self

    def __next__(self) -> tuple[int, Score]:
        """Return the next score, with its pair's place. Raises what ``LLM.stream_scores`` says."""
        with self._reading:
            self._place.require_outside_step()  # asking for a score there ends nothing
            with self._place.reading():
                return self._next()

    def __enter__(self) -> ScoreStream:
        """Return the stream."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def __del__(self) -> None:
        """Free what it holds, where nobody closed it."""
        self._place.abandon()

    def cancel(self) -> None:
        """End it with an error where it is read; from any thread, at any time."""
        self._place.cancel()

    def close(self) -> None:
        """End it, and free what it holds; twice, from any thread."""
        self._place.close()

    @property
    def stats(self) -> ScoreStats:
        """The work so far."""
        work, counts = self._work, self._work.counts
        return ScoreStats(
            pairs=work.pairs_done,
            waves=work.waves_done,
            layer_tokens=counts.layer_tokens,
            head_rows=counts.head_rows,
            passes=counts.passes,
        )

    def _next(self) -> tuple[int, Score]:
        work, place = self._work, self._place
        while not place.closed:
            if work.ready:
                return work.ready.popleft()
            if work.failure is not None:
                raise work.failure
            if work.has_ended:
                break
            if not place.advance() and not place.closed:
                raise cancelled()
        place.close()
        raise StopIteration
