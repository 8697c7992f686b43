"""A sampler: logits in, the next token out.

On a GPU all of it stays lazy, so that nothing waits. On a CPU NumPy draws, for the reason that
``filters.py`` gives.
"""

# V vocabulary

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.sampling.distribution import Distribution, distribution_of, draw_token
from edgellm.sampling.filters import filter_logits, penalize_repeated, select_candidates
from edgellm.settings import Sampling

GREEDY = 1e-3
"""Temperatures below it take the likeliest token: quotients would leave the range of float32."""


class Sampler:
    """Draws the tokens of one sequence as ``Sampling`` says, and remembers which ones it has.

    Args:
        sampling: how.
        prompt: the tokens so far.
        vocab_size: logits of a position.
        lazy: whether tokens are drawn on the device, unevaluated; equal seeds then draw other
            tokens than without.
    """

    def __init__(
        self, sampling: Sampling, prompt: Sequence[int], vocab_size: int, *, lazy: bool = True
    ) -> None:
        self.sampling = sampling
        self._lazy = lazy
        seed = sampling.seed
        if seed is None:
            seed = secrets.randbits(64)
        # One source of numbers a form: a key for MLX, a generator for NumPy.
        self._key = int(np.random.SeedSequence(seed).generate_state(1)[0])
        self._random = np.random.default_rng(seed)
        self._draws = 0
        self.seen: mx.array | None = None
        """Which tokens (1, V) the repetition penalty looks at; None where there is no penalty."""
        if sampling.repetition_penalty != 1.0:
            seen = np.zeros((1, vocab_size), dtype=np.bool_)
            seen[0, np.asarray(prompt, dtype=np.int64)] = True
            self.seen = mx.array(seen)

    def __call__(self, logits: mx.array) -> mx.array:
        """Return the next token (1,) for logits (1, V)."""
        settings = self.sampling
        logits = logits.astype(mx.float32)
        logits = penalize_repeated(logits, self.seen, settings.repetition_penalty)
        if settings.temperature < GREEDY:
            token = mx.argmax(logits, axis=-1)
        elif self._lazy:
            key = mx.array([self._key, self._draws], dtype=mx.uint32)
            kept = filter_logits(logits / settings.temperature, settings)
            token = mx.random.categorical(kept, key=key)
        else:
            row: npt.NDArray[np.float32] = np.array(logits)[0]  # (V,)
            tokens, weights = select_candidates(row / np.float32(settings.temperature), settings)
            token = mx.array([draw_token(tokens, weights, self._random.random())])
        self._record(token)
        return token

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
        """
        if proposal is None or self.sampling.temperature < GREEDY:
            return int(scalar(self(logits)))
        row: npt.NDArray[np.float32] = np.array(logits.astype(mx.float32))[0]
        seen = None
        if self.seen is not None:
            seen = np.array(self.seen)[0]
        target = distribution_of(row, self.sampling, seen)
        token = draft_token
        # accepted with the probability min(1, p / q); written as a product, since q may be 0
        threshold = self._random.random() * proposal.probability(draft_token)
        if threshold >= target.probability(draft_token):
            token = target.residual(proposal).sample(self._random.random())
        self._record(token)
        return token

    @property
    def plain_greedy(self) -> bool:
        """Whether the next token is the likeliest one, whatever came before."""
        return self.sampling.temperature < GREEDY and self.seen is None

    def _record(self, token: mx.array | int) -> None:
        self._draws += 1
        if self.seen is not None:
            self.seen[0, token] = True


def scalar(array: mx.array) -> Any:
    """Return the number in an array of one; waits for it."""
    return array.item()
