"""The status of a measurement that is under way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Status:
    """A point in a run of the bench.

    Attributes:
        number: the number of the test under way, from 1.
        total: tests in all.
        title: what is measured: a backend, a model, its threads.
        doing: the step of it: "loading", "repetition 2 of 5".
    """

    number: int
    total: int
    title: str
    doing: str


DoingCallback = Callable[[str], None]
"""Called with the step of a test, in words, before it is taken."""

StatusCallback = Callable[[Status], None]
"""Called before each step that takes a while."""
