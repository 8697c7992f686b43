"""A small model as a drafter of a large one. It stays in memory, with a KV cache of its own."""

# V vocabulary

from __future__ import annotations

from collections.abc import Iterator, Sequence

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.kv_cache.cache import Cache, stored
from edgellm.models.model import Model
from edgellm.sampling.distribution import distribution_of
from edgellm.sampling.filters import penalize_repeated
from edgellm.sampling.finite import require_finite
from edgellm.sampling.processors import bias_row
from edgellm.sampling.sampler import GREEDY
from edgellm.settings import Sampling
from edgellm.speculation.proposal import DraftToken

CONFIDENCE_BUCKETS = 10
"""Steps in which the draft's own probability says how sure a token is."""

CATCH_UP_TOKENS = 32
"""A draft that is further behind catches up apart, so that it is not a draft token's time."""


class DraftModel:
    """Proposes tokens with a model.

    Its caches go along with the sequence: what it proposed and the sequence did not take is
    trimmed.

    Args:
        model: the draft; all of it in memory.
        caches: its caches, with room for ``context`` tokens.
        context: tokens up to which it proposes.
        prefill_chunk: tokens that go through it at once.
        vocab_size: the vocabulary of the model that verifies.
    """

    costs_time = True
    reads_logits = False
    prior_acceptance: tuple[float, ...] = tuple(
        (step + 0.5) / CONFIDENCE_BUCKETS for step in range(CONFIDENCE_BUCKETS)
    )
    """A draft is assumed to be as sure as it should be: the middle of each bucket."""

    def __init__(
        self,
        model: Model,
        caches: Sequence[Cache],
        *,
        context: int,
        prefill_chunk: int,
        vocab_size: int,
    ) -> None:
        self._model = model
        self._caches = caches
        self._context = context
        self._prefill_chunk = prefill_chunk
        # Embeddings may be padded to different sizes; behind the shorter one are no tokens.
        self._vocabulary = min(vocab_size, model.config.vocab_size)
        self._tokens: list[int] = []
        self._cached: list[int] = []
        # Of the tokens in the caches, how many are known to be the sequence's.
        self._common = 0
        self._sampling = Sampling()
        self._random: np.random.Generator | None = None
        self._seen: npt.NDArray[np.bool_] | None = None
        self._bias: npt.NDArray[np.float32] | None = None

    def begin(self, tokens: Sequence[int], sampling: Sampling) -> None:
        """Turn to another sequence.

        Where its tokens are drawn, so are the proposed ones. With a seed the likeliest token is
        proposed instead: the text is then the one that the seed draws without a draft.
        """
        self._tokens = list(tokens)
        self._sampling = sampling
        self._common = 0
        self._random = None
        if sampling.temperature >= GREEDY and sampling.seed is None:
            self._random = np.random.default_rng()
        self._bias = None
        if sampling.logit_bias:
            self._bias = bias_row(sampling, self._vocabulary)
        self._seen = None
        if sampling.repetition_penalty != 1.0:
            self._seen = np.zeros(self._vocabulary, np.bool_)
            self._seen[[token for token in tokens if token < self._vocabulary]] = True

    def add(self, token: int) -> None:
        """Take the next token of the sequence."""
        self._tokens.append(token)
        if self._seen is not None and token < self._vocabulary:
            self._seen[token] = True

    def catch_up(self) -> None:
        """Send tokens of the sequence through the draft, all but the last, if they are many."""
        self._trim_to_sequence()
        end = len(self._tokens) - 1
        is_far_behind = end - len(self._cached) > CATCH_UP_TOKENS
        if not is_far_behind or len(self._tokens) > self._context:
            return
        # evaluated chunk by chunk, so that activations stay small
        for begin in range(len(self._cached), end, self._prefill_chunk):
            self._forward(self._tokens[begin : min(end, begin + self._prefill_chunk)])
            mx.eval(*stored(self._caches))

    def propose(self) -> Iterator[DraftToken]:
        """Yield the next tokens, a pass through the draft each, until its context is full."""
        self._trim_to_sequence()
        new = self._tokens[len(self._cached) :]
        seen = self._seen
        if seen is not None:
            seen = seen.copy()  # proposed tokens count as seen only within this proposal
        while len(self._cached) + len(new) <= self._context and self._has_embeddings(new):
            draft = self._draft_token(self._forward(new), seen)
            if seen is not None:
                seen[draft.token] = True
            yield draft
            new = [draft.token]

    def learn(self, tokens: Sequence[int], logits: npt.NDArray[np.float32]) -> None:
        """Do nothing: it has logits of its own."""

    def close(self) -> None:
        """Let the weights go."""
        self._model.layers.close()
        self._caches = ()

    def _has_embeddings(self, tokens: Sequence[int]) -> bool:
        return max(tokens) < self._model.config.vocab_size

    def _trim_to_sequence(self) -> None:
        """Trim the caches to what they have in common with the sequence.

        Its last token is computed again, for the logits after it.
        """
        end = min(len(self._cached), len(self._tokens) - 1)
        while self._common < end and self._cached[self._common] == self._tokens[self._common]:
            self._common += 1
        common = min(self._common, end)
        if not all(cache.trim(common) for cache in self._caches):
            # a window has moved past what would be looked at again
            common = 0
            for cache in self._caches:
                cache.trim(0)
        del self._cached[common:]

    def _forward(self, tokens: Sequence[int]) -> mx.array:
        """Send tokens through the draft; return the logits (1, V) after the last."""
        hidden = self._model.hidden([mx.array([tokens])], [self._caches])[0]
        self._cached += tokens
        return self._model.logits(hidden[:, -1])

    def _draft_token(self, logits: mx.array, seen: npt.NDArray[np.bool_] | None) -> DraftToken:
        """Propose a token from logits (1, V): drawn where tokens are drawn, else the likeliest."""
        row: npt.NDArray[np.float32] = np.array(logits.astype(mx.float32))[0, : self._vocabulary]
        require_finite(row.max(), "the draft model")
        if self._bias is not None:
            row = row + self._bias
        row = penalize_repeated(row, seen, self._sampling.repetition_penalty)
        if self._random is not None:
            proposal = distribution_of(row, self._sampling)
            token = proposal.sample(self._random.random())
            return DraftToken(token, _bucket(proposal.probability(token)), proposal)
        token = int(row.argmax())
        # softmax of the largest logit: 1 / sum exp(x - x_max)
        return DraftToken(token, _bucket(1.0 / float(np.exp(row - row[token]).sum())))


def _bucket(probability: float) -> int:
    return min(CONFIDENCE_BUCKETS - 1, int(probability * CONFIDENCE_BUCKETS))
