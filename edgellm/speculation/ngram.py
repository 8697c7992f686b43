"""What a text has said before: guesses of the next tokens by looking up the last ones, earlier in the same text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise

from edgellm.settings import Sampling
from edgellm.speculation.proposal import DraftToken

PAIR = 2
"""Tokens that must have occurred together before; after one alone too much can follow."""

LONGEST = 12
"""Tokens back to which a match is followed; how long it is says how likely it goes on."""

CANDIDATES = 16
"""Earlier places that are compared, the latest first."""


class NGrams:
    """Looks up the longest run of last tokens that has occurred before (of equal ones the latest), and says what followed.

    The guesses go on past the end of the text with what they have guessed, so a text that repeats
    itself is followed for ever.
    """

    costs = False
    chances = tuple(min(0.85, 0.15 + 0.1 * length) for length in range(LONGEST + 1))
    """How often a guess after a match of so many tokens is right, before it was measured."""

    def __init__(self) -> None:
        self._tokens: list[int] = []
        self._places: defaultdict[tuple[int, int], list[int]] = defaultdict(list)

    def begin(self, tokens: Sequence[int], sampling: Sampling) -> None:
        """Look at another sequence. How tokens are drawn plays no part."""
        self._tokens = list(tokens)
        self._places.clear()
        for place, pair in enumerate(pairwise(tokens), PAIR):
            self._places[pair].append(place)

    def add(self, token: int) -> None:
        """Take a new token."""
        self._tokens.append(token)
        if len(self._tokens) >= PAIR:
            self._places[self._tokens[-2], self._tokens[-1]].append(len(self._tokens))

    def close(self) -> None:
        """Forget the sequence."""
        self.begin((), Sampling())

    def prepare(self) -> None:
        """Do nothing: the sequence was looked at as it came."""

    def guesses(self) -> Iterator[DraftToken]:
        """Yield what comes next, if the last tokens have occurred before."""
        tokens = self._tokens
        end = len(tokens)
        if end <= PAIR:
            return
        length, place = 0, 0
        for earlier in reversed(self._places[tokens[-2], tokens[-1]][-CANDIDATES - 1 : -1]):
            found = self._match(earlier, end)
            if found > length:
                length, place = found, earlier
                if found == LONGEST:
                    break
        if length == 0:
            return
        guessed: list[int] = []
        while True:
            token = tokens[place] if place < end else guessed[place - end]
            guessed.append(token)
            yield DraftToken(token, min(length, LONGEST))
            place, length = place + 1, length + 1

    def _match(self, earlier: int, end: int) -> int:
        """How many tokens before ``earlier`` are those before ``end``."""
        tokens, length = self._tokens, PAIR
        while (
            length < min(LONGEST, earlier)
            and tokens[earlier - length - 1] == tokens[end - length - 1]
        ):
            length += 1
        return length
