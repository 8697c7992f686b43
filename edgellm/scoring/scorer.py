"""Scores of many continuations: what their contexts share is computed once."""

# L tokens, E hidden

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import mlx.core as mx

from edgellm.engine.scheduling.batched_forward import SequenceInput
from edgellm.engine.scheduling.context import EngineContext
from edgellm.kv_cache.cache import Cache
from edgellm.models.layers import always
from edgellm.sampling.token_scorer import TokenScorer
from edgellm.scoring.pairs import Pair
from edgellm.scoring.waves import Group, Wave, common_prefix, waves
from edgellm.scoring.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Score:
    """How likely a model finds a continuation after its context.

    Attributes:
        logprob: the sum of its tokens' natural log-probabilities.
        is_greedy: whether each of its tokens is the most likely one: greedy decoding would give
            exactly this continuation.
        logprobs: those of its tokens.
        ids: its tokens.
        bytes: bytes of its text in UTF-8.
    """

    logprob: float
    is_greedy: bool
    logprobs: tuple[float, ...]
    ids: tuple[int, ...]
    bytes: int


class Scorer:
    """Scores pairs, a wave at a time.

    Args:
        pairs: what is scored.
        context: the model.
    """

    def __init__(self, pairs: Sequence[Pair], context: EngineContext) -> None:
        plain = Workspace(context, always)
        self._waves = waves(pairs, plain)
        self._prefix = _SharedPrefix()
        self._next = next(self._waves, None)

    @property
    def is_done(self) -> bool:
        """Whether there are no more waves."""
        return self._next is None

    def run_wave(self, workspace: Workspace) -> list[tuple[int, Score]]:
        """Score the next wave, of which there is one; return its pairs' places with their scores.

        Raises:
            NotFiniteError: the model's logits are not finite.
            EdgeLLMError: it was cancelled.
        """
        assert self._next is not None, "is_done was asked"
        scores = list(_run(self._next, self._prefix, workspace))
        self._next = next(self._waves, None)
        return scores

    def drop_caches(self) -> None:
        """Free the KV caches that are kept for the next wave."""
        self._prefix = _SharedPrefix()


@dataclass(slots=True)
class _SharedPrefix:
    """The KV caches of what a wave's contexts have in common; the next wave may have some of it."""

    tokens: tuple[int, ...] = ()
    caches: list[Cache] = field(default_factory=list)

    def prepare(self, wave: Wave, workspace: Workspace) -> None:
        """Compute what all contexts of a wave share, as far as it is not there."""
        tokens = wave.groups[0].context[: wave.shared]
        if not tokens:
            self.tokens, self.caches = (), []
            return
        common = common_prefix(self.tokens, tokens)
        if not self.caches or not all(cache.trim(common) for cache in self.caches):
            common = 0
            self.caches = workspace.context.caches.make(
                capacity=workspace.context.context, reserve=len(tokens)
            )
        if common < len(tokens):
            new = SequenceInput(
                tokens[common:], self.caches, prompt_tokens=_room(wave), needs_logits=False
            )
            workspace.forward([new])
        self.tokens = tokens

    def caches_for(self, group: Group, workspace: Workspace) -> list[Cache]:
        """Return caches that hold the prefix, with room for the longest pair of a group."""
        if not self.tokens:
            return workspace.context.make_caches(group.room)
        return _copies(self.caches, len(self.tokens), group.room)


