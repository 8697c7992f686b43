"""A draft token, and the protocol of drafters, which propose them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgellm.sampling.distribution import Distribution
from edgellm.settings import Sampling

ROOT = -1
"""The parent of draft tokens that may come next."""


@dataclass(frozen=True, slots=True)
class DraftToken:
    """A token that may come next.

    Attributes:
        token: the token.
        confidence_bucket: how sure it is, as an index into its drafter's ``prior_acceptance``.
        proposal: what it was drawn from; None where it was not drawn.
        parent: which of the draft tokens before it in the proposal it follows; ``ROOT`` for the
            last token of the sequence, None for the draft token just before it.
    """

    token: int
    confidence_bucket: int
    proposal: Distribution | None = None
    parent: int | None = None


class Drafter(Protocol):
    """Proposes how a sequence goes on; ``NoDrafts`` is the shortest example."""

    @property
    def costs_time(self) -> bool:
        """Whether a draft token costs time worth counting."""
        ...

    @property
    def reads_logits(self) -> bool:
        """Whether it is to see what the model made of tokens."""
        ...

    @property
    def prior_acceptance(self) -> Sequence[float]:
        """The assumed acceptance rate of each confidence bucket, before it was measured."""
        ...

    def begin(self, tokens: Sequence[int], sampling: Sampling) -> None:
        """Turn to another sequence, which goes on as ``sampling`` says."""
        ...

    def add(self, token: int) -> None:
        """Take the next token of the sequence, which may differ from the proposed one."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...

    def catch_up(self) -> None:
        """Compute what the next proposal needs of tokens that came since the last one."""
        ...

    def propose(self) -> Iterator[DraftToken]:
        """Yield the next tokens one by one, each in case that those it follows are accepted.

        Where several may follow the same, those more likely to be accepted come first.
        """
        ...

    def learn(self, tokens: Sequence[int], logits: npt.NDArray[np.float32]) -> None:
        """Look at the logits (L, V) after tokens; called where ``reads_logits``."""
        ...


class NoDrafts:
    """A drafter that proposes nothing: plain decoding."""

    costs_time = False
    reads_logits = False
    prior_acceptance: tuple[float, ...] = (0.0,)

    def begin(self, tokens: Sequence[int], sampling: Sampling) -> None:
        """Do nothing; so do the other methods."""

    def add(self, token: int) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""

    def catch_up(self) -> None:
        """Do nothing."""

    def propose(self) -> Iterator[DraftToken]:
        """Yield nothing."""
        return iter(())

    def learn(self, tokens: Sequence[int], logits: npt.NDArray[np.float32]) -> None:
        """Do nothing."""
