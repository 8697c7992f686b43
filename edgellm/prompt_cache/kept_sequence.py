"""A sequence whose KV caches are kept, and what can be done with caches between generations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from weakref import ref

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.device.streams import borrowed_stream
from edgellm.kv_cache.cache import Cache

Tokens = npt.NDArray[np.int32]


@dataclass(eq=False, slots=True)
class KeptSequence:
    """A sequence that is kept and not being computed.

    Attributes:
        caches: one per layer; all hold the tokens and no others.
        tokens: the sequence.
        tokens_on_disk: of them, those that a file has.
        is_wanted: whether it was begun to be continued; of others only the last one is kept.
        prefilled: its first tokens that were computed as those of a long prompt are, and so as
            they would be for any other that begins with them; steps may round otherwise.
        returns: to the answer that has only given way, while somebody holds that.
        nbytes: bytes of the caches.
    """

    caches: list[Cache]
    tokens: Tokens
    tokens_on_disk: int
    is_wanted: bool
    prefilled: int = 0
    returns: ref[object] | None = None
    nbytes: int = 0

    def __post_init__(self) -> None:
        """Measure the caches."""
        self.nbytes = bytes_of(self.caches)

    @property
    def is_awaited(self) -> bool:
        """Whether an answer will continue exactly this one."""
        return self.returns is not None and self.returns() is not None

    def can_serve(self, length: int) -> bool:
        """Return whether its caches can go on after the first ``length`` tokens."""
        return all(cache.can_trim(length) for cache in self.caches)

    def trim(self, length: int) -> None:
        """Forget all tokens from position ``length`` on; all of them where a cache cannot."""
        # a cache of mlx-lm's may find out only now
        if not all(cache.trim(length) for cache in self.caches):
            length = 0
            for cache in self.caches:
                cache.trim(0)
        self.tokens = self.tokens[:length]
        self.tokens_on_disk = min(self.tokens_on_disk, length)
        self.prefilled = min(self.prefilled, length)

    def resize(self, tokens: int) -> None:
        """Make storage for exactly ``tokens``, or for its own where those are more."""
        resize(self.caches, tokens)
        self.nbytes = bytes_of(self.caches)


def resize(caches: Sequence[Cache], tokens: int) -> None:
    """Make storage for exactly ``tokens``, or for those that are held where these are more."""
    with borrowed_stream():
        for cache in caches:
            cache.resize(tokens)
            mx.eval(cache.arrays)  # no more than one layer's is there twice


def copy_prefix(caches: Sequence[Cache], length: int, tokens: int) -> list[Cache]:
    """Return caches of the first ``length`` tokens, or none where they cannot go back.

    Args:
        caches: one per layer.
        length: tokens that the copies hold.
        tokens: tokens that storage is made for.
    """
    copies = []
    with borrowed_stream():
        for cache in caches:
            twin = cache.copy_prefix(length, tokens)
            if twin is None:
                return []
            mx.eval(twin.arrays)
            copies.append(twin)
    return copies


def as_tokens(ids: Sequence[int]) -> Tokens:
    """Return token ids as an array."""
    return np.array(ids, np.int32)


def bytes_of(caches: Sequence[Cache]) -> int:
    """Return the bytes that caches hold."""
    return sum(cache.nbytes for cache in caches)


def common_length(left: Tokens, right: Tokens) -> int:
    """Return how many tokens two sequences begin with in common."""
    length = min(len(left), len(right))
    (different,) = np.nonzero(left[:length] != right[:length])
    if len(different):
        return int(different[0])
    return length
