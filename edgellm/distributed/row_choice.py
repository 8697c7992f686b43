"""Which machine has which rows of every matrix, and whether the output matrix is among them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from edgellm.console.units import short_time, size
from edgellm.distributed.gathered import Gathered, named
from edgellm.distributed.parts.changes import changes_bytes
from edgellm.distributed.parts.open_rows import plan_rows
from edgellm.distributed.parts.output import has_output_kernels
from edgellm.distributed.parts.rows import GATHERS, RowShare, share_output, share_rows
from edgellm.distributed.rates import SLOWEST_WEIGHTS, Rates
from edgellm.errors import MemoryBudgetError
from edgellm.kernels.exchange.gather import Bounds
from edgellm.memory_plan.plan import Plan

GATHER_SECONDS = 3e-5
"""Seconds that a gather takes beside the way: sending, and waiting for who was slower."""

OUTPUT_SECONDS = 1e-4
"""Likewise of logits, which Python sends and takes."""

CLEARLY = 0.5
"""A trip is measured with more in it than what a gather takes, where machines wait awake."""

BALANCING_STEPS = 4
"""Times that shares of rows are chosen again by what machines then hold."""


@dataclass(frozen=True, slots=True)
class ChosenRows:
    """Which machine has which rows.

    Attributes:
        shares: the rows of each.
        plans: of each machine, how they would lie in its memory.
        output: of each, rows of the output matrix; None: the first one has all.
        output_seconds: per token, until the first one has the logits of all.
        reason: why, in a sentence.
    """

    shares: Sequence[RowShare]
    plans: Sequence[Plan]
    output: Sequence[Bounds] | None = None
    output_seconds: float = 0.0
    reason: str = ""

    def read_seconds(self, disks: Sequence[float]) -> float:
        """Return the seconds per token that the slowest disk needs."""
        return max(plan.streamed_bytes / disk for plan, disk in zip(self.plans, disks, strict=True))

    @property
    def is_resident(self) -> bool:
        """Whether no machine has to read."""
        return all(plan.resident for plan in self.plans)


def choose_shares(gathered: Gathered, rates: Rates) -> ChosenRows:
    """Choose which machine has which rows: by memory, and of those that read, by disk, too.

    Each has rows of the output matrix where a token then takes less time by what was measured.

    Raises MemoryBudgetError where a machine's memory holds too little of each layer.
    """
    reason = None
    if not has_output_kernels(gathered.checkpoint):
        reason = "the CPU kernels do not compute with it as it is stored"
    try:
        alone = chosen_rows(gathered, rates, by_rows=False)
    except MemoryBudgetError:
        if reason is not None:
            raise
        shared = _with_gather(chosen_rows(gathered, rates, by_rows=True), rates)
        return replace(shared, reason="rows of it on each machine: with all of it one is too small")
    if reason is not None:
        return replace(alone, reason=f"on this machine: {reason}")
    nbytes = gathered.checkpoint.output_matrix.nbytes
    least = OUTPUT_SECONDS
    if least < nbytes / SLOWEST_WEIGHTS:  # else links need not be measured
        least = max(rates.trips) / 2 + OUTPUT_SECONDS
    if least >= nbytes / SLOWEST_WEIGHTS:
        return replace(
            alone,
            reason=f"on this machine: {size(nbytes)} are multiplied sooner than logits gathered, "
            f"which takes {short_time(least)} or more",
        )
    try:
        shared = _with_gather(chosen_rows(gathered, rates, by_rows=True), rates)
    except MemoryBudgetError as error:
        return replace(alone, reason=f"on this machine: with rows of it, {error.message}")
    gathers = gather_seconds(gathered, rates, alone.shares)
    before, after = (_token_seconds(chosen, rates, gathers) for chosen in (alone, shared))
    gather = short_time(shared.output_seconds)
    if after < before:
        return replace(
            shared,
            reason=f"rows of it on each machine: logits are gathered in {gather}, and a token "
            f"takes {short_time(before - after)} less",
        )
    saved = shared.output_seconds - (after - before)
    why = f"rows of it would save {short_time(saved)} of arithmetic, and {gather} go into gathers"
    if not alone.is_resident and before <= alone.read_seconds(rates.disks):
        why = "a token waits for disks, with rows of it on each no less"
    elif saved <= 0:
        why = "the slowest machine would have no less to do with rows of it on each"
    return replace(alone, reason=f"on this machine: {why}")


def chosen_rows(gathered: Gathered, rates: Rates, *, by_rows: bool) -> ChosenRows:
    """Return the rows of each machine, of the output matrix too or not; raises as above."""
    checkpoint = gathered.checkpoint

    def chosen(weights: Sequence[float], *, all_attended: bool = False) -> ChosenRows:
        shares = share_rows(checkpoint.config, weights, all_attended=all_attended)
        output = share_output(checkpoint.config, weights) if by_rows else None
        plans = []
        for machine, share in enumerate(shares):
            changes = changes_bytes(gathered.changes_of(share))
            with named(gathered, machine):
                plans.append(
                    plan_rows(
                        checkpoint,
                        share,
                        gathered.settings_of(machine),
                        layers_only=machine > 0,
                        output=None if output is None else output[machine],
                        adapter_bytes=gathered.adapter_bytes(machine, changes),
                    )
                )
        return ChosenRows(shares, plans, output)

    found = best = chosen(gathered.budgets)
    if found.is_resident:
        if _pays_all_attended(gathered, rates, found.shares):
            with suppress(MemoryBudgetError):
                more = chosen(gathered.budgets, all_attended=True)
                found = more if more.is_resident else found
        return found
    # what a machine holds depends on its share, by the buffers of its ring
    for _ in range(BALANCING_STEPS):
        try:
            found = chosen(balanced_parts(found.plans, rates.disks))
        except MemoryBudgetError:
            break
        if found.read_seconds(rates.disks) < best.read_seconds(rates.disks):
            best = found
    return best


def gather_seconds(
    gathered: Gathered, rates: Rates, shares: Sequence[RowShare] | None = None
) -> float:
    """Return the seconds per token that rows are on their way: one way, between all at once.

    Of shares that are not known yet, the least.
    """
    gathers = GATHERS - 1
    if shares is not None and shares[0].attended == shares[0].hidden:
        gathers = GATHERS
    return gathers * len(gathered.checkpoint.layers) * _gather_seconds(rates)


def _gather_seconds(rates: Rates) -> float:
    return max(rates.trips) / 2 + GATHER_SECONDS


def _pays_all_attended(gathered: Gathered, rates: Rates, shares: Sequence[RowShare]) -> bool:
    """Return whether each machine computes all that heads attend to sooner than it is gathered.

    Where no arithmetic would take as long, nothing is measured.
    """
    checkpoint = gathered.checkpoint
    whole = max(
        tensor.nbytes
        for layer in checkpoint.layers
        for name, tensor in layer.tensors.items()
        if name == "self_attn.o_proj.weight"
    )
    more = [
        whole * (1 - (share.hidden[1] - share.hidden[0]) / checkpoint.config.hidden_size)
        for share in shares
    ]
    if max(more) / SLOWEST_WEIGHTS <= GATHER_SECONDS:
        return True
    arithmetic = max(nbytes / rate for nbytes, rate in zip(more, rates.weights, strict=True))
    return arithmetic < CLEARLY * _gather_seconds(rates)


def _with_gather(chosen: ChosenRows, rates: Rates) -> ChosenRows:
    """Return rows with the time until all logits are here, one machine's after the other's."""
    output = chosen.output
    assert output is not None, "it was asked for"
    parts = [
        max(0.0, seconds - trip) * (stop - first) / output[-1][1]
        for seconds, trip, (first, stop) in zip(rates.logits, rates.trips, output, strict=True)
    ]
    return replace(chosen, output_seconds=max(rates.trips) / 2 + OUTPUT_SECONDS + sum(parts))


def _token_seconds(chosen: ChosenRows, rates: Rates, gathers: float) -> float:
    """Return the seconds of a token, of which ``gathers`` are those of its layers."""
    arithmetic = max(
        plan.weight_bytes_per_token / rate
        for plan, rate in zip(chosen.plans, rates.weights, strict=True)
    )
    computes = arithmetic + gathers + chosen.output_seconds
    if chosen.is_resident:
        return computes
    return max(computes, chosen.read_seconds(rates.disks))


def balanced_parts(plans: Sequence[Plan], disks: Sequence[float]) -> list[float]:
    """Return the bytes of each machine's part for which all disks read for the same time.

    A machine holds what it holds in its plan, and where that is all, what is free there, too.
    """
    held = [
        plan.pinned_bytes + (plan.budget - plan.total_bytes if plan.resident else 0)
        for plan in plans
    ]
    total = sum(plan.pinned_bytes + plan.streamed_bytes for plan in plans)
    seconds = max(0.0, total - sum(held)) / sum(disks)
    return [own + seconds * disk for own, disk in zip(held, disks, strict=True)]
