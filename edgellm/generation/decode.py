"""Prefill and decode: the one loop that everything else consumes."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx

from edgellm.device import machine as device
from edgellm.kv_cache.cache import Cache, stored
from edgellm.models.llama import Model
from edgellm.sampling.sampler import Sampler, log_probability
from edgellm.settings import Sampling
from edgellm.speculation.controller import Speculation
from edgellm.speculation.proposal import DraftToken


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
    passes: int = 0
    """Forwards after the prefill."""
    drafted: int = 0
    accepted: int = 0


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

    Layers that cost reads get all chunks at once, so that one pass over the weights serves any
    prompt; else the chunks go one after another, so that activations stay small and the prompt can
    be left half-way (the result is then None).
    """
    rows = [
        mx.array(list(tokens[begin : begin + chunk]))[None]
        for begin in range(0, len(tokens), chunk)
    ]
    groups = [rows] if model.layers.streams_weights else [[row] for row in rows]
    hidden = None
    for group in groups:
        if not keep_going():
            return None
        states = model.hidden(group, [caches] * len(group), keep_going=keep_going)
        if not states:
            return None
        hidden = states[-1]
        if progress is not None:
            progress.forwards += len(group)
            progress.prefill_done += sum(row.shape[1] for row in group)
        if group is not groups[-1]:
            mx.eval(hidden, *stored(caches))
    assert hidden is not None, "a prompt has a token"
    logits = model.logits(hidden[:, -1])
    # nothing stays lazy: MLX's streams belong to threads, and another may go on from here
    mx.eval(logits, *stored(caches))
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
    speculation: Speculation | None = None,
) -> Generator[Step]:
    """Yield up to ``limit`` new tokens after ``prompt``, whose last token at least is not yet in the caches.

    P prompt tokens and N new ones cost ceil(P / chunk) + N - 1 forwards at the most: the first
    token comes out of the prefill, no step is launched past the last one, and guesses that turn out
    to be right save forwards. Where arithmetic is deferred (a GPU), a step without guesses is
    launched before the token before it is read; a text that ends at an end token then costs one
    forward more.

    Args:
        limit: new tokens at the most; the caches have room for all of them but the last.
        progress: is brought up to date as the loop goes.
        keep_going: asked before each forward; false ends the loop.
        seen: all tokens so far, where the caches hold some already; the repetition penalty looks at
            them.
        speculation: has looked at the same tokens; None for plain decoding, which is speculation
            without guesses.
    """
    sampler = Sampler(sampling, seen or prompt, model.config.vocab_size, lazy=device.has_gpu())
    logits = prefill(model, prompt, caches, chunk=chunk, progress=progress, keep_going=keep_going)
    if logits is None:
        return
    progress.prefill_ended_at = time.perf_counter()
    steps = _Steps(model, caches, sampler, progress, keep_going)
    launched: _Launched | None = steps.first(logits)
    if speculation is not None:
        speculation.begin(seen or prompt, sampling)
    left, given, start = limit, 0, caches[0].offset
    try:
        while launched is not None:
            ahead = None
            if (
                left > 1
                and model.layers.async_compute
                and keep_going()
                and not (speculation and speculation.likely())
            ):
                ahead = steps.after(launched)
            begun = max(launched.begun, progress.last_token_at or 0.0)
            found = steps.read(launched)
            progress.last_token_at = time.perf_counter()
            progress.first_token_at = progress.first_token_at or progress.last_token_at
            if speculation is not None:
                if launched.rows:
                    speculation.passed(launched.rows, progress.last_token_at - begun)
                for step in found:
                    speculation.add(step.token)
            for place, step in enumerate(found, 1):
                given += 1
                progress.accepted += place < len(found)
                yield step
                left -= 1
                if left == 0 or not keep_going():
                    return
            if ahead is not None and speculation is not None:
                speculation.look_on()
            if ahead is None:
                ahead = steps.after(launched, speculation.guesses(left - 1) if speculation else ())
            launched = ahead
    finally:
        for cache in caches:  # who stops in mid-pass leaves what nobody has taken
            cache.trim(start + given)


