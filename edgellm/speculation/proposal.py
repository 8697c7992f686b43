"""A guess of a next token, and whoever makes one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from edgellm.sampling.sampler import Distribution
from edgellm.settings import Sampling


@dataclass(frozen=True, slots=True)
class DraftToken:
    """A token that may come next.

    Attributes:
        token: the token.
        trust: how sure it is, as a place in its drafter's ``chances``.
        odds: what it was drawn from; None where nothing was drawn.
    """

    token: int
    trust: int
    odds: Distribution | None = None


class Drafter(Protocol):
    """Guesses how a sequence goes on."""

    @property
    def costs(self) -> bool:
        """Whether a guess costs time worth counting."""
        ...

    @property
    def chances(self) -> Sequence[float]:
        """How often guesses of each trust are right, before it was measured."""
        ...

    def begin(self, tokens: Sequence[int], sampling: Sampling) -> None:
        """Look at another sequence, which goes on as ``sampling`` says."""
        ...

    def add(self, token: int) -> None:
        """Take the next token of the sequence, which may be another than was guessed."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...

    def prepare(self) -> None:
        """Compute what the next guesses need of a sequence that has not been looked at for long."""
        ...

    def guesses(self) -> Iterator[DraftToken]:
        """Yield the next tokens one after another, each in case that those before it are right."""
        ...
