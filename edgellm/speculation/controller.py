"""Guesses that a pass verifies beside its own token: how many are worth it, and what became of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import islice

from edgellm.settings import Sampling
from edgellm.speculation.acceptance import AcceptanceRate, DraftCost, StepCost
from edgellm.speculation.proposal import Drafter, DraftToken

MOST = 15
"""Guesses a pass; with the token that comes before them they are the 16 rows that a CPU's kernels take as cheaply as a few."""

FIRST_REST, LONGEST_REST = 16, 256
"""Tokens after which guesses that cost something are tried again, at first and at last."""

TRIAL = 4
"""Guesses of a trial."""


class Speculation:
    """Says which guesses to verify in the next pass: those with which the most tokens a second are to be expected.

    What is right how often, and what a pass and a guess cost, is measured as it goes, over all
    answers. Guesses that cost nothing are also compared with the text while they are not verified,
    so that a text that begins to repeat itself is noticed.

    Args:
        drafter: makes the guesses.
        most: guesses a pass.
        row_share: what one more row costs of a pass, before it was measured.
    """

    def __init__(self, drafter: Drafter, *, most: int = MOST, row_share: float) -> None:
        self._drafter, self._most = drafter, most
        self._chances, self._passes, self._guess = (
            AcceptanceRate(drafter.chances),
            StepCost(row_share),
            DraftCost(),
        )
        self._open: list[DraftToken] = []
        self._rest = self._pause = 0
        self._trial = False

    def begin(self, tokens: Sequence[int], sampling: Sampling) -> None:
        """Look at another sequence, which goes on as ``sampling`` says."""
        self._open = []
        self._rest = min(self._rest, FIRST_REST)
        self._drafter.begin(tokens, sampling)

    def close(self) -> None:
        """Free what the drafter holds."""
        self._drafter.close()

    def add(self, token: int) -> None:
        """Take the next token of the sequence."""
        if self._open:
            guess = self._open.pop(0)
            right = guess.token == token
            self._chances.judge(guess.trust, right=right)
            if not right:
                self._open = []
        self._drafter.add(token)

    def passed(self, rows: int, seconds: float) -> None:
        """Take note of what a pass has cost."""
        self._passes.take(rows, seconds)

    def likely(self) -> bool:
        """Whether guesses are to be expected after the next token, so that no pass should be launched before it is known."""
        if self._drafter.costs:
            return self._rest == 0
        return (
            bool(self._open)
            and self._chances.of(self._open[0].trust) > 0.5
            and bool(self._chosen(self._open[1:]))
        )

    def look_on(self) -> None:
        """Take note that the next pass was launched without guesses."""
        if self._drafter.costs:
            self._rest = max(0, self._rest - 1)
        else:
            self._open = self._free(self._most)

    def guesses(self, room: int) -> list[DraftToken]:
        """The guesses that the next pass should verify: at most ``room``, often none."""
        most = min(self._most, room)
        if most < 1:
            return []
        if not self._drafter.costs:
            self._open = self._free(most)
            return self._chosen(self._open)
        if self._rest > 0:
            self._rest -= 1
            return []
        trial, self._trial = self._trial, False
        self._drafter.prepare()
        begun = time.perf_counter()
        found = self._open = self._paid(min(most, TRIAL) if trial else most, trial=trial)
        if found:
            self._guess.take(len(found), time.perf_counter() - begun)
            self._pause = self._pause if trial else 0
            return list(found)
        self._rest = self._pause = min(LONGEST_REST, max(FIRST_REST, 2 * self._pause))
        self._trial = True
        return []

    def _free(self, most: int) -> list[DraftToken]:
        """Guesses that cost nothing: all of them, since later ones may be worth more than the next."""
        return list(islice(self._drafter.guesses(), most))

    def _chosen(self, guesses: Sequence[DraftToken]) -> list[DraftToken]:
        """As many of them as give the most tokens a second."""
        reach = expected = 1.0
        best, count = expected / self._passes.of(1), 0
        for number, guess in enumerate(guesses, 1):
            reach *= self._chances.of(guess.trust)
            expected += reach
            rate = expected / self._passes.of(number + 1)
            if rate > best:
                best, count = rate, number
        return list(guesses[:count])

    def _paid(self, most: int, *, trial: bool) -> list[DraftToken]:
        """Guesses that cost something, as long as one more promises more tokens a second."""
        found: list[DraftToken] = []
        coming = self._drafter.guesses()
        reach = expected = 1.0
        while len(found) < most:
            now = expected / self._seconds(len(found))
            hoped = (expected + reach * self._chances.mean) / self._seconds(len(found) + 1)
            guess = next(coming, None) if trial or hoped > now else None
            if guess is None:
                break
            found.append(guess)
            reach *= self._chances.of(guess.trust)
            expected += reach
        return found

    def _seconds(self, guesses: int) -> float:
        """What a pass takes that verifies so many guesses, and the guesses."""
        return self._passes.of(guesses + 1) + guesses * self._guess.each
