"""Token recycling: draft trees of what the model itself has held likely after each token.

Every row of a pass, also one that was refused, gives logits, of which most are never used. The
likeliest tokens of each are remembered as followers of the row's token, and the next draft is a
tree of followers of followers (Luo et al. 2024, arXiv:2408.08696). What prompt lookup finds is a
branch of the same tree. It costs no pass of any model.
"""

# V vocabulary, L rows

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edgellm.settings import Sampling
from edgellm.speculation.ngram import NGramDrafter
from edgellm.speculation.proposal import ROOT, DraftToken

FOLLOWERS = 8
"""Tokens that are remembered after each."""

MAX_LEARNED = 1 << 14
"""Tokens whose followers are remembered, of 0.9 KB each: a vocabulary of 128,000 would take 110 MB
that no budget counts."""

MIN_PROBABILITY = 1 / 256
"""Of a follower; it would hardly ever be among 15 draft tokens."""

STEPS = 10
"""Confidence buckets of followers, by their probability; those of prompt lookup come after them."""


class _Candidate(NamedTuple):
    """A draft token that may be the next of a proposal; the least is the likeliest.

    Attributes:
        cost: minus how likely it is that it is accepted, by the assumed rates.
        order: the parent and the rank among its followers; no two are equal.
        draft: the token.
        run: what prompt lookup proposes after it, where it proposes the token itself.
    """

    cost: float
    order: tuple[int, int]
    draft: DraftToken
    run: Iterator[DraftToken] | None


class RecyclingDrafter:
    """Proposes a tree of tokens that followed one another in earlier logits.

    The likeliest come first. What it has learned is of the model, and stays from text to text.
    """

    costs_time = False
    reads_logits = True
    prior_acceptance: tuple[float, ...] = (
        *((step + 0.5) / STEPS for step in range(STEPS)),
        *NGramDrafter.prior_acceptance,
    )

    def __init__(self) -> None:
        self._ngrams = NGramDrafter()
        self._last: int | None = None
        # of each token, those that may follow, the likeliest first, with their probabilities
        self._followers: dict[int, list[tuple[int, float]]] = {}

    def begin(self, tokens: Sequence[int], sampling: Sampling) -> None:
        """Turn to another sequence. How its tokens are drawn plays no part."""
        self._ngrams.begin(tokens, sampling)
        self._last = None
        if tokens:
            self._last = tokens[-1]

    def add(self, token: int) -> None:
        """Take the next token of the sequence."""
        self._ngrams.add(token)
        self._last = token

    def close(self) -> None:
        """Forget the sequence and what was learned."""
        self._ngrams.close()
        self._followers.clear()

    def catch_up(self) -> None:
        """Do nothing: tokens and logits are taken as they come."""

    def learn(self, tokens: Sequence[int], logits: npt.NDArray[np.float32]) -> None:
        """Remember the likeliest tokens after each, for logits (L, V)."""
        # (L,): where several rows have the same token, the last counts
        largest = logits.max(axis=1)
        for token, row, most in zip(tokens, logits, largest, strict=True):
            if math.isfinite(most):
                # what was learned last is at the end
                self._followers.pop(token, None)
                self._followers[token] = _likeliest(row, most)
        while len(self._followers) > MAX_LEARNED:
            del self._followers[next(iter(self._followers))]

    def propose(self) -> Iterator[DraftToken]:
        """Yield a tree, its tokens in the order of how likely they are accepted."""
        if self._last is None:
            return
        waiting: list[_Candidate] = []
        number = 0
        for candidate in self._candidates(self._last, 1.0, ROOT, self._ngrams.propose()):
            heapq.heappush(waiting, candidate)
        while waiting:
            cost, _, draft, run = heapq.heappop(waiting)
            yield draft
            for candidate in self._candidates(draft.token, -cost, number, run):
                heapq.heappush(waiting, candidate)
            number += 1

    def _candidates(
        self, token: int, accepted: float, parent: int, run: Iterator[DraftToken] | None
    ) -> Iterator[_Candidate]:
        """Yield what may follow a token.

        Args:
            token: the token.
            accepted: how likely it is accepted.
            parent: its place in the proposal.
            run: what prompt lookup proposes next; None where it has not proposed the token.
        """
        found = None
        if run is not None:
            found = next(run, None)
        if found is not None:
            bucket = STEPS + found.confidence_bucket
            draft = DraftToken(found.token, bucket, parent=parent)
            yield self._candidate(draft, accepted, FOLLOWERS, run)
        for rank, (follower, probability) in enumerate(self._followers.get(token, ())):
            if found is None or follower != found.token:
                bucket = min(STEPS - 1, int(probability * STEPS))
                draft = DraftToken(follower, bucket, parent=parent)
                yield self._candidate(draft, accepted, rank, None)

    def _candidate(
        self, draft: DraftToken, accepted: float, rank: int, run: Iterator[DraftToken] | None
    ) -> _Candidate:
        assert draft.parent is not None, "each has its parent"
        rate = self.prior_acceptance[draft.confidence_bucket]
        return _Candidate(-accepted * rate, (draft.parent, rank), draft, run)


def _likeliest(logits: npt.NDArray[np.float32], largest: np.float32) -> list[tuple[int, float]]:
    """Return the likeliest tokens for logits (V,), with their probabilities, likeliest first."""
    total = float(np.exp(logits - largest).sum())
    # softmax(x) >= p means x >= x_max + log(p * total)
    (tokens,) = np.nonzero(logits >= largest + math.log(MIN_PROBABILITY * total))
    probabilities = np.exp(logits[tokens] - largest) / total
    order = np.argsort(-probabilities)[:FOLLOWERS]
    return list(zip(tokens[order].tolist(), probabilities[order].tolist(), strict=True))
