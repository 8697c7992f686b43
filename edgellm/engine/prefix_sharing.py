"""Where a sequence's first tokens come from: a kept sequence, or one that runs beside it."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import takewhile

from edgellm.engine.scheduling.context import EngineContext
from edgellm.engine.scheduling.sequence import Sequence
from edgellm.prompt_cache.kept_sequence import common_length
from edgellm.prompt_cache.lease import Lease

MIN_SHARED = 8
"""Tokens in common with a running sequence that are worth waiting a step for."""

MIN_SHARED_STREAMED = 64
"""The same where a step reads weights from disk."""


class PrefixSharing:
    """Gives sequences their KV caches, with what there is of their prompts already.

    On processors whose kernels take another way for many tokens than for few, only tokens are
    taken that were computed the way they would be for this prompt alone, so that the completion is
    what it would be without them.

    Args:
        context: the model.
    """

    def __init__(self, context: EngineContext) -> None:
        self._context = context
        layers = context.model.layers
        self._is_exact = layers.max_exact_rows > 0
        self._streams_weights = layers.streams_weights

    def begin(self, sequence: Sequence, running: Iterable[Sequence]) -> Lease | None:
        """Return the caches of a sequence; None where it is better to wait for another one.

        Args:
            sequence: has not started.
            running: all that run, in the order in which they were admitted.
        """
        cache = self._context.prefix_cache
        if sequence.scores_prompt and not sequence.completion_tokens:
            # the states of all its tokens are wanted
            return cache.begin(sequence.tokens, sequence.room, reuse=False)
        leader = sequence.leader
        if leader is None or leader.has_ended or not leader.is_started:
            sequence.leader = leader = self._find_leader(sequence, running)
        if leader is not None:
            if leader.computed < sequence.shared:
                return None
            assert leader.lease is not None, "it has started"
            lease = cache.branch(leader.lease, sequence.shared, sequence.room)
            if lease is not None:
                return lease
        # of a few tokens none are in a kept sequence that were computed the same way
        reuse = sequence.is_many or not self._is_exact
        return cache.begin(
            sequence.tokens,
            sequence.room,
            reuse=reuse,
            exact=self._is_exact,
            prompt_tokens=sequence.prompt_tokens,
            returns_to=sequence,
        )

    def _find_leader(self, sequence: Sequence, running: Iterable[Sequence]) -> Sequence | None:
        """Return the sequence that has, or will have, most of a prompt; note how much in it."""
        leader = None
        sequence.shared = 0
        if sequence.completion_tokens and not sequence.is_many:
            return None  # it was computed before, and its own caches have more
        prefix = sequence.prompt[:-1]
        for other in takewhile(lambda one: one is not sequence, running):
            if not other.is_started or (self._is_exact and other.is_many != sequence.is_many):
                continue
            common = common_length(other.prompt, prefix)
            if common > sequence.shared:
                leader, sequence.shared = other, common
        if leader is None:
            return None
        least = MIN_SHARED
        if self._streams_weights:
            least = MIN_SHARED_STREAMED
        elif sequence.shared == len(prefix):  # nothing but the last token is left to compute
            least = 1
        kept = 0
        if sequence.is_many or not self._is_exact:
            kept = self._context.prefix_cache.common(sequence.tokens, exact=self._is_exact)
        if sequence.shared < kept + least:
            return None
        return leader
