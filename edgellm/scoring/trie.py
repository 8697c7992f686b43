"""Pairs as a trie: tokens that several begin with in common are there once."""

# N nodes, M scored tokens, P pairs

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgellm.scoring.pairs import Pair

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Trie:
    """The tokens of pairs that go through the layers, in depth-first order, and what they score.

    A node is a token after those before it. The last token of a pair is only scored: nothing is
    asked after it.

    Attributes:
        tokens: of each node (N,).
        positions: of each node (N,): how many tokens come before it.
        scoring_nodes: for each scored token the node whose state says how likely it is (M,), in
            rising order.
        scored_tokens: those tokens (M,).
        places: where each of them lies among all scored tokens, pair after pair (M,).
        first_places: the first place of each pair, and behind the last pair the end (P + 1,).
        last_nodes: of each pair (P,): its last scoring node.
        depth: tokens of the longest path.
    """

    tokens: Ints
    positions: Ints
    scoring_nodes: Ints
    scored_tokens: Ints
    places: Ints
    first_places: Ints
    last_nodes: Ints
    depth: int

    def __len__(self) -> int:
        """Return the number of nodes."""
        return len(self.tokens)

    def path_to(self, node: int) -> Ints:
        """Return the nodes before ``node`` on its path (positions[node],)."""
        path = np.empty(self.positions[node], np.int64)
        left = len(path)
        while left:
            node -= 1
            if self.positions[node] == left - 1:
                left -= 1
                path[left] = node
        return path


def trie_of(pairs: Sequence[Pair]) -> Trie:
    """Return pairs as a trie; those that begin alike are neighbors in it."""
    # big-endian numbers compare like lists of tokens, and much faster
    keys = [np.array(pair.tokens, ">i4").tobytes() for pair in pairs]
    longest = max((len(pair.tokens) for pair in pairs), default=0)
    first_places = np.cumsum([0, *(len(pair.continuation) for pair in pairs)])
    last_nodes = np.empty(len(pairs), np.int64)
    tokens, positions, nodes, scored, places = ([np.empty(0, np.int64)] for _ in range(5))
    path = np.empty(longest, np.int64)
    before = np.empty(0, np.int64)
    count = 0
    for number in sorted(range(len(pairs)), key=keys.__getitem__):
        own = np.frombuffer(keys[number], ">i4").astype(np.int64)
        run = own[:-1]
        shared = common_prefix(before, run)
        new = len(run) - shared
        path[shared : len(run)] = np.arange(count, count + new)
        count += new
        tokens.append(run[shared:])
        positions.append(np.arange(shared, len(run)))
        first = len(pairs[number].context)
        nodes.append(path[first - 1 : len(run)].copy())
        scored.append(own[first:])
        places.append(np.arange(first_places[number], first_places[number + 1]))
        last_nodes[number] = path[len(run) - 1]
        before = run
    scoring_nodes = np.concatenate(nodes)
    order = np.argsort(scoring_nodes, kind="stable")
    return Trie(
        tokens=np.concatenate(tokens),
        positions=np.concatenate(positions),
        scoring_nodes=scoring_nodes[order],
        scored_tokens=np.concatenate(scored)[order],
        places=np.concatenate(places)[order],
        first_places=first_places,
        last_nodes=last_nodes,
        depth=max(0, longest - 1),
    )


def common_prefix(left: Ints, right: Ints) -> int:
    """Return how many tokens two sequences begin with in common."""
    length = min(len(left), len(right))
    differs = left[:length] != right[:length]
    if not differs.any():
        return length
    return int(differs.argmax())
