"""The reasons to doubt a figure: repetitions that differ, or more than the machine can do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MAX_SHARE = 1.05
"""The fraction of the machine's limit above which a figure is doubtful."""

MAX_SPREAD = 0.2
"""Half the distance of slowest and fastest repetition, as a fraction of the median."""

MAX_CLIENT_SHARE = 0.3
"""The fraction of a core above which the client of a load test may be what limits it."""

CACHES = 256 << 20
"""Bytes of weights that the caches of a processor may hold."""

BUSY = "other programs used the machine, or it slowed down as it got warm: measure again"
IN_THE_CACHES = "so few weights stay in the processor's caches, and the limit is main memory's"
BUSY_BEFORE = "the machine was busier while its limit was measured: measure again"
CLIENT_IS_BUSY = (
    "the client may hold the server up where both share few cores: load it from another machine"
)
REQUESTS_FAILED = "a server that fails has less to do: compare no speeds with failures in them"
PROMPTS_WERE_CUT = "what stood in front was not read: raise --context, or take fewer shots"
DISK_WAS_BUSY = (
    "the disk was slower in the plain reads that it is compared with, or the system had the file "
    "in memory: measure again"
)


@dataclass(frozen=True, slots=True)
class Doubt:
    """A figure, and why it is not to be trusted."""

    figure: str
    reason: str

    def __str__(self) -> str:
        """Return both in a sentence."""
        return f"{self.figure}: {self.reason}"


def spread_of(seconds: tuple[float, ...], median: float | None) -> float | None:
    """Return half the distance of slowest and fastest, as a fraction of the median."""
    if not median or len(seconds) < 2:
        return None
    return (max(seconds) - min(seconds)) / 2 / median


def doubt_spread(spread: float | None) -> list[Doubt]:
    """Return the doubt about repetitions that differ by too much."""
    if spread is None or spread <= MAX_SPREAD:
        return []
    return [Doubt(f"repetitions differ by ±{100 * spread:.0f}%", BUSY)]


def doubt_share(share: float | None, weight_bytes: int | None) -> list[Doubt]:
    """Return the doubt about a speed above what the machine can do."""
    if share is None or share <= MAX_SHARE:
        return []
    reason = BUSY_BEFORE
    if weight_bytes is not None and weight_bytes <= CACHES:
        reason = IN_THE_CACHES
    return [Doubt(f"{100 * share:.0f}% of the machine's limit", reason)]


def doubt_efficiency(efficiency: float | None) -> list[Doubt]:
    """Return the doubt about paging that is faster than the disk."""
    if efficiency is None or efficiency <= MAX_SHARE:
        return []
    return [Doubt(f"efficiency {efficiency:.2f}", DISK_WAS_BUSY)]


def doubt_failures(failures: Mapping[str, int], whole: int) -> list[Doubt]:
    """Return the doubt about a load of which requests have failed, with their kinds."""
    failed = sum(failures.values())
    if not failed:
        return []
    kinds = ", ".join(f"{kind} ({count})" for kind, count in sorted(failures.items()))
    return [Doubt(f"{failed} of {failed + whole} requests failed: {kinds}", REQUESTS_FAILED)]


def doubt_client(share: float | None) -> list[Doubt]:
    """Return the doubt about a load test whose client takes much of a core."""
    if share is None or share <= MAX_CLIENT_SHARE:
        return []
    return [Doubt(f"the client took {100 * share:.0f}% of a core", CLIENT_IS_BUSY)]


def doubt_cut(cut: int, questions: int) -> list[Doubt]:
    """Return the doubt about answers to prompts that did not fit the context."""
    if not cut:
        return []
    return [Doubt(f"{cut} of {questions} prompts were cut", PROMPTS_WERE_CUT)]


def doubt_metrics(stored: Mapping[str, float], computed: Mapping[str, float]) -> list[Doubt]:
    """Return the doubts about metrics that do not follow from the columns of their questions."""
    return [
        Doubt(
            f"{name} {stored[name]:.6g} in the record",
            f"by the columns of its questions, {name} is {value:.6g}, which is shown, and not "
            f"{stored[name]:.6g}: the file was edited, or another version wrote it",
        )
        for name, value in computed.items()
    ]