@dataclass(slots=True)
class _Launched:
    """A pass that is under way.

    Attributes:
        rows: that it has; 0 for the prefill's last one.
        guesses: that it verifies.
        offset: tokens that were in the caches before it.
        logits: after each row (rows, V).
        token: the last of its tokens (1,); known only when it was read where there are guesses.
        logprob: that of the token, where there are no guesses and it was asked for.
    """

    rows: int
    guesses: Sequence[DraftToken]
    offset: int
    logits: mx.array
    token: mx.array | None
    logprob: mx.array | None = None
    begun: float = field(default_factory=time.perf_counter)


class _Steps:
    """Launches passes, each after the one before, and reads their tokens."""

    def __init__(
        self,
        model: Model,
        caches: Sequence[Cache],
        sampler: Sampler,
        progress: Progress,
        keep_going: Callable[[], bool],
    ) -> None:
        self._model, self._caches, self._sampler = model, caches, sampler
        self._progress, self._keep_going = progress, keep_going

    def first(self, logits: mx.array) -> _Launched:
        """What the prefill's logits (1, V) give."""
        return self._drawn(_Launched(0, (), self._caches[0].offset, logits, None))

    def after(self, before: _Launched, guesses: Sequence[DraftToken] = ()) -> _Launched | None:
        """A pass of the last token and some guesses after it; None if it was broken off, and the caches are as before."""
        assert before.token is not None, "a pass with guesses is read before the next is launched"
        token = before.token
        if guesses:
            token = mx.concatenate(
                [token, mx.array([guess.token for guess in guesses], dtype=token.dtype)]
            )
        offset, begun = self._caches[0].offset, time.perf_counter()
        states = self._model.hidden([token[None]], [self._caches], keep_going=self._keep_going)
        if not states:
            for cache in self._caches:
                cache.trim(offset)
            return None
        self._progress.forwards += 1
        self._progress.passes += 1
        self._progress.drafted += len(guesses)
        logits = self._model.logits(states[0][0])
        launched = _Launched(len(guesses) + 1, guesses, offset, logits, None, begun=begun)
        return launched if guesses else self._drawn(launched)

    def read(self, launched: _Launched) -> list[Step]:
        """The tokens of a pass: those of its guesses that are right, and one more. The caches forget the others."""
        if not launched.guesses:
            assert launched.token is not None, "it was drawn when it was launched"
            logprob = None if launched.logprob is None else float(_only(launched.logprob))
            return [Step(int(_only(launched.token)), logprob)]
        tokens = self._verified(launched.logits, launched.guesses)
        for cache in self._caches:
            kept = cache.trim(launched.offset + len(tokens))
            assert kept, "no more is guessed than every cache can take back"
        launched.token = mx.array(tokens[-1:])
        logprobs: list[float | None] = [None] * len(tokens)
        if self._sampler.sampling.logprobs:
            found: Any = log_probability(launched.logits[: len(tokens)], mx.array(tokens)).tolist()
            logprobs = found
        if self._sampler.seen is not None:
            mx.eval(self._sampler.seen)
        return list(map(Step, tokens, logprobs))

    def _drawn(self, launched: _Launched) -> _Launched:
        """The same, with its token drawn."""
        sampler = self._sampler
        launched.token = sampler(launched.logits)
        if sampler.sampling.logprobs:
            launched.logprob = log_probability(launched.logits, launched.token)
        mx.async_eval(
            *(
                array
                for array in (launched.token, launched.logprob, sampler.seen)
                if array is not None
            )
        )
        return launched

    def _verified(self, logits: mx.array, guesses: Sequence[DraftToken]) -> list[int]:
        """The tokens that logits (rows, V) give, up to the first that is not as guessed."""
        likeliest: Any = (
            mx.argmax(logits.astype(mx.float32), axis=-1).tolist()
            if self._sampler.plain_greedy
            else None
        )
        tokens: list[int] = []
        for row in range(len(guesses) + 1):
            guess = guesses[row] if row < len(guesses) else None
            if likeliest is not None:
                tokens.append(likeliest[row])
            elif guess is not None:
                tokens.append(self._sampler.judge(logits[row : row + 1], guess.token, guess.odds))
            else:
                tokens.append(int(_only(self._sampler(logits[row : row + 1]))))
            if guess is None or tokens[-1] != guess.token:
                break
        return tokens


def _only(array: mx.array) -> Any:
    """The number in an array of one."""
    values: Any = array.tolist()
    return values[0]
