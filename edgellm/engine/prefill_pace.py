"""The pace of prompts: how much of one a step computes while other sequences generate."""

from __future__ import annotations

MAX_SLOWDOWN = 2.2
"""A step with a part of a prompt is to last so many times as long as one without.

That is where no more prompts wait than sequences generate. Where more do, each of which waits for
its first token, a step has more of them.
"""

FADE = 0.8
"""What a measurement still weighs after the next one."""

MIN_TOKENS = 64
"""Of a prompt that are computed at once: for fewer, a CPU takes about as long."""

ROUNDED = 32
"""Tokens of a part of a prompt are a multiple of it."""


class PrefillPace:
    """Measures steps and prompts, and says how much of a prompt goes with the next step.

    A prompt's chunk goes through a few layers in each step, which costs nothing but the waiting;
    only where one layer would take too long the chunk gets smaller. Where layers cannot be gone
    through in parts, the chunk is all that can.

    Attributes:
        waiting_share: prompts that are computed, by the sequences that generate.
    """

    def __init__(self) -> None:
        self.waiting_share: float = 1.0
        self._step_seconds: float | None = None
        self._seconds_each: float | None = None

    def tokens(self, most: int) -> int:
        """Return of how many tokens, up to ``most``, one layer can be computed in a step."""
        tokens = self._tokens_per_step
        if tokens is None:
            return most
        return min(most, max(MIN_TOKENS, int(tokens) // ROUNDED * ROUNDED))

    def layers(self, tokens: int) -> int | None:
        """Return how many layers this many tokens may go through in a step; None: all."""
        tokens_per_step = self._tokens_per_step
        if tokens_per_step is None:
            return None
        return max(1, int(tokens_per_step / tokens))

    def observe_step(self, seconds: float) -> None:
        """Note how long the tokens of those that generate took."""
        self._step_seconds = _faded(self._step_seconds, seconds)

    def observe_prompt(self, tokens: int, layers: int, seconds: float) -> None:
        """Note how long it took to send this many tokens of prompts through some layers."""
        self._seconds_each = _faded(self._seconds_each, seconds / (tokens * layers))

    def observe(self, seconds: float, prompt_tokens: int, *, is_mixed: bool) -> None:
        """Note how long a step took, in which prompts went through the model beside the others."""
        if not prompt_tokens:
            self.observe_step(seconds)
        elif is_mixed and self._step_seconds is not None:
            # reads may hide what a prompt costs: the next one gets twice as much at most
            least = (MAX_SLOWDOWN - 1) * self._step_seconds / 2
            self.observe_prompt(prompt_tokens, 1, max(least, seconds - self._step_seconds))

    @property
    def _tokens_per_step(self) -> float | None:
        """Tokens that can go through one layer in a step; None where nobody's pace is known."""
        if self._step_seconds is None:
            return None
        if not self._seconds_each:
            return 0.0
        share = max(1.0, self.waiting_share)
        return share * (MAX_SLOWDOWN - 1) * self._step_seconds / self._seconds_each


def _faded(mean: float | None, new: float) -> float:
    if mean is None:
        return new
    return FADE * mean + (1 - FADE) * new
