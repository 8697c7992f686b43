"""Prefill and decode: the one loop that everything else consumes."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx

from edgellm import device
from edgellm.cache import Cache, stored
from edgellm.config import Sampling
from edgellm.model import Model
from edgellm.sampling import Sampler, log_probability


@dataclass(frozen=True, slots=True)
class Step:
    """One new token, and its log-probability where it was asked for."""

    token: int
    logprob: float | None


@dataclass(slots=True)
class Progress:
    """What a generation has done so far. Times are in seconds, from ``time.perf_counter``."""

    prompt_tokens: int
    begun: float = field(default_factory=time.perf_counter)
    prefill_done: int = 0
    prefill_ended_at: float | None = None
    first_token_at: float | None = None
    last_token_at: float | None = None
    forwards: int = 0


def prefill(
    model: Model,
    tokens: Sequence[int],
    caches: Sequence[Cache],
    *,
    chunk: int,
    progress: Progress | None = None,
    keep_going: Callable[[], bool] = lambda: True,
) -> mx.array | None:
    """Send a prompt through the model in chunks, and return the logits (1, V) after its last token.

    Layers that cost reads get all chunks at once, so that one pass over the weights serves any prompt; else the chunks go one
    after another, so that activations stay small and the prompt can be left half-way (the result is then None).
    """
    rows = [mx.array(list(tokens[begin : begin + chunk]))[None] for begin in range(0, len(tokens), chunk)]
    groups = [rows] if model.layers.one_pass else [[row] for row in rows]
    hidden = None
    for group in groups:
        if not keep_going():
            return None
        hidden = model.hidden(group, [caches] * len(group))[-1]
        if progress is not None:
            progress.forwards += len(group)
            progress.prefill_done += sum(row.shape[1] for row in group)
        if group is not groups[-1]:
            mx.eval(hidden, *stored(caches))
    assert hidden is not None, "a prompt has a token"
    logits = model.logits(hidden[:, -1])
    mx.eval(logits, *stored(caches))  # nothing stays lazy: MLX's streams belong to threads, and another may go on from here
    return logits


def generate_steps(
    model: Model,
    prompt: Sequence[int],
    caches: Sequence[Cache],
    sampling: Sampling,
    *,
    chunk: int,
    limit: int,
    progress: Progress,
    keep_going: Callable[[], bool] = lambda: True,
    seen: Sequence[int] | None = None,
) -> Generator[Step]:
    """Yield up to ``limit`` new tokens after ``prompt``, whose last token at least is not yet in the caches.

    P prompt tokens and N new ones cost ceil(P / chunk) + N - 1 forwards: the first token comes out of the prefill, and no step
    is launched past the last one. Where arithmetic is deferred (a GPU), step t + 1 is launched before token t is read; a
    text that ends at an end token then costs one forward more.

    Args:
        limit: new tokens at the most; the caches have room for all of them but the last.
        progress: is brought up to date as the loop goes.
        keep_going: asked before each forward; false ends the loop.
        seen: all tokens so far, where the caches hold some already; the repetition penalty looks at them.
    """
    sampler = Sampler(sampling, seen or prompt, model.config.vocab_size, lazy=device.has_gpu())
    logits = prefill(model, prompt, caches, chunk=chunk, progress=progress, keep_going=keep_going)
    if logits is None:
        return
    progress.prefill_ended_at = time.perf_counter()
    token, logprob = _draw(sampler, logits, sampling)
    ahead: tuple[mx.array, mx.array | None] | None = None
    for number in range(1, limit + 1):
        if number < limit and model.layers.deferred and keep_going():
            ahead = _step(model, token, caches, sampler, sampling)
            progress.forwards += 1
        value = int(_only(token))
        progress.last_token_at = time.perf_counter()
        progress.first_token_at = progress.first_token_at or progress.last_token_at
        yield Step(value, None if logprob is None else float(_only(logprob)))
        if number == limit or not keep_going():
            return
        if ahead is None:
            ahead = _step(model, token, caches, sampler, sampling)
            progress.forwards += 1
        (token, logprob), ahead = ahead, None


def _step(
    model: Model, token: mx.array, caches: Sequence[Cache], sampler: Sampler, sampling: Sampling
) -> tuple[mx.array, mx.array | None]:
    hidden = model.hidden([token[None]], [caches])[0]
    return _draw(sampler, model.logits(hidden[:, -1]), sampling)


def _draw(sampler: Sampler, logits: mx.array, sampling: Sampling) -> tuple[mx.array, mx.array | None]:
    token = sampler(logits)
    logprob = log_probability(logits, token) if sampling.logprobs else None
    mx.async_eval(*(array for array in (token, logprob, sampler.seen) if array is not None))
    return token, logprob


def _only(array: mx.array) -> Any:
    """The number in an array of one."""
    values: Any = array.tolist()
    return values[0]