class _Running:
    """A group on its way through the model.

    Args:
        group: the group.
        caches: KV caches that hold the first ``shared`` tokens.
        shared: tokens that are computed already.
        workspace: the model.
    """

    def __init__(
        self, group: Group, caches: list[Cache], shared: int, workspace: Workspace
    ) -> None:
        self._group = group
        self._caches = caches
        self._shared = shared
        self._head = workspace.head
        self._last_state: mx.array | None = None  # (1, E)
        if group.is_alone:
            first = len(group.context) - shared
            tokens = group.pairs[0].tokens[shared:]
            self._scorers = [TokenScorer(self._head, tokens, first=first)]
        else:  # from the context's last state on
            self._scorers = [
                TokenScorer(self._head, (group.context[-1], *pair.continuation))
                for pair in group.pairs
            ]

    def first_input(self) -> SequenceInput:
        """Return what goes through the model first."""
        take_states = self._take_last_state
        if self._group.is_alone:
            take_states = self._scorers[0].add
        return SequenceInput(
            self._group.tokens[self._shared :],
            self._caches,
            prompt_tokens=self._group.room - self._shared,
            needs_logits=False,
            on_states=take_states,
        )

    def score_first_tokens(self) -> None:
        """Score the first tokens of continuations, all of which follow the context's last state."""
        if self._last_state is None:
            return
        logits = self._head(self._last_state)
        for scorer in self._scorers:
            scorer.add_logits(logits)

    def longer(self) -> list[tuple[_Running, int]]:
        """Return itself with the numbers of the continuations that have more to score."""
        if self._group.is_alone:
            return []
        pairs = enumerate(self._group.pairs)
        return [(self, number) for number, pair in pairs if len(pair.continuation) > 1]

    def continuation(self, number: int) -> SequenceInput:
        """Return what goes through the model of a continuation: nothing is asked after its end."""
        context = self._group.context
        return SequenceInput(
            self._group.pairs[number].continuation[:-1],
            _copies(self._caches, len(context), self._group.room),
            prompt_tokens=self._group.room - len(context),
            needs_logits=False,
            on_states=self._scorers[number].add,
        )

    @property
    def room(self) -> int:
        """Tokens of the longest pair."""
        return self._group.room

    def scores(self) -> Iterator[tuple[int, Score]]:
        """Yield the scores, with the pairs' places."""
        group = self._group
        for place, pair, scorer in zip(group.places, group.pairs, self._scorers, strict=True):
            yield place, _score(pair, scorer)

    def _take_last_state(self, hidden: mx.array) -> None:
        """Take hidden states (L, E) of the context, a part at a time; only the last one counts."""
        self._last_state = hidden[-1:]


def _run(wave: Wave, prefix: _SharedPrefix, workspace: Workspace) -> Iterator[tuple[int, Score]]:
    """Send a wave through the model; yield its scores, with the pairs' places."""
    prefix.prepare(wave, workspace)
    running = [
        _Running(group, prefix.caches_for(group, workspace), wave.shared, workspace)
        for group in wave.groups
    ]
    workspace.forward([one.first_input() for one in running])
    for one in running:
        one.score_first_tokens()
    longer = [pair for one in running for pair in one.longer()]
    context = workspace.context
    used_bytes = context.kv_bytes(wave.shared) + sum(context.kv_bytes(one.room) for one in running)
    at_once = max(1, (context.plan.kv_budget - used_bytes) // context.kv_bytes(_room(wave)))
    for begin in range(0, len(longer), at_once):
        workspace.forward(
            [one.continuation(number) for one, number in longer[begin : begin + at_once]]
        )
    for one in running:
        yield from one.scores()


def _room(wave: Wave) -> int:
    """Return the tokens of a wave's longest pair."""
    return max(group.room for group in wave.groups)


def _copies(caches: Sequence[Cache], length: int, room: int) -> list[Cache]:
    """Return caches of the first tokens, all that the others hold, with room for more."""
    copies = []
    for cache in caches:
        twin = cache.copy_prefix(length, room)
        assert twin is not None, "all of its tokens are copied"
        copies.append(twin)
    return copies


def _score(pair: Pair, scorer: TokenScorer) -> Score:
    scorer.require_finite()
    logprobs = tuple(one.logprob for one in scorer.logprobs)
    return Score(
        logprob=math.fsum(logprobs),
        is_greedy=scorer.is_greedy,
        logprobs=logprobs,
        ids=pair.continuation,
        bytes=pair.bytes,
    )
