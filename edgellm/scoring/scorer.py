"""Scores of many continuations: what they begin with in common is computed once."""

# R rows that go through the head at once, E hidden, V vocabulary

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.engine.scheduling.context import EngineContext
from edgellm.sampling.finite import require_finite
from edgellm.scoring.pairs import Pair
from edgellm.scoring.trie import trie_of
from edgellm.scoring.walks import walk_through
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
    """Scores pairs, a wave of tokens at a time.

    Args:
        pairs: what is scored.
        context: the model.
    """

    def __init__(self, pairs: Sequence[Pair], context: EngineContext) -> None:
        self._pairs = pairs
        self._trie = trie = trie_of(pairs)
        self._walk = walk_through(trie, context)
        self._logprobs: npt.NDArray[np.float64] = np.zeros(len(trie.places))
        self._is_likeliest: npt.NDArray[np.bool_] = np.zeros(len(trie.places), bool)
        self._node = 0
        # pairs in the order in which they are done
        self._order = np.argsort(trie.last_nodes, kind="stable")
        self._done = 0

    @property
    def is_done(self) -> bool:
        """Whether all pairs are scored."""
        return self._node == len(self._trie)

    def run_wave(self, workspace: Workspace) -> list[tuple[int, Score]]:
        """Send the next wave through the model; return the pairs that it ends, with their scores.

        Raises:
            NotFiniteError: the model's logits are not finite.
            EdgeLLMError: it was cancelled.
        """
        end = min(self._node + workspace.tokens_at_once(self._trie.depth), len(self._trie))
        self._score(range(self._node, end), workspace)
        self._node = end
        done = np.searchsorted(self._trie.last_nodes[self._order], end)
        ended = self._order[self._done : done].tolist()
        self._done = int(done)
        return [(number, self._score_of(number)) for number in ended]

    def drop_caches(self) -> None:
        """Free the KV caches that are kept for the next wave."""
        self._walk.drop_caches()

    def _score(self, nodes: range, workspace: Workspace) -> None:
        """Send nodes through the model, and score what follows them.

        Rows of all parts share products with the output matrix: a node has one row, whatever
        follows it.
        """
        first, last = np.searchsorted(self._trie.scoring_nodes, [nodes.start, nodes.stop])
        wanted = np.unique(self._trie.scoring_nodes[first:last])
        waiting: list[mx.array] = []
        at_once = workspace.head_rows
        begin, taken = nodes.start, 0
        for hidden in self._walk.go_on(nodes, workspace):
            end = begin + len(hidden)
            own = wanted[np.searchsorted(wanted, begin) : np.searchsorted(wanted, end)]
            if len(own):
                waiting.append(hidden[mx.array(own - begin)])
            begin = end
            rows = sum(map(len, waiting))
            if waiting and (rows >= at_once or end == nodes.stop):
                states = mx.concatenate(waiting)
                whole = rows
                if end < nodes.stop:
                    whole -= rows % at_once
                for start in range(0, whole, at_once):
                    stop = min(start + at_once, whole)
                    logits = workspace.head(states[start:stop])
                    self._score_rows(logits, wanted[taken : taken + stop - start])
                    taken += stop - start
                waiting = [states[whole:]]

    def _score_rows(self, logits: mx.array, nodes: npt.NDArray[np.int64]) -> None:
        """Score what follows R nodes by the logits (R, V) after them."""
        rows: npt.NDArray[np.float32] = np.array(logits.astype(mx.float32), copy=False)
        likeliest = rows.argmax(axis=-1)
        largest = rows[np.arange(len(rows)), likeliest]
        require_finite(largest)
        shifted = rows - largest[:, None]
        totals = largest + np.log(np.exp(shifted, out=shifted).sum(axis=-1))
        trie = self._trie
        first = np.searchsorted(trie.scoring_nodes, nodes[0])
        last = np.searchsorted(trie.scoring_nodes, nodes[-1], side="right")
        of_row = np.searchsorted(nodes, trie.scoring_nodes[first:last])
        tokens, places = trie.scored_tokens[first:last], trie.places[first:last]
        self._logprobs[places] = rows[of_row, tokens] - totals[of_row]
        self._is_likeliest[places] = likeliest[of_row] == tokens

    def _score_of(self, number: int) -> Score:
        pair = self._pairs[number]
        own = slice(*self._trie.first_places[number : number + 2].tolist())
        logprobs = tuple(self._logprobs[own].tolist())
        return Score(
            logprob=math.fsum(logprobs),
            is_greedy=bool(self._is_likeliest[own].all()),
            logprobs=logprobs,
            ids=pair.continuation,
            bytes=pair.bytes,
        )
