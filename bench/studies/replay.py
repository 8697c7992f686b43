"""Record what became of each speculative step, and replay it on another text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import numpy.typing as npt

from edgellm.settings import Sampling
from edgellm.speculation.controller import Speculation
from edgellm.speculation.proposal import ROOT, Drafter, DraftToken

MIN_VOCABULARY = 1000
"""Tokens that every model that is replayed on has."""


class Recording(Speculation):
    """A speculation that keeps what became of each step.

    Args:
        drafter: proposes tokens.
        max_draft_tokens: the most that are verified in a step.
        slow: whether to propose as if every step took a second, whatever it verifies: as where the
            disk is the limit.

    Attributes:
        steps: rows of each step, and the tokens that it gave.
    """

    def __init__(self, drafter: Drafter, *, max_draft_tokens: int, slow: bool) -> None:
        extra_row_cost = 0.15
        if slow:
            extra_row_cost = 0.0
        super().__init__(drafter, max_draft_tokens=max_draft_tokens, extra_row_cost=extra_row_cost)
        self._slow = slow
        self.steps: list[list[int]] = []

    def record_step(self, rows: int, seconds: float) -> None:
        """Take note of a step's rows; the tokens that it gives are counted by ``add``."""
        if self._slow:
            seconds = 1.0
        super().record_step(rows, seconds)
        self.steps.append([rows, 0])

    def add(self, token: int) -> None:
        """Take the next token of the sequence."""
        super().add(token)
        if self.steps:
            self.steps[-1][1] += 1

    def begin(self, tokens: Sequence[int], sampling: Sampling) -> None:
        """Begin another sequence."""
        super().begin(tokens, sampling)
        self.steps.append([0, 0])  # the prompt's step gives the first token


@dataclass
class Replay:
    """A drafter that knows the text, and errs where another has erred.

    Attributes:
        text: ids of the prompt and of what follows.
        pattern: for each step, how many tokens are proposed and how many of them are right.
        active: whether it proposes anything.
        trees: whether wrong tokens are branches of their own.
        costs_time: whether proposing takes time that counts.
        prior_acceptance: by confidence, the fraction of proposed tokens that are accepted.
        place: tokens of the text so far.
    """

    text: Sequence[int]
    pattern: Iterator[tuple[int, int]]
    active: bool = True
    trees: bool = False
    costs_time: bool = False
    reads_logits: bool = False
    prior_acceptance: Sequence[float] = (1.0,)
    place: int = field(default=0, init=False)

    def begin(self, tokens: Sequence[int], sampling: Sampling) -> None:
        """Begin at the end of a sequence."""
        self.place = len(tokens)

    def add(self, token: int) -> None:
        """Go on by a token."""
        self.place += 1

    def catch_up(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""

    def learn(self, tokens: Sequence[int], logits: npt.NDArray[np.float32]) -> None:
        """Do nothing: it knows the text."""

    def propose(self) -> Iterator[DraftToken]:
        """Yield the text's next tokens, then wrong ones: after them, or in a tree beside them."""
        if not self.active:
            return
        count, right = next(self.pattern)
        for number, token in enumerate(self.text[self.place : self.place + count]):
            if number < right:
                yield DraftToken(token, 0, parent=number - 1)
            elif self.trees:
                # a branch each, the most that a tree can have
                wrong = (self.text[self.place] + 1 + number) % MIN_VOCABULARY
                yield DraftToken(wrong, 0, parent=ROOT)
            else:
                yield DraftToken(token ^ 1, 0, parent=number - 1)


class VerifyAll(Speculation):
    """A speculation that verifies all draft tokens: their number is part of what is replayed."""

    def propose(self, max_tokens: int) -> list[DraftToken]:
        """Return all that the drafter has."""
        return list(islice(self.drafter.propose(), min(self.max_draft_tokens, max_tokens)))
