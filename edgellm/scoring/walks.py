"""A trie's way through the layers: what is shared goes once, and keys and values are kept.

A walk goes from node to node in depth-first order, as far as it is told to at a time. It holds the
keys and values of the last node's path, so that it goes on from there.
"""

# L tokens, E hidden

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import mlx.core as mx
import numpy as np

from edgellm.engine.scheduling.context import EngineContext
from edgellm.kv_cache.cache import Cache, KVCache
from edgellm.kv_cache.path_cache import PathCache
from edgellm.runtime.caches import LayerCaches
from edgellm.scoring.trie import Ints, Trie
from edgellm.scoring.workspace import Workspace


class Walk(Protocol):
    """A trie's way through the layers."""

    def go_on(self, nodes: range, workspace: Workspace) -> Iterator[mx.array]:
        """Send the next nodes through the layers; yield their hidden states (L, E) in parts.

        Raises EdgeLLMError where it was cancelled.
        """
        ...

    def drop_caches(self) -> None:
        """Free the keys and values; what is needed of them is computed again."""
        ...


def walk_through(trie: Trie, context: EngineContext) -> Walk:
    """Return a trie's walk through a model: all branches in one cache where that can be."""
    # of a whole model, or where layers are on other machines
    if not isinstance(context.caches, LayerCaches):
        return BranchWalk(trie)
    # windows keep all tokens then, since branches go back
    if trie.depth * context.kv_bytes(1) > context.plan.kv_budget:
        return BranchWalk(trie)
    return TrieWalk(trie)


class TrieWalk:
    """A walk on which branches share calls, and write over each other in one cache."""

    def __init__(self, trie: Trie) -> None:
        self._trie = trie
        self._caches: list[KVCache] = []

    def go_on(self, nodes: range, workspace: Workspace) -> Iterator[mx.array]:
        """Send the next nodes through the layers; yield their hidden states (L, E) in parts."""
        trie, chunk = self._trie, workspace.chunk
        chunks: list[tuple[Ints, Ints]] = []
        if not self._caches:
            self._caches = _whole_caches(trie.depth, workspace.context)
            path = trie.path_to(nodes.start)
            chunks += _cut(trie.tokens[path], np.arange(len(path)), chunk)
        again = len(chunks)
        chosen = slice(nodes.start, nodes.stop)
        chunks += _cut(trie.tokens[chosen], trie.positions[chosen], chunk)
        ids = [tokens for tokens, _ in chunks]
        caches = [[PathCache(cache, own) for cache in self._caches] for _, own in chunks]
        states = workspace.through_layers(ids, caches)[again:]
        for place, hidden in enumerate(states):
            states[place] = mx.zeros(0)  # its memory is free as soon as it is scored
            yield hidden

    def drop_caches(self) -> None:
        """Free the keys and values."""
        self._caches = []


class BranchWalk:
    """A walk on which each branch goes by itself, in caches that may be unable to go back.

    Where they cannot, a copy is kept of each place from which another branch begins.
    """

    def __init__(self, trie: Trie) -> None:
        self._trie = trie
        self._starts = np.flatnonzero(np.diff(trie.positions, prepend=-2) != 1)
        self._caches: Sequence[Cache] = []
        self._copies: dict[int, Sequence[Cache]] = {}

    def go_on(self, nodes: range, workspace: Workspace) -> Iterator[mx.array]:
        """Send the next nodes through the layers; yield their hidden states (L, E) in parts."""
        begin = nodes.start
        while begin < nodes.stop:
            branch = int(np.searchsorted(self._starts, begin, side="right"))
            end = nodes.stop
            if branch < len(self._starts):
                end = min(end, int(self._starts[branch]))
            self._go_back(begin, workspace)
            position = int(self._trie.positions[begin])
            stops = [*self._later_starts(branch, position, position + end - begin), None]
            for stop in stops:
                last = end
                if stop is not None:
                    last = begin + stop - int(self._trie.positions[begin])
                if begin < last:
                    yield from self._run(np.arange(begin, last), workspace)
                if stop is not None:
                    self._keep_copy(stop)
                begin = last

    def drop_caches(self) -> None:
        """Free the keys and values."""
        self._caches = []
        self._copies.clear()

    def _later_starts(self, branch: int, first: int, end: int) -> list[int]:
        """Return the positions on a branch from which later branches begin, in rising order."""
        found: list[int] = []
        for start in self._starts[branch:]:
            position = int(self._trie.positions[start])
            if position < max(first, 1):
                break
            if position < end and (not found or position < found[-1]):
                found.append(position)
        return found[::-1]

    def _go_back(self, node: int, workspace: Workspace) -> None:
        """Let the caches hold the path to a node."""
        position = int(self._trie.positions[node])
        self._copies = {
            length: copies for length, copies in self._copies.items() if length <= position
        }
        can_trim = bool(self._caches) and all(cache.can_trim(position) for cache in self._caches)
        if can_trim and all(cache.trim(position) for cache in self._caches):
            return
        if position in self._copies:
            self._caches = [cache.copy() for cache in self._copies[position]]
            return
        self._caches = workspace.context.make_caches(self._trie.depth)
        if position:
            for _ in self._run(self._trie.path_to(node), workspace):
                pass

    def _keep_copy(self, length: int) -> None:
        if not all(cache.can_trim(length - 1) for cache in self._caches):
            self._copies[length] = [cache.copy() for cache in self._caches]

    def _run(self, nodes: Ints, workspace: Workspace) -> Iterator[mx.array]:
        """Send nodes that follow one another through the layers."""
        tokens = self._trie.tokens[nodes]
        chunks = [
            tokens[begin : begin + workspace.chunk]
            for begin in range(0, len(tokens), workspace.chunk)
        ]
        if workspace.context.model.whole:  # whose states are as large as its vocabulary
            for ids in chunks:
                yield from workspace.through_layers([ids], [self._caches])
        else:
            yield from workspace.through_layers(chunks, [self._caches] * len(chunks))


def _whole_caches(tokens: int, context: EngineContext) -> list[KVCache]:
    """Return caches that keep this many tokens, whatever their windows."""
    caches = []
    for cache in context.make_caches(1):
        assert isinstance(cache, KVCache), "the model is no whole one"
        cache.keep_all(tokens)
        caches.append(cache)
    mx.eval([array for cache in caches for array in cache.arrays])
    return caches


def _cut(tokens: Ints, positions: Ints, size: int) -> list[tuple[Ints, Ints]]:
    return [
        (tokens[begin : begin + size], positions[begin : begin + size])
        for begin in range(0, len(tokens), size)
    ]
