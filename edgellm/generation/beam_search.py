"""Beam search: several continuations side by side; the best mean log-probability is kept.

The rules are those of transformers with ``length_penalty=1`` and ``early_stopping=False``: a
finished continuation is worth its log-probability divided by its length, and the search ends when
no running one can still beat the worst of the finished.
"""

# N running beams, V vocabulary, E hidden

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.console.units import size
from edgellm.errors import MemoryBudgetError
from edgellm.generation.decode import Step
from edgellm.generation.not_finite import require_finite_logits
from edgellm.generation.prefill import prefill
from edgellm.generation.stats import Progress
from edgellm.kv_cache.cache import Cache, stored
from edgellm.memory_plan.plan import caches_of
from edgellm.models.model import Model
from edgellm.sampling.filters import penalize_counted, penalize_repeated
from edgellm.sampling.logprobs import TokenLogprob, log_probabilities, logprobs_of
from edgellm.sampling.processors import LogitsProcessors, make_processors
from edgellm.settings import Sampling


@dataclass(frozen=True, slots=True)
class _Beam:
    """A continuation.

    Attributes:
        tokens: its new tokens.
        logprobs: the model's log-probability of each, with the likeliest tokens in its place.
        score: the sum that it is ranked by, after logits processors and the penalty.
        parent: the place among the beams before it that it continues.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...]
    score: np.float32
    parent: int = 0

    @property
    def mean_score(self) -> np.float32:
        return np.float32(self.score / len(self.tokens))


@dataclass(frozen=True, slots=True)
class _Candidates:
    """Finds the best continuations of beams by a token.

    Attributes:
        sampling: what is done to log-probabilities before they are ranked.
        processors: what ``sampling`` has of them.
        seen: the tokens before the new ones.
        width: how many continuations are looked at.
    """

    sampling: Sampling
    processors: LogitsProcessors | None
    seen: Sequence[int]
    width: int

    def best(self, running: Sequence[_Beam], logits: mx.array) -> list[_Beam]:
        """Return the best continuations, best first, for logits (N, V) after each of N beams."""
        logprobs = log_probabilities(logits)
        scores = mx.array(np.array([[beam.score] for beam in running], np.float32))  # (N, 1)
        ranked = (self._processed(running, logprobs) + scores).flatten()  # (N * V,)
        width = min(self.width, ranked.size)
        best = mx.argpartition(-ranked, kth=width - 1)[:width]
        places: list[int] = np.array(best).tolist()
        best_scores: npt.NDArray[np.float32] = np.array(ranked[best])
        best_logprobs: npt.NDArray[np.float32] = np.array(logprobs.flatten()[best])
        tops = self._likeliest(logits)
        beams = []
        # of equal scores the earlier place comes first, so that the order repeats
        for rank in sorted(range(width), key=lambda item: (-best_scores[item], places[item])):
            if not np.isfinite(best_scores[rank]):
                continue  # a processor has banned it
            parent, token = divmod(places[rank], logits.shape[-1])
            before = running[parent]
            tokens = (*before.tokens, token)
            logprob = TokenLogprob(float(best_logprobs[rank]), tops[parent])
            beams.append(_Beam(tokens, (*before.logprobs, logprob), best_scores[rank], parent))
        return beams

    def _likeliest(self, logits: mx.array) -> list[tuple[tuple[int, float], ...]]:
        """Return the likeliest tokens after each of N beams, where they are asked for."""
        top = self.sampling.top_logprobs
        if not top:
            return [()] * len(logits)
        any_tokens = mx.zeros(len(logits), mx.int32)
        return [one.top for one in logprobs_of(logits, any_tokens, top, lazy=False).read()]

    def _processed(self, running: Sequence[_Beam], logprobs: mx.array) -> mx.array:
        """Return what beams are ranked by, of log-probabilities (N, V), as transformers does."""
        if self.processors is not None:
            rows = [
                self.processors(
                    logprobs[row : row + 1], np.array([*self.seen, *beam.tokens], np.intc)
                )
                for row, beam in enumerate(running)
            ]
            logprobs = mx.concatenate(rows)
        sampling = self.sampling
        if sampling.repetition_penalty != 1.0:
            is_seen = np.zeros(logprobs.shape, np.bool_)
            for row, beam in enumerate(running):
                is_seen[row, [*self.seen, *beam.tokens]] = True
            logprobs = penalize_repeated(logprobs, mx.array(is_seen), sampling.repetition_penalty)
        if sampling.presence_penalty or sampling.frequency_penalty:
            counts = np.zeros(logprobs.shape, np.float32)
            for row, beam in enumerate(running):
                np.add.at(counts[row], list(beam.tokens), 1.0)
            logprobs = penalize_counted(logprobs, mx.array(counts), sampling)
        return logprobs


def beam_steps(
    model: Model,
    prompt: Sequence[int],
    caches: Sequence[Cache],
    sampling: Sampling,
    *,
    prefill_chunk: int,
    limit: int,
    progress: Progress,
    keep_going: Callable[[], bool],
    seen: Sequence[int],
    ends: Callable[[tuple[int, ...]], bool],
    end_tokens: int,
    on_states: Callable[[mx.array], None] | None = None,
) -> Generator[Step]:
    """Yield the best continuation of up to ``limit`` tokens, once it is found.

    The last step has all that were kept.

    All beams go through a layer together: a token costs one pass over the weights. ``caches`` are
    left with the prompt alone.

    Args:
        model, prompt, caches, sampling, prefill_chunk, limit, progress, seen, on_states: as
            ``generate_steps`` has them.
        keep_going: asked after each token; where it says no, the best continuation so far counts.
        ends: whether these new tokens are a finished text.
        end_tokens: how many tokens end a text; that many more candidates are looked at, so that
            enough of them go on.
    """
    logits = prefill(
        model,
        prompt,
        caches,
        prefill_chunk=prefill_chunk,
        progress=progress,
        keep_going=keep_going,
        on_states=on_states,
    )
    if logits is None:
        return
    progress.first_token_at = progress.prefill_ended_at
    # Transformers looks at as many: each beam may end in each of the end tokens.
    width = max(2, 1 + end_tokens) * sampling.beams
    processors = make_processors(sampling, model.config.vocab_size)
    candidates = _Candidates(sampling, processors, seen, width)
    beam_caches = [list(caches)]
    running = [_Beam((), (), np.float32(0))]
    finished: list[_Beam] = []
    for length in range(1, limit + 1):
        continuing: list[_Beam] = []
        require_finite_logits(mx.max(logits, axis=-1), *beam_caches)
        for rank, beam in enumerate(candidates.best(running, logits)):
            if length < limit and not ends(beam.tokens):
                continuing.append(beam)
            # a worse one is looked at only so that enough of them go on
            elif rank < sampling.beams:
                finished.append(beam)
        finished = sorted(finished, key=lambda beam: -beam.mean_score)[: sampling.beams]
        running = continuing[: sampling.beams]
        if not running or _is_settled(running, finished, sampling.beams) or not keep_going():
            break
        parents = [beam.parent for beam in running]
        beam_caches = _forked(beam_caches, parents, keep_original=length == 1)
        # copies are made before a parent's memory is written to
        mx.eval(*_arrays(beam_caches))
        hidden = model.hidden([mx.array([beam.tokens[-1:]]) for beam in running], beam_caches)
        logits = model.logits(
            mx.concatenate([state[:, -1] for state in hidden])
        )  # (N, E) -> (N, V)
        mx.eval(logits, *_arrays(beam_caches))
        progress.forwards += len(running)
        progress.decode_passes += 1
    progress.record_token()
    yield from _steps(finished or running, with_logprobs=sampling.logprobs)


def _steps(beams: Sequence[_Beam], *, with_logprobs: bool) -> Generator[Step]:
    """Yield the tokens of the first of some beams; all of them come with the last one."""
    logprobs: Sequence[TokenLogprob | None] = beams[0].logprobs
    if not with_logprobs:
        logprobs = [None] * len(logprobs)
    *tokens, last = beams[0].tokens
    yield from map(Step, tokens, logprobs)
    yield Step(last, logprobs[-1], [(beam.tokens, float(beam.mean_score)) for beam in beams])


def require_memory(beams: int, cache_bytes: int, free_bytes: int) -> None:
    """Raise MemoryBudgetError where the caches of some beams do not fit into ``free_bytes``.

    Args:
        beams: how many there are; the prompt's own caches come on top.
        cache_bytes: bytes of each.
        free_bytes: what the budget has for caches.
    """
    needed = caches_of(beams) * cache_bytes
    if needed > free_bytes:
        raise MemoryBudgetError(
            f"{beams} beams need {size(needed)} for their KV caches;"
            f" the plan has room for {size(free_bytes)}",
            hint=f"use fewer beams or a smaller max_tokens, or load the model with beams={beams}",
        )


def _is_settled(running: Sequence[_Beam], finished: Sequence[_Beam], beams: int) -> bool:
    """Return whether no running beam can still beat the worst of enough finished ones."""
    return len(finished) == beams and bool(running[0].mean_score <= finished[-1].mean_score)


def _forked(
    beam_caches: Sequence[list[Cache]], parents: Sequence[int], *, keep_original: bool
) -> list[list[Cache]]:
    """Return caches that continue those of each parent.

    They are copies, except for a parent's last child, which goes on with the parent's own. With
    ``keep_original`` that is a copy too.
    """
    forked = []
    for place, parent in enumerate(parents):
        is_last_child = parent not in parents[place + 1 :]
        if is_last_child and not keep_original:
            forked.append(beam_caches[parent])
        else:
            forked.append([cache.copy() for cache in beam_caches[parent]])
    return forked


def _arrays(beam_caches: Iterable[Sequence[Cache]]) -> list[mx.array]:
    return [array for caches in beam_caches for array in stored(caches)]
