"""Prompt lookup: draft tokens from what followed the last tokens earlier in the same text.

The idea is that of prompt lookup decoding (Saxena 2023) and of n-gram speculation in vLLM.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from edgellm.settings import Sampling
from edgellm.speculation.proposal import DraftToken

PAIR = 2
"""Tokens that must have occurred together before; after one alone too much can follow."""

MAX_MATCH = 12
"""Tokens back to which a match is followed; its length is the confidence of what follows."""

MAX_CANDIDATES = 16
"""Earlier places that are compared, the latest first."""


class NGramDrafter:
    """Finds the longest run of last tokens that came before, and proposes what followed.

    Of equally long runs the latest counts. Proposals go on past the end of the text with what was
    proposed, so a text that repeats itself is followed for ever.
    """

    costs_time = False
    reads_logits = False
    prior_acceptance: tuple[float, ...] = tuple(
        min(0.85, 0.15 + 0.1 * length) for length in range(MAX_MATCH + 1)
    )
    """By the length of the match."""

    def __init__(self) -> None:
        self._tokens: list[int] = []
        # For each pair of tokens, the places just behind where it has occurred, in their order.
        self._places: defaultdict[tuple[int, int], list[int]] = defaultdict(list)

    def begin(self, tokens: Sequence[int], sampling: Sampling) -> None:
        """Turn to another sequence. How its tokens are drawn plays no part."""
        self._tokens = list(tokens)
        self._places.clear()
        for place, pair in enumerate(pairwise(tokens), PAIR):
            self._places[pair].append(place)

    def add(self, token: int) -> None:
        """Take the next token of the sequence."""
        self._tokens.append(token)
        if len(self._tokens) >= PAIR:
            self._places[self._tokens[-2], self._tokens[-1]].append(len(self._tokens))

    def close(self) -> None:
        """Forget the sequence."""
        self.begin((), Sampling())

    def catch_up(self) -> None:
        """Do nothing: tokens are indexed as they come."""

    def learn(self, tokens: Sequence[int], logits: npt.NDArray[np.float32]) -> None:
        """Do nothing: the text is all that it looks at."""

    def propose(self) -> Iterator[DraftToken]:
        """Yield what comes next, if the last tokens have occurred before."""
        tokens = self._tokens
        end = len(tokens)
        length, place = self._longest_match()
        if length == 0:
            return
        proposed: list[int] = []
        while True:
            if place < end:
                token = tokens[place]
            else:
                token = proposed[place - end]
            proposed.append(token)
            yield DraftToken(token, min(length, MAX_MATCH))
            place += 1
            length += 1

    def _longest_match(self) -> tuple[int, int]:
        """Return the length of the best match and the place just behind it; (0, 0) for none."""
        best_length, best_place = 0, 0
        if len(self._tokens) <= PAIR:
            return best_length, best_place
        # the last place of the pair is the end of the text itself
        earlier = self._places[self._tokens[-2], self._tokens[-1]][-MAX_CANDIDATES - 1 : -1]
        for place in reversed(earlier):
            length = self._match_length(place)
            if length > best_length:
                best_length, best_place = length, place
            if best_length == MAX_MATCH:
                break
        return best_length, best_place

    def _match_length(self, place: int) -> int:
        """Return how many tokens before ``place`` equal those at the end, up to ``MAX_MATCH``."""
        tokens = self._tokens
        limit = min(MAX_MATCH, place)
        length = PAIR
        while length < limit and tokens[place - length - 1] == tokens[-length - 1]:
            length += 1
        return length
