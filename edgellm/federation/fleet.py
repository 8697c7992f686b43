"""The clients of a federation as its server sees them, and the rounds that it has with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from edgellm.errors import EdgeLLMError
from edgellm.federation.task import Answer, Task
from edgellm.setting_values import number, whole_number


class Fleet(Protocol):
    """The clients of a federation, however messages travel."""

    def present(self) -> Sequence[str]:
        """Return the names of the clients that are there."""

    def ask(
        self, task: Task, clients: Sequence[str], seconds: float
    ) -> Iterator[tuple[str, Answer | EdgeLLMError]]:
        """Send a task, and yield what each client answers, or why it does not."""

    def traffic(self) -> tuple[int, int]:
        """Return the bytes that were sent and received so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounds:
    """How many rounds there are, and with whom.

    Attributes:
        rounds: in all.
        clients: that are invited; the first round waits for all of them.
        least: clients without which no round counts.
        wait: seconds to wait for clients that are not there.
        timeout: seconds that a client may take for a round.
    """

    rounds: int
    clients: int
    least: int = 1
    wait: float = 60.0
    timeout: float = 3600.0

    def __post_init__(self) -> None:
        """Check that all are numbers that fit. Raises ConfigError."""
        whole_number("rounds", self.rounds, 1, 1 << 31)
        whole_number("clients", self.clients, 1, 1000)
        whole_number("least", self.least, 1, self.clients)
        number("wait", self.wait, 0, 1e9)
        number("timeout", self.timeout, 0, 1e9, low_excluded=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundReport:
    """A round.

    Attributes:
        round: its number, from 1.
        clients: what each that counts has told.
        failed: why the others do not count.
        lost: the norm of what the rank has no room for, over that of the mean change.
        lost_of_round: the same, over that of what the round changed.
        sent: bytes to clients.
        received: bytes from them.
        seconds: that it took.
        memory: the most that this process held so far, in bytes.
    """

    round: int
    clients: Mapping[str, Mapping[str, float]]
    failed: Mapping[str, str] = field(default_factory=dict)
    lost: float
    lost_of_round: float
    sent: int
    received: int
    seconds: float
    memory: int

    def mean(self, figure: str) -> float | None:
        """Return the weighted mean of what clients told; None where some did not tell it."""
        told = [(one[figure], one["weight"]) for one in self.clients.values() if figure in one]
        if not told or len(told) < len(self.clients):
            return None
        return sum(value * weight for value, weight in told) / sum(weight for _, weight in told)
