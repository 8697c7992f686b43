"""Beam search: several continuations side by side, of which the one with the best mean log-probability is kept.

The rules are those of transformers with ``length_penalty=1`` and ``early_stopping=False``: a
finished text is worth its log-probability divided by its length, and the search ends when no
running one can still beat the worst of the finished.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.errors import MemoryBudgetError
from edgellm.generation.decode import Progress, Step, prefill
from edgellm.kv_cache.cache import Cache, stored
from edgellm.models.llama import Model
from edgellm.plan.plan import megabytes
from edgellm.sampling.sampler import log_probabilities, penalized
from edgellm.settings import Sampling


@dataclass(frozen=True, slots=True)
class _Beam:
    """A continuation: its tokens, the log-probability of each, and the sum that it is ranked by."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    score: np.float32
    parent: int = 0

    @property
    def worth(self) -> np.float32:
        return np.float32(self.score / len(self.tokens))


def beam_steps(
    model: Model,
    prompt: Sequence[int],
    caches: Sequence[Cache],
    sampling: Sampling,
    *,
    chunk: int,
    limit: int,
    progress: Progress,
    keep_going: Callable[[], bool],
    seen: Sequence[int],
    ends: Callable[[Sequence[int]], bool],
    end_tokens: int,
) -> Generator[Step]:
    """Yield the best continuation of up to ``limit`` tokens, once it is found; arguments are those of ``generate_steps``.

    All beams go through a layer together: a token costs one pass over the weights. ``caches`` are
    left with the prompt alone.

    Args:
        ends: whether these new tokens are a finished text.
        end_tokens: how many tokens end a text; so many more candidates are looked at, so that
            enough of them go on.
    """
    logits = prefill(model, prompt, caches, chunk=chunk, progress=progress, keep_going=keep_going)
    if logits is None:
        return
    progress.prefill_ended_at = progress.first_token_at = time.perf_counter()
    width = max(2, 1 + end_tokens) * sampling.beams
    held = [list(caches)]
    running, finished = [_Beam((), (), np.float32(0))], list[_Beam]()
    for length in range(1, limit + 1):
        over, going_on = list[_Beam](), list[_Beam]()
        for rank, beam in enumerate(_candidates(running, logits, sampling, seen, width)):
            if length < limit and not ends(beam.tokens):
                going_on.append(beam)
            # a worse one is looked at only so that enough of them go on
            elif rank < sampling.beams:
                over.append(beam)
        finished = sorted([*finished, *over], key=lambda beam: -beam.worth)[: sampling.beams]
        running = going_on[: sampling.beams]
        if (
            not running
            or (len(finished) == sampling.beams and running[0].worth <= finished[-1].worth)
            or not keep_going()
        ):
            break
        held = _forked(held, [beam.parent for beam in running], original=length == 1)
        # before a parent's memory is written to
        mx.eval(*(array for own in held for array in stored(own)))
        rows = [mx.array([beam.tokens[-1:]]) for beam in running]
        hidden = model.hidden(rows, held)
        logits = model.logits(mx.concatenate([state[:, -1] for state in hidden]))
        mx.eval(logits, *(array for own in held for array in stored(own)))
        progress.forwards += len(running)
        progress.passes += 1
    best = (finished or running)[0]
    progress.last_token_at = time.perf_counter()
    yield from map(
        Step, best.tokens, best.logprobs if sampling.logprobs else [None] * len(best.tokens)
    )


def _candidates(
    running: Sequence[_Beam], logits: mx.array, sampling: Sampling, seen: Sequence[int], width: int
) -> list[_Beam]:
    """The ``width`` best continuations by a token, best first, of beams with the logits (beams, V)."""
    plain = log_probabilities(logits)
    ranked = plain
    if sampling.repetition_penalty != 1.0:
        before = np.zeros(plain.shape, np.bool_)
        for row, beam in enumerate(running):
            before[row, [*seen, *beam.tokens]] = True
        ranked = penalized(plain, mx.array(before), sampling.repetition_penalty)
    ranked = (ranked + mx.array(np.array([[beam.score] for beam in running], np.float32))).flatten()
    width = min(width, ranked.size)
    places = mx.argpartition(-ranked, kth=width - 1)[:width]
    chosen: list[int] = np.array(places).tolist()
    scores: npt.NDArray[np.float32] = np.array(ranked[places])
    logprobs: npt.NDArray[np.float32] = np.array(plain.flatten()[places])
    beams = []
    for number in sorted(range(width), key=lambda item: (-scores[item], chosen[item])):
        parent, token = divmod(chosen[number], logits.shape[-1])
        old = running[parent]
        beams.append(
            _Beam(
                (*old.tokens, token),
                (*old.logprobs, float(logprobs[number])),
                scores[number],
                parent,
            )
        )
    return beams


def _forked(
    held: Sequence[list[Cache]], parents: Sequence[int], *, original: bool
) -> list[list[Cache]]:
    """The caches of each parent: copies, save for a parent's last child, which takes the parent's own (not the original's)."""
    forked = []
    for place, parent in enumerate(parents):
        last = parent not in parents[place + 1 :] and not original
        forked.append(held[parent] if last else [cache.copy() for cache in held[parent]])
    return forked


def require_room(beams: int, each: int, room: int) -> None:
    """Raise MemoryBudgetError where the caches of so many beams, ``each`` of so many bytes, do not fit into ``room`` bytes."""
    need = (1 + beams) * each
    if need > room:
        raise MemoryBudgetError(
            f"{beams} beams need {megabytes(need)} for their KV caches; the plan has room for {megabytes(room)}",
            hint="use fewer beams or a smaller max_tokens, or set aside more with a larger --context",
        )
