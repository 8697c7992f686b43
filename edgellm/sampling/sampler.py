"""A sampler: logits in, the next token out.

On a GPU all of it stays lazy, so that nothing waits. On a CPU NumPy draws, for the reason that
``filters.py`` gives.
"""

# V vocabulary

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.errors import ConfigError
from edgellm.sampling.distribution import Distribution, distribution_of, draw_token
from edgellm.sampling.filters import (
    filter_logits,
    penalize_counted,
    penalize_repeated,
    select_candidates,
)
from edgellm.sampling.finite import require_finite
from edgellm.sampling.logprobs import Logprobs, logprobs_of
from edgellm.sampling.processors import TokensSoFar, make_processors
from edgellm.settings import Sampling
from edgellm.structured.constraint import Constraint

GREEDY = 1e-3
"""Temperatures below it take the likeliest token: quotients would leave the range of float32."""


@dataclass(frozen=True, slots=True)
class Draw:
    """Tokens that were drawn of N positions; on a GPU they may still have to be computed.

    Attributes:
        tokens: (N,).
        largest_logits: (N,) of the model's own, before any filter.
    """

    tokens: mx.array
    largest_logits: mx.array

    def read(self, position: int = 0) -> int:
        """Return a token; waits for it. Raises NotFiniteError where nothing could be drawn."""
        require_finite(np.array(self.largest_logits)[position])
        return int(np.array(self.tokens)[position])


