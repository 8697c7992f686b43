"""Windows of layers or rows of every matrix: whichever takes less time for a token."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Literal

from edgellm.console.units import seconds
from edgellm.distributed.forecast import (
    KindForecast,
    fits,
    forecast_alone,
    forecast_rows,
    forecast_windows,
)
from edgellm.distributed.gathered import Gathered, gather
from edgellm.distributed.parts.rows import require_rows, share_rows
from edgellm.distributed.rates import SLOWEST_WEIGHTS, Rates
from edgellm.distributed.row_choice import gather_seconds
from edgellm.distributed.supply.sending import lacks_folder
from edgellm.errors import EdgeLLMError
from edgellm.models.through_mlx_lm.checkpoint import AnyCheckpoint
from edgellm.settings import LoadSettings

Kind = Literal["windows", "rows"]

WORTH = 0.8
"""A token by rows has to take at most so much of one by windows: forecasts are no better."""

WORTH_OF_DISKS = 0.95
"""The same where a token by rows waits for disks: these are forecast better than arithmetic."""


@dataclass(frozen=True, slots=True)
class ClusterForecast:
    """Forecasts of both kinds of split, of which one is chosen.

    Attributes:
        kinds: forecasts of those that are possible.
        refused: why a kind is not possible.
        kind: which one ``load`` takes.
        reason: why, in a sentence.
        alone: what this machine would take without the others; None: it has not the memory, or
            was not asked.
    """

    kinds: dict[Kind, KindForecast]
    refused: dict[Kind, str]
    kind: Kind
    reason: str
    alone: KindForecast | None = None

    @property
    def chosen(self) -> KindForecast:
        """The one that ``load`` takes."""
        return self.kinds[self.kind]

    def as_dict(self) -> dict[str, Any]:
        """Return the chosen one as one JSON object, with both in ``kinds``."""
        return {
            "split": self.kind,
            "reason": self.reason,
            **self.chosen.as_dict(),
            "kinds": {kind: forecast.as_dict() for kind, forecast in self.kinds.items()},
            "refused": self.refused,
            "alone": self.alone and self.alone.as_dict(),
        }


def forecast_cluster(checkpoint: AnyCheckpoint, settings: LoadSettings) -> ClusterForecast:
    """Call the machines, measure them and the links, and return what each would have.

    Errors are those of ``open_cluster``.
    """
    with ExitStack() as stack:
        gathered = gather(checkpoint, settings, stack)
        rates = Rates(gathered)
        return replace(compare(gathered, rates), alone=forecast_alone(gathered, rates))


def choose_split(gathered: Gathered, rates: Rates) -> Kind:
    """Return the kind that ``settings.split`` says; of ``auto``, the faster one.

    Nothing is measured where rows are not possible or machines keep layers on disk, and links alone
    where all layers fit into the memories and the links are too slow.
    """
    if gathered.settings.split != "auto":
        return gathered.settings.split
    if _kept_as_layers(gathered) is not None:
        return "windows"
    try:
        require_rows(gathered.checkpoint, gathered.settings)
        share_rows(gathered.checkpoint.config, gathered.budgets)
    except EdgeLLMError:
        return "windows"
    try:
        in_memory = fits(gathered)
    except EdgeLLMError:  # by windows they cannot: fewer layers than machines, or too large ones
        return compare(gathered, rates).kind
    # then all that rows can save is arithmetic, and a hop to each machine
    if in_memory:
        arithmetic = gathered.checkpoint.token_weight_bytes / SLOWEST_WEIGHTS
        if gather_seconds(gathered, rates) > arithmetic + sum(rates.trips):
            return "windows"
    return compare(gathered, rates).kind


def compare(gathered: Gathered, rates: Rates) -> ClusterForecast:
    """Return forecasts of both kinds, and which one is taken.

    Raises EdgeLLMError where the kind that was asked for, or any, is not possible.
    """
    makers: dict[Kind, Callable[[Gathered, Rates], KindForecast]]
    makers = {"windows": forecast_windows, "rows": forecast_rows}
    kinds: dict[Kind, KindForecast] = {}
    refused: dict[Kind, str] = {}
    errors: dict[Kind, EdgeLLMError] = {}
    for kind, make in makers.items():
        try:
            kinds[kind] = make(gathered, rates)
        except EdgeLLMError as error:
            refused[kind], errors[kind] = error.message, error
    asked = gathered.settings.split
    if asked != "auto":
        if asked in errors:
            raise errors[asked]
        return ClusterForecast(kinds, refused, asked, "it was asked for")
    if not kinds:
        raise errors["windows"]
    if len(kinds) == 1:
        (kind,) = kinds
        (other,) = refused
        return ClusterForecast(kinds, refused, kind, f"{other} are not possible: {refused[other]}")
    kept = _kept_as_layers(gathered)
    if kept is not None:
        return ClusterForecast(kinds, refused, "windows", kept)
    kind, reason = _faster(kinds["windows"], kinds["rows"])
    return ClusterForecast(kinds, refused, kind, reason)


def _kept_as_layers(gathered: Gathered) -> str | None:
    """Return why windows are taken unasked; None where the faster kind is.

    What machines keep on their disks is of one division of the model, and measurements that differ
    a little from load to load move a whole layer at most, but some rows of every matrix.
    """
    if gathered.settings.prompt_cache:
        return "the prefix cache on disk is found again where layers stay on their machines"
    for peer in gathered.peers:
        if lacks_folder(peer):
            return (
                f"machine {peer.machine.name} has not got the model, and keeps the layers that it "
                "is sent"
            )
    return None


def _faster(windows: KindForecast, rows: KindForecast) -> tuple[Kind, str]:
    """Return which of two kinds is taken, and why."""
    long, short = seconds(windows.seconds_per_token), seconds(rows.seconds_per_token)
    by_disks = rows.read_seconds >= rows.arithmetic_seconds + rows.link_seconds
    worth = WORTH_OF_DISKS if by_disks else WORTH
    if rows.seconds_per_token < worth * windows.seconds_per_token:
        if by_disks:
            return "rows", (
                f"a token takes {short} by rows, of which more stay in memory, and {long} "
                "by windows"
            )
        return "rows", (
            f"a token takes {short} by rows, which all machines compute at once, and {long} by "
            "windows, which they compute one after the other"
        )
    if windows.read_seconds >= windows.arithmetic_seconds + windows.link_seconds:
        return "windows", (
            f"a token takes {long} by windows, for which all disks read, and {short} by rows, for "
            "which they would, too"
        )
    return "windows", (
        f"a token takes {long} by windows, and {short} by rows, which are on their way between "
        f"machines for {seconds(rows.link_seconds)} of it"
    )
