"""Prefix cache: what a prompt has in common with sequences before it is not computed again."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from weakref import WeakSet

import mlx.core as mx

from edgellm.device.streams import borrowed_stream
from edgellm.kv_cache.cache import Cache, stored
from edgellm.prompt_cache.disk_cache import MIN_TOKENS, PromptCache
from edgellm.prompt_cache.kept_sequence import (
    KeptSequence,
    Tokens,
    as_tokens,
    common_length,
    copy_prefix,
    resize,
)
from edgellm.prompt_cache.lease import Lease

MakeCaches = Callable[[int], list[Cache]]
"""Makes one cache per layer, with storage for this many tokens."""

MIN_BRANCH = 16
"""Tokens after the common part from which a kept sequence is another one, and is copied.

Fewer are the end of a reply that a template or a tokenizer writes otherwise.
"""


class PrefixCache:
    """The KV caches of a model's sequences: those that are computed, and those that are kept.

    Kept ones are evicted, least recently used first, until all fit the budget; those that are
    computed never are. It is used from any threads.

    Args:
        make_caches: makes one cache per layer.
        cache_bytes: returns the bytes of what it makes.
        kv_budget: bytes for all caches together.
        prompt_cache: sequences on disk. A prefix is read from there; a sequence is written when
            it is evicted or loses its end, and when the model is closed, so that the turns of a
            conversation cost nothing in between.
    """

    def __init__(
        self,
        make_caches: MakeCaches,
        cache_bytes: Callable[[int], int],
        kv_budget: int,
        prompt_cache: PromptCache | None = None,
    ) -> None:
        self._make_caches = make_caches
        self._cache_bytes = cache_bytes
        self._kv_budget = kv_budget
        self._prompt_cache = prompt_cache
        self._lock = threading.RLock()
        self._is_changing = False
        self._returned: deque[tuple[Lease, KeptSequence | None]] = deque()
        self._kept: list[KeptSequence] = []  # the least recently used first
        self._running: WeakSet[Lease] = WeakSet()
        self._closed = False

    def begin(
        self,
        ids: Sequence[int],
        tokens: int,
        *,
        reuse: bool,
        restore: bool = False,
        exact: bool = False,
        prompt_tokens: int | None = None,
        returns_to: object | None = None,
        sequences: int = 1,
    ) -> Lease:
        """Return caches that hold what there is of a prompt, but for its last token.

        The logits of the last one are wanted. What is common with a kept sequence is copied where
        that one holds much more and there is memory for both; else the sequence is taken over.

        Args:
            ids: the prompt.
            tokens: tokens that the sequence may come to hold.
            reuse: look for what the prompt has in common with a kept sequence.
            restore: look on disk too; also implies ``reuse`` where there is a prompt cache.
            exact: take only tokens that were ``prefilled``.
            prompt_tokens: of others' sequences, take only so many; None: all.
            returns_to: whose sequence goes on: its own is taken before any other.
            sequences: that there is to be memory for; more than one for the beams of a search.
        """
        restore = restore and self._prompt_cache is not None
        prefix = as_tokens(ids[:-1])
        nbytes = self._cache_bytes(tokens) * sequences
        with self._changing():
            source, common = None, 0
            if returns_to is not None:
                source, common = self._own(returns_to, prefix)
            if source is None and (reuse or restore):
                source, common = self._longest(prefix[:prompt_tokens], exact=exact)
            sequence = None
            if restore:
                sequence = self._restored(prefix, common + MIN_TOKENS, tokens, nbytes)
            restored = 0
            if sequence is not None:
                restored = len(sequence.tokens)
            elif source is not None:
                sequence = self._continued(source, common, tokens, nbytes)
            else:
                sequence = KeptSequence(self._new_caches(tokens, nbytes), prefix[:0], 0, False)
            lease = Lease(
                self,
                sequence.caches,
                restored=restored,
                tokens_on_disk=sequence.tokens_on_disk,
                is_wanted=reuse or sequence.is_wanted,
                prefilled=sequence.prefilled,
                nbytes=max(nbytes, sequence.nbytes),
            )
            self._running.add(lease)
            return lease

    def common(self, ids: Sequence[int], *, exact: bool) -> int:
        """Return how many tokens of a prompt ``begin`` would find in a kept sequence."""
        with self._changing():
            _, common = self._longest(as_tokens(ids[:-1]), exact=exact)
            return common

    def branch(self, trunk: Lease, length: int, tokens: int) -> Lease | None:
        """Return a copy of the first ``length`` tokens of a sequence that is computed.

        None where its caches cannot go back to them.

        Args:
            trunk: of that sequence; it goes on as it is.
            length: tokens that the caches hold.
            tokens: tokens that the new sequence may come to hold.
        """
        nbytes = self._cache_bytes(tokens)
        with self._changing():
            self._make_room(nbytes)
            copies = copy_prefix(trunk.caches, length, tokens)
            if not copies:
                return None
            lease = Lease(
                self,
                copies,
                restored=0,
                tokens_on_disk=0,
                is_wanted=True,
                prefilled=min(trunk.prefilled, length),
                nbytes=nbytes,
            )
            self._running.add(lease)
            return lease

    def grow(self, lease: Lease, tokens: int) -> None:
        """Make storage for ``tokens`` in caches that are computed; kept sequences make room."""
        nbytes = self._cache_bytes(tokens)
        with self._changing():
            self._make_room(nbytes - lease.nbytes)
            resize(lease.caches, tokens)
            lease.nbytes = max(lease.nbytes, nbytes)

    def take_back(self, lease: Lease, sequence: KeptSequence | None) -> None:
        """End a lease, and keep its sequence if there is one: ``Lease.keep`` and ``drop``."""
        self._returned.append((lease, sequence))
        with self._lock:
            # a finalizer may come in the middle of another change, which then sees to it
            if not self._is_changing:
                with self._changing():
                    pass

    def cut(self, tokens: Sequence[int], length: int) -> None:
        """Forget the end of the kept sequence ``tokens``, from ``length`` of them on.

        Nobody will go on from it. Nothing happens where it is not kept, or is longer by now.
        """
        array = as_tokens(tokens)
        with self._changing():
            for sequence in self._kept:
                size = len(sequence.tokens)
                # a step ahead may have computed the token after the last
                if not length < size <= len(array) + 1:
                    continue
                if common_length(sequence.tokens, array) < min(size, len(array)):
                    continue
                self._write(sequence)
                sequence.trim(length)
                if not len(sequence.tokens):
                    self._kept.remove(sequence)
                return

    def clear(self) -> None:
        """Write kept sequences to disk if they are to last, and free them."""
        with self._changing():
            while self._kept:
                self._evict(self._kept[0])

    def close(self) -> None:
        """Do as ``clear``, and keep nothing that is given back after it."""
        self._closed = True
        self.clear()

    @property
    def kept_bytes(self) -> int:
        """Bytes of the caches that are kept."""
        with self._lock:
            return self._kept_bytes()

    @property
    def running_bytes(self) -> int:
        """Bytes that the caches of sequences which are computed come to take."""
        with self._lock:
            return self._running_bytes()

    def __len__(self) -> int:
        """Return how many sequences are kept."""
        return len(self._kept)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Change what is kept within; sequences that were given back meanwhile follow."""
        with self._lock:
            self._is_changing = True
            try:
                yield
                while self._returned:
                    lease, sequence = self._returned.popleft()
                    if lease in self._running:
                        self._running.remove(lease)
                        if sequence is not None and not self._closed:
                            self._keep(sequence)
            finally:
                self._is_changing = False

    def _longest(self, prefix: Tokens, *, exact: bool) -> tuple[KeptSequence | None, int]:
        """Return the kept sequence with the longest common prefix that it can go on after.

        Of several, the one that has the least after it.
        """
        best, best_common = None, 0
        for sequence in self._kept:
            common = common_length(sequence.tokens, prefix)
            if exact:
                common = min(common, sequence.prefilled)
            if common < max(1, best_common) or not sequence.can_serve(common):
                continue
            if best and common == best_common and len(sequence.tokens) >= len(best.tokens):
                continue
            best, best_common = sequence, common
        return best, best_common

    def _own(self, owner: object, prefix: Tokens) -> tuple[KeptSequence | None, int]:
        """Return the sequence that is kept for ``owner``, and how much of a prefix it has."""
        for sequence in self._kept:
            if sequence.returns is not None and sequence.returns() is owner:
                sequence.returns = None
                common = common_length(sequence.tokens, prefix)
                if common and sequence.can_serve(common):
                    return sequence, common
        return None, 0

    def _continued(
        self, source: KeptSequence, common: int, tokens: int, nbytes: int
    ) -> KeptSequence:
        """Return the first ``common`` tokens of a kept sequence: a copy, or the sequence itself."""
        is_another = source.is_awaited or len(source.tokens) - common >= MIN_BRANCH
        if is_another and self._make_room(nbytes, unless=source):
            copies = copy_prefix(source.caches, common, tokens)
            if copies:
                on_disk = min(source.tokens_on_disk, common)
                prefilled = min(source.prefilled, common)
                return KeptSequence(copies, source.tokens[:common], on_disk, False, prefilled)
        self._kept.remove(source)
        if common < len(source.tokens):
            self._write(source)
        source.trim(common)
        self._make_room(nbytes)
        source.resize(tokens)
        return source

    def _restored(
        self, prefix: Tokens, min_tokens: int, tokens: int, nbytes: int
    ) -> KeptSequence | None:
        """Return a sequence read from disk, where it has ``min_tokens`` or more."""
        if self._prompt_cache is None or len(prefix) < min_tokens:
            return None
        ids = prefix.tolist()
        match = self._prompt_cache.find(ids, self._make_caches(0))
        if match is None or match.common < min_tokens:
            return None
        caches = self._new_caches(tokens, nbytes)
        with borrowed_stream():
            length = self._prompt_cache.load(match, caches)
        if not length:
            return None
        return KeptSequence(caches, prefix[:length], length, False)

    def _new_caches(self, tokens: int, nbytes: int) -> list[Cache]:
        self._make_room(nbytes)
        with borrowed_stream():
            caches = self._make_caches(tokens)
            mx.eval(stored(caches))
        return caches

    def _keep(self, sequence: KeptSequence) -> None:
        """Keep a sequence, and none that it makes needless."""
        for other in list(self._kept):
            common = common_length(other.tokens, sequence.tokens)
            if other.is_awaited or sequence.is_awaited:
                continue
            if common == len(other.tokens) and sequence.can_serve(common):
                self._kept.remove(other)
                sequence.is_wanted |= other.is_wanted
                sequence.tokens_on_disk = max(sequence.tokens_on_disk, other.tokens_on_disk)
            elif common == len(sequence.tokens) and other.can_serve(common):
                other.is_wanted |= sequence.is_wanted
                self._kept.remove(other)
                sequence = other
            elif not (sequence.is_wanted or other.is_wanted):
                self._evict(other)
        self._kept.append(sequence)
        self._make_room(0)

    def _make_room(self, nbytes: int, *, unless: KeptSequence | None = None) -> bool:
        """Evict sequences until there is room for ``nbytes`` more.

        Storage that none of them uses goes first. Returns false where it is the turn of ``unless``.
        """
        for sequence in self._kept:
            if self._fits(nbytes):
                return True
            sequence.resize(0)
        while self._kept and not self._fits(nbytes):
            if self._kept[0] is unless:
                return False
            self._evict(self._kept[0])
        return True

    def _fits(self, nbytes: int) -> bool:
        return self._running_bytes() + self._kept_bytes() + nbytes <= self._kv_budget

    def _kept_bytes(self) -> int:
        return sum(sequence.nbytes for sequence in self._kept)

    def _running_bytes(self) -> int:
        return sum(lease.nbytes for lease in self._running)

    def _evict(self, sequence: KeptSequence) -> None:
        self._kept.remove(sequence)
        self._write(sequence)

    def _write(self, sequence: KeptSequence) -> None:
        """Write a sequence to disk, if it has at least ``MIN_TOKENS`` that are not there."""
        if self._prompt_cache is None:
            return
        if len(sequence.tokens) >= sequence.tokens_on_disk + MIN_TOKENS:
            with borrowed_stream():
                self._prompt_cache.save(sequence.tokens.tolist(), sequence.caches)
            sequence.tokens_on_disk = len(sequence.tokens)
