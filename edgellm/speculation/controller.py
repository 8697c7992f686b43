"""Controls speculation: how many draft tokens a step verifies, and whether they pay."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice

import mlx.core as mx
import numpy as np

from edgellm.settings import Sampling
from edgellm.speculation.acceptance import AcceptanceRate, DraftCost, StepCost
from edgellm.speculation.proposal import ROOT, Drafter, DraftToken

MAX_DRAFT_TOKENS = 15
"""Draft tokens of a step; with the token before them they are the 16 rows that a CPU's kernels take
as cheaply as a few."""

MIN_COOLDOWN, MAX_COOLDOWN = 16, 256
"""Steps after which a draft that costs time is tried again, at first and at last."""

TRIAL_TOKENS = 4
"""Draft tokens of a trial."""


class Speculation:
    """Chooses the draft tokens of each step: as many as promise the most tokens per second.

    Acceptance rates, and the seconds of steps and draft tokens, are measured over all generations.
    Draft tokens that cost no time are also compared with the text while they are not verified, so
    that a text that begins to repeat itself is noticed. A draft that costs time and does not pay
    is left alone for a while, twice as long each time, and then tried again.

    Args:
        drafter: proposes the tokens.
        max_draft_tokens: draft tokens of a step at most.
        extra_row_cost: what one more row costs of a step, before it was measured.
    """

    def __init__(
        self, drafter: Drafter, *, max_draft_tokens: int = MAX_DRAFT_TOKENS, extra_row_cost: float
    ) -> None:
        self.drafter = drafter
        self.max_draft_tokens = max_draft_tokens
        self._acceptance = AcceptanceRate(drafter.prior_acceptance)
        self._step_cost = StepCost(extra_row_cost)
        self._draft_cost = DraftCost()
        # Draft tokens that the text is compared with, and the one of them that it has come to.
        self._expected: list[DraftToken] = []
        self._reached = ROOT
        self._cooldown = 0
        self._last_cooldown = 0
        self._next_is_trial = False

    def begin(self, tokens: Sequence[int], sampling: Sampling) -> None:
        """Turn to another sequence, which goes on as ``sampling`` says."""
        self._expect([])
        # another text may suit the draft better: it gets its chance soon
        self._cooldown = min(self._cooldown, MIN_COOLDOWN)
        self.drafter.begin(tokens, sampling)

    def close(self) -> None:
        """Free what the drafter holds."""
        self.drafter.close()

    def add(self, token: int) -> None:
        """Take the next token of the sequence."""
        matching = None
        for place, expected in self._next_expected():
            accepted = expected.token == token
            self._acceptance.observe(expected.confidence_bucket, accepted=accepted)
            if accepted:
                matching = place
        if matching is None:
            # the others were drafted for another text
            self._expect([])
        else:
            self._reached = matching
        self.drafter.add(token)

    def learn(self, tokens: mx.array, logits: mx.array) -> None:
        """Let the drafter see the logits (L, V) that the model has computed after tokens (L,)."""
        if self.drafter.reads_logits:
            ids: list[int] = np.array(tokens).tolist()
            self.drafter.learn(ids, np.array(logits.astype(mx.float32), copy=False))

    def record_step(self, rows: int, seconds: float) -> None:
        """Take note of what a step has cost."""
        self._step_cost.observe(rows, seconds)

    def expects_draft(self) -> bool:
        """Return whether the step after the next token is likely to verify draft tokens.

        Then it should not be launched before that token is known.
        """
        if self.drafter.costs_time:
            return self._cooldown == 0
        for place, draft in self._next_expected():
            if self._acceptance.of(draft.confidence_bucket) > 0.5:
                return bool(self._worthwhile(_below(self._expected, place)))
        return False

    def skip_draft(self) -> None:
        """Take note that the next step was launched without draft tokens."""
        if self.drafter.costs_time:
            self._cooldown = max(0, self._cooldown - 1)
        else:
            self._expect(self._draft_all(self.max_draft_tokens))

    def propose(self, max_tokens: int) -> list[DraftToken]:
        """Return the draft tokens for the next step: ``max_tokens`` in a row at most, often none.

        Each has its parent, which comes before it.
        """
        if max_tokens < 1:
            return []
        if not self.drafter.costs_time:
            drafted = self._draft_all(max_tokens)
            self._expect(drafted)
            return self._worthwhile(drafted)
        if self._cooldown > 0:
            self._cooldown -= 1
            return []
        drafted = self._draft_timed(max_tokens)
        self._expect(drafted)
        return drafted

    def _expect(self, drafted: list[DraftToken]) -> None:
        """Compare the next tokens of the text with draft tokens."""
        self._expected = drafted
        self._reached = ROOT

    def _next_expected(self) -> list[tuple[int, DraftToken]]:
        """Return the draft tokens that may be the next token of the text, and their places."""
        return [
            (place, draft)
            for place, draft in enumerate(self._expected)
            if draft.parent == self._reached
        ]

    def _draft_all(self, max_tokens: int) -> list[DraftToken]:
        """Draft tokens without counting their time: all, since later ones may outweigh the next."""
        return list(self._proposed(max_tokens))

    def _proposed(self, max_tokens: int) -> Iterator[DraftToken]:
        """Yield what is proposed, each with its parent, up to ``max_tokens`` in a row."""
        kept: dict[int, int] = {ROOT: ROOT}  # of each proposed token that is yielded, its place
        depths = {ROOT: 0}
        # a proposal may have no end, and all the rest of a tree may lie too deep
        proposed = islice(self.drafter.propose(), self.max_draft_tokens)
        for place, draft in enumerate(proposed):
            parent = draft.parent
            if parent is None:
                parent = place - 1
            if depths.get(parent, max_tokens) == max_tokens:
                if draft.parent is None:
                    return
                continue
            yield replace(draft, parent=kept[parent])
            kept[place] = len(kept) - 1
            depths[place] = depths[parent] + 1

    def _worthwhile(self, drafted: Sequence[DraftToken]) -> list[DraftToken]:
        """Return the first of some draft tokens: as many as give the most tokens per second.

        A step that verifies n tokens in a row gives 1 + p1 + p1 p2 + ... + p1 ... pn tokens, with
        p the acceptance rates (Leviathan et al. 2023, arXiv:2211.17192, with a rate for each
        token); in a tree, a token adds the product along its path from the root.
        """
        accepted = {ROOT: 1.0}
        expected_tokens = 1.0
        best_rate = expected_tokens / self._step_cost.seconds(1)
        best_count = 0
        for count, draft in enumerate(drafted, 1):
            accepted[count - 1] = self._path_acceptance(draft, accepted)
            expected_tokens += accepted[count - 1]
            rate = expected_tokens / self._step_cost.seconds(count + 1)
            if rate > best_rate:
                best_rate, best_count = rate, count
        return list(drafted[:best_count])

    def _path_acceptance(self, draft: DraftToken, accepted: Mapping[int, float]) -> float:
        """Return how likely a draft token is accepted, by how likely those before it are."""
        assert draft.parent is not None, "each has its parent"
        return accepted[draft.parent] * self._acceptance.of(draft.confidence_bucket)

    def _draft_timed(self, max_tokens: int) -> list[DraftToken]:
        """Draft tokens that cost time, and count it; begin a cooldown where none is worth it."""
        is_trial = self._next_is_trial
        self._next_is_trial = False
        self.drafter.catch_up()  # not counted: it is not a draft token's own time
        started_at = time.perf_counter()
        drafted = self._draft_while_worthwhile(max_tokens, is_trial=is_trial)
        if drafted:
            self._draft_cost.observe(len(drafted), time.perf_counter() - started_at)
            if not is_trial:
                # it pays again; a trial alone does not show that
                self._last_cooldown = 0
            return drafted
        self._last_cooldown = min(MAX_COOLDOWN, max(MIN_COOLDOWN, 2 * self._last_cooldown))
        self._cooldown = self._last_cooldown
        self._next_is_trial = True
        return []

    def _draft_while_worthwhile(self, max_tokens: int, *, is_trial: bool) -> list[DraftToken]:
        """Draft tokens while one more promises more tokens per second; all in a trial."""
        drafted: list[DraftToken] = []
        accepted = {ROOT: 1.0}
        expected_tokens = last_accepted = 1.0
        proposed = self._proposed(max_tokens)
        most = self.max_draft_tokens
        if is_trial:
            most = TRIAL_TOKENS
        while len(drafted) < most:
            rate = expected_tokens / self._seconds(len(drafted))
            next_tokens = expected_tokens + last_accepted * self._acceptance.mean
            next_rate = next_tokens / self._seconds(len(drafted) + 1)
            # asked for only now: a draft model computes a token when it is asked for it
            if not is_trial and next_rate <= rate:
                break
            draft = next(proposed, None)
            if draft is None:
                break
            last_accepted = self._path_acceptance(draft, accepted)
            accepted[len(drafted)] = last_accepted
            drafted.append(draft)
            expected_tokens += last_accepted
        return drafted

    def _seconds(self, draft_tokens: int) -> float:
        """Return the expected seconds of drafting tokens and verifying them."""
        return (
            self._step_cost.seconds(draft_tokens + 1) + draft_tokens * self._draft_cost.seconds_each
        )


def _below(drafted: Sequence[DraftToken], root: int) -> list[DraftToken]:
    """Return the draft tokens that follow the one at a place, which is their root then."""
    places = {root: ROOT}
    below: list[DraftToken] = []
    for place, draft in enumerate(drafted):
        if draft.parent in places and place != root:
            places[place] = len(below)
            below.append(replace(draft, parent=places[draft.parent]))
    return below
