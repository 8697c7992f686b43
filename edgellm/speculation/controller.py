"""Controls speculation: how many draft tokens a step verifies, and whether they pay."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import islice

from edgellm.settings import Sampling
from edgellm.speculation.acceptance import AcceptanceRate, DraftCost, StepCost
from edgellm.speculation.proposal import Drafter, DraftToken

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
        # Draft tokens that the next tokens of the text are compared with.
        self._expected: list[DraftToken] = []
        self._cooldown = 0
        self._last_cooldown = 0
        self._next_is_trial = False

    def begin(self, tokens: Sequence[int], sampling: Sampling) -> None:
        """Turn to another sequence, which goes on as ``sampling`` says."""
        self._expected = []
        # another text may suit the draft better: it gets its chance soon
        self._cooldown = min(self._cooldown, MIN_COOLDOWN)
        self.drafter.begin(tokens, sampling)

    def close(self) -> None:
        """Free what the drafter holds."""
        self.drafter.close()

    def add(self, token: int) -> None:
        """Take the next token of the sequence."""
        if self._expected:
            expected = self._expected.pop(0)
            accepted = expected.token == token
            self._acceptance.observe(expected.confidence_bucket, accepted=accepted)
            if not accepted:
                # those after it were drafted for another text
                self._expected = []
        self.drafter.add(token)

    def record_step(self, rows: int, seconds: float) -> None:
        """Take note of what a step has cost."""
        self._step_cost.observe(rows, seconds)

    def expects_draft(self) -> bool:
        """Return whether the step after the next token is likely to verify draft tokens.

        Then it should not be launched before that token is known.
        """
        if self.drafter.costs_time:
            return self._cooldown == 0
        if not self._expected:
            return False
        next_is_likely = self._acceptance.of(self._expected[0].confidence_bucket) > 0.5
        return next_is_likely and bool(self._worthwhile(self._expected[1:]))

    def skip_draft(self) -> None:
        """Take note that the next step was launched without draft tokens."""
        if self.drafter.costs_time:
            self._cooldown = max(0, self._cooldown - 1)
        else:
            self._expected = self._draft_all(self.max_draft_tokens)

    def propose(self, max_tokens: int) -> list[DraftToken]:
        """Return the draft tokens for the next step: at most ``max_tokens``, often none."""
        max_tokens = min(max_tokens, self.max_draft_tokens)
        if max_tokens < 1:
            return []
        if not self.drafter.costs_time:
            self._expected = self._draft_all(max_tokens)
            return self._worthwhile(self._expected)
        if self._cooldown > 0:
            self._cooldown -= 1
            return []
        drafted = self._draft_timed(max_tokens)
        self._expected = drafted
        return list(drafted)

    def _draft_all(self, max_tokens: int) -> list[DraftToken]:
        """Draft tokens without counting their time: all, since later ones may outweigh the next."""
        return list(islice(self.drafter.propose(), max_tokens))

    def _worthwhile(self, drafted: Sequence[DraftToken]) -> list[DraftToken]:
        """Return the first of some draft tokens: as many as give the most tokens per second.

        A step that verifies n tokens gives 1 + p1 + p1 p2 + ... + p1 ... pn tokens, with p the
        acceptance rates (Leviathan et al. 2023, arXiv:2211.17192, with a rate for each token).
        """
        all_accepted = expected_tokens = 1.0
        best_rate = expected_tokens / self._step_cost.seconds(1)
        best_count = 0
        for count, draft in enumerate(drafted, 1):
            all_accepted *= self._acceptance.of(draft.confidence_bucket)
            expected_tokens += all_accepted
            rate = expected_tokens / self._step_cost.seconds(count + 1)
            if rate > best_rate:
                best_rate, best_count = rate, count
        return list(drafted[:best_count])

    def _draft_timed(self, max_tokens: int) -> list[DraftToken]:
        """Draft tokens that cost time, and count it; begin a cooldown where none is worth it."""
        is_trial = self._next_is_trial
        self._next_is_trial = False
        if is_trial:
            max_tokens = min(max_tokens, TRIAL_TOKENS)
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
        all_accepted = expected_tokens = 1.0
        proposed = self.drafter.propose()
        while len(drafted) < max_tokens:
            rate = expected_tokens / self._seconds(len(drafted))
            next_tokens = expected_tokens + all_accepted * self._acceptance.mean
            next_rate = next_tokens / self._seconds(len(drafted) + 1)
            # asked for only now: a draft model computes a token when it is asked for it
            if not is_trial and next_rate <= rate:
                break
            draft = next(proposed, None)
            if draft is None:
                break
            drafted.append(draft)
            all_accepted *= self._acceptance.of(draft.confidence_bucket)
            expected_tokens += all_accepted
        return drafted

    def _seconds(self, draft_tokens: int) -> float:
        """Return the expected seconds of drafting tokens and verifying them."""
        return (
            self._step_cost.seconds(draft_tokens + 1) + draft_tokens * self._draft_cost.seconds_each
        )