class Sampler:
    """Draws the tokens of one sequence as ``Sampling`` says, and remembers which ones it has.

    Args:
        sampling: how.
        prompt: the tokens so far.
        vocab_size: logits of a position.
        lazy: whether tokens are drawn on the device, unevaluated; equal seeds then draw other
            tokens than without.
        constraint: holds the sequence to the grammar of ``sampling``; it belongs to this sampler.
    """

    def __init__(
        self,
        sampling: Sampling,
        prompt: Sequence[int],
        vocab_size: int,
        *,
        lazy: bool = True,
        constraint: Constraint | None = None,
    ) -> None:
        assert (constraint is None) == (sampling.grammar is None), "a grammar is never passed over"
        self.sampling = sampling
        self._lazy = lazy
        seed = sampling.seed
        if seed is None:
            seed = secrets.randbits(64)
        # One source of numbers per form: a key for MLX, a generator for NumPy.
        self._key = int(np.random.SeedSequence(seed).generate_state(1)[0])
        self._random = np.random.default_rng(seed)
        self._draws = 0
        self._processors = make_processors(sampling, vocab_size)
        self._constraint = constraint
        self._vocab_size = vocab_size
        self._tokens = TokensSoFar(())
        self.seen: mx.array | None = None
        """Which tokens (1, V) the repetition penalty looks at; None where there is no penalty."""
        self._counts: mx.array | None = None
        """How often the answer has each token (1, V); None where no penalty looks at it."""
        self.go_on(prompt, drawn=0)

    def go_on(self, tokens: Sequence[int], *, drawn: int) -> None:
        """Go on after these tokens, of which it has drawn the last ones; what came after is undone.

        Raises:
            EdgeLLMError: a grammar does not allow them.
        """
        self._draws = drawn
        new_tokens = np.asarray(tokens[len(tokens) - drawn :], dtype=np.int64)
        if self.reads_tokens:
            self._tokens = TokensSoFar(tokens)
        if self._constraint is not None:
            self._constraint.go_on(new_tokens.tolist())
        if self.sampling.repetition_penalty != 1.0:
            seen = np.zeros((1, self._vocab_size), dtype=np.bool_)
            seen[0, np.asarray(tokens, dtype=np.int64)] = True
            self.seen = mx.array(seen)
        if self.sampling.presence_penalty or self.sampling.frequency_penalty:
            counts = np.bincount(new_tokens, minlength=self._vocab_size)
            self._counts = mx.array(counts[None].astype(np.float32))

    def __call__(self, logits: mx.array) -> Draw:
        """Draw the next token for logits (1, V).

        Raises:
            ConfigError: a processor fails, or leaves no token that the grammar allows.
            EdgeLLMError: a grammar cannot be followed any further.
        """
        settings = self.sampling
        logits = logits.astype(mx.float32)
        largest = self._largest(logits)
        if self._constraint is not None and not math.isfinite(scalar(largest)):
            return Draw(mx.array([0]), largest)  # its reader gets the error
        logits = self._changed(logits)
        if settings.temperature < GREEDY:
            token = self._likeliest(logits)
        elif self._lazy:
            key = mx.array([self._key, self._draws], dtype=mx.uint32)
            kept = filter_logits(logits / settings.temperature, settings)
            token = mx.random.categorical(kept, key=key)
        else:
            token = mx.array([self._draw(np.array(logits)[0], largest)])
        self._record(token)
        return Draw(token, largest)

    def likeliest(self, logits: mx.array) -> Draw:
        """Take the likeliest token of each of N positions, for logits (N, V)."""
        logits = logits.astype(mx.float32)
        return Draw(self._likeliest(logits), self._largest(logits))

    def logprobs(self, logits: mx.array, tokens: mx.array) -> Logprobs:
        """Return the log-probabilities of tokens (N,) under the model's logits (N, V)."""
        return logprobs_of(logits, tokens, self.sampling.top_logprobs, lazy=self._lazy)

    def verify(self, logits: mx.array, draft_token: int, proposal: Distribution | None) -> int:
        """Return the next token for logits (1, V), distributed as if there were no draft token.

        It is the draft token as often as it can be.

        Args:
            logits: of the position.
            draft_token: the token that was proposed.
            proposal: what it was drawn from. Then it is accepted or refused by rejection sampling
                (Leviathan et al. 2023, arXiv:2211.17192; Chen et al. 2023, arXiv:2302.01318). None
                where it was not drawn: the next token is then drawn as always, and is the draft
                token as often as rejection sampling would accept it.

        Raises:
            NotFiniteError: nothing can be drawn.
            ConfigError: a logits processor fails.
        """
        if proposal is None or self.sampling.temperature < GREEDY:
            return self(logits).read()
        logits = logits.astype(mx.float32)
        require_finite(np.array(logits).max())
        row: npt.NDArray[np.float32] = np.array(self._changed(logits))[0]
        target = distribution_of(row, self.sampling)
        token = draft_token
        # accepted with the probability min(1, p / q); written as a product, since q may be 0
        threshold = self._random.random() * proposal.probability(draft_token)
        if threshold >= target.probability(draft_token):
            token = target.residual(proposal).sample(self._random.random())
        self._record(token)
        return token

    @property
    def pending(self) -> list[mx.array | None]:
        """Arrays by which it remembers tokens; on a GPU they may still have to be computed."""
        return [self.seen, self._counts]

    @property
    def has_ended(self) -> bool:
        """Whether the answer's grammar is complete, so that the last token is the last of all."""
        return self._constraint is not None and self._constraint.has_ended

    @property
    def plain_greedy(self) -> bool:
        """Whether the next token is the likeliest one of the model's, whatever came before."""
        is_greedy = self.sampling.temperature < GREEDY
        remembers = self.seen is not None or self._counts is not None or self.reads_tokens
        return is_greedy and not remembers and self._processors is None

    @property
    def reads_tokens(self) -> bool:
        """Whether a token can be drawn only when the one before it is known to Python."""
        if self._constraint is not None:
            return True
        return self._processors is not None and self._processors.reads_tokens

    def _changed(self, logits: mx.array) -> mx.array:
        """Return the logits (1, V) that a token is drawn from, of the model's own in float32."""
        settings = self.sampling
        if self._processors is not None:
            logits = self._processors(logits, self._tokens.array)
        logits = penalize_repeated(logits, self.seen, settings.repetition_penalty)
        logits = penalize_counted(logits, self._counts, settings)
        if self._constraint is not None:
            logits = _held(logits, self._constraint.ceiling())
        return logits

    def _draw(self, logits: npt.NDArray[np.float32], largest: mx.array) -> int:
        """Draw a token from logits (V,); 0 where nothing can be: ``Draw.read`` says so."""
        if not math.isfinite(scalar(largest)):
            return 0
        temperature = np.float32(self.sampling.temperature)
        tokens, weights = select_candidates(logits / temperature, self.sampling)
        return draw_token(tokens, weights, self._random.random())

    def _largest(self, logits: mx.array) -> mx.array:
        """Return the largest of each row of logits (N, V); where one is not a number, that."""
        if self._lazy:
            return mx.max(logits, axis=-1)
        # on a CPU NumPy takes 5 us for a vocabulary of 32,000, MLX 60
        return mx.array(np.array(logits, copy=False).max(axis=-1))

    def _likeliest(self, logits: mx.array) -> mx.array:
        """Return the place of the largest of each row of logits (N, V)."""
        if self._lazy:
            return mx.argmax(logits, axis=-1)
        return mx.array(np.array(logits, copy=False).argmax(axis=-1))

    def _record(self, token: mx.array | int) -> None:
        self._draws += 1
        if self.reads_tokens:
            self._tokens.add(int(np.array(token).item()))
        if self._constraint is not None:
            self._constraint.add(int(np.array(token).item()))
        if self.seen is not None:
            self.seen[0, token] = True
        if self._counts is not None:
            self._counts[0, token] += 1.0


def _held(logits: mx.array, ceiling: npt.NDArray[np.float32]) -> mx.array:
    """Return logits (1, V), none above the ceiling (V,) of a grammar, which is overwritten.

    Raises:
        ConfigError: no token is left.
    """
    # in NumPy, where the ceiling comes from
    held = np.minimum(np.array(logits, copy=False), ceiling[None], out=ceiling[None])
    if not np.isfinite(held.max()):
        raise ConfigError(
            "no token is left: all that the grammar allows are banned by logit_bias or a logits"
            " processor",
            hint="leave the bias out, or allow more in the grammar",
        )
    return mx.array(held)


def scalar(array: mx.array) -> Any:
    """Return the number in an array of one; waits for it."""
    return array.item()
